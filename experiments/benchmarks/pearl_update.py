"""One gradient step of PEARL against the same update written plainly, at the paper's sizes.

16 tasks x 256 transitions, contexts of 100, observations 17, actions 6, latent 5, nets of 3 x 300, encoder 3 x 200. The
plain version is what one writes first: modules, two critics one after the other, one backward pass and one Adam per
loss. Both see the same numbers, and their gradients are compared; then they run in turn in this process. With bfloat16
on a GPU and on processors that can gain by it; elsewhere `speedup_bfloat16` is null, and the reason is given. The last
line is one JSON object.

    python experiments/benchmarks/pearl_update.py [--device cuda] [--repeats 9] [--tasks 16]
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections.abc import Callable

import torch
from _timing import ms_in_turn, paired_ratio, reported
from torch import Tensor, nn

from metarl.algorithms.pearl import PEARL
from metarl.algorithms.pearl.config import PEARLConfig
from metarl.algorithms.pearl.meta_batch import MetaBatch
from metarl.algorithms.pearl.policy import LOG_STD_RANGE
from metarl.algorithms.pearl.replay import Transitions
from metarl.kernels.processor import bfloat16_pays
from metarl.nets.context_encoder import MIN_VAR, PermutationInvariantEncoder
from metarl.rollout.spaces import Spaces

B, C, OBS, ACTIONS, LATENT = 256, 100, 17, 6, 5


def mlp(*sizes: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for fan_in, fan_out in itertools.pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class Plain:
    """The same losses by modules, each with its own backward pass."""

    def __init__(self, pearl: PEARL):
        self.config, device, nets = pearl.config, pearl.device, pearl.objective
        assert isinstance(nets.encoder, PermutationInvariantEncoder)
        self.actor = mlp(*nets.actor.sizes).to(device)
        self.encoder = mlp(*nets.encoder.sizes).to(device)
        self.critics = [mlp(*nets.critics.sizes).to(device) for _ in range(2)]
        self.targets = [mlp(*nets.critics.sizes).to(device) for _ in range(2)]
        named: list[tuple[nn.Sequential, str, int | None]] = [
            (self.actor, "actor", None),
            (self.encoder, "encoder", None),
        ]
        named += [(net, "critics", i) for nets in (self.critics, self.targets) for i, net in enumerate(nets)]
        for net, name, member in named:
            linears = [layer for layer in net if isinstance(layer, nn.Linear)]
            for i, layer in enumerate(linears):
                w, b = pearl.params[f"{name}.w{i}"], pearl.params[f"{name}.b{i}"]
                layer.weight.data = (w if member is None else w[member]).T.clone()
                layer.bias.data = (b if member is None else b[member]).clone()
        lr = pearl.config.lr
        critic_parameters = [p for net in (*self.critics, self.encoder) for p in net.parameters()]
        self.critic_optimiser = torch.optim.Adam(critic_parameters, lr=lr)
        self.actor_optimiser = torch.optim.Adam(self.actor.parameters(), lr=lr)

    def sample(self, observations: Tensor, z: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = self.actor(torch.cat([observations, z], dim=-1)).chunk(2, dim=-1)
        normal = torch.distributions.Normal(mean, log_std.clamp(*LOG_STD_RANGE).exp())
        u = mean + normal.scale * noise
        log_slope = 2 * (torch.log(torch.tensor(2.0)) - u - nn.functional.softplus(-2 * u))
        return torch.tanh(u), (normal.log_prob(u) - log_slope).sum(-1)

    def step(self, meta_batch: MetaBatch) -> None:
        c, batch, (context,), noise = self.config, meta_batch.transitions, meta_batch.contexts, meta_batch.noise
        mu, raw = self.encoder(context).chunk(2, dim=-1)
        precision = 1 / (nn.functional.softplus(raw) + MIN_VAR)
        var = 1 / (1 + precision.sum(1))
        mean = var * (mu * precision).sum(1)
        z = mean[:, None] + var.sqrt()[:, None] * noise[..., 2 * ACTIONS :]
        next_action, next_log_prob = self.sample(batch.next_observations, z, noise[..., :ACTIONS])
        next_inputs = torch.cat([batch.next_observations, next_action, z], dim=-1)
        next_q = torch.min(self.targets[0](next_inputs), self.targets[1](next_inputs))[..., 0]
        soft = next_q - c.temperature * next_log_prob
        y = (c.reward_scale * batch.rewards + c.gamma * (1 - batch.terminated) * soft).detach()
        inputs = torch.cat([batch.observations, batch.actions, z], dim=-1)
        loss = sum(((critic(inputs)[..., 0] - y) ** 2).mean() for critic in self.critics)
        kl = 0.5 * (var + mean**2 - 1 - var.log()).sum(-1).mean()
        self.critic_optimiser.zero_grad()
        (loss + c.kl_weight * kl).backward()
        z = z.detach()
        action, log_prob = self.sample(batch.observations, z, noise[..., ACTIONS : 2 * ACTIONS])
        inputs = torch.cat([batch.observations, action, z], dim=-1)
        q = torch.min(self.critics[0](inputs), self.critics[1](inputs))[..., 0]
        actor_parameters = list(self.actor.parameters())
        gradients = torch.autograd.grad((c.temperature * log_prob - q).mean(), actor_parameters)
        for parameter, gradient in zip(actor_parameters, gradients, strict=True):
            parameter.grad = gradient
        self.critic_optimiser.step()
        self.actor_optimiser.step()
        with torch.no_grad():
            for critic, target in zip(self.critics, self.targets, strict=True):
                for new, old in zip(critic.parameters(), target.parameters(), strict=True):
                    old.lerp_(new, c.target_rate)


def make_data(K: int, device: torch.device) -> MetaBatch:
    g = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(K, *shape, generator=g).to(device)

    transitions = Transitions(
        normal(B, OBS), normal(B, ACTIONS).tanh(), normal(B), normal(B, OBS), torch.zeros(K, B, device=device)
    )
    return MetaBatch(transitions, (normal(C, OBS + ACTIONS + 1),), normal(B, 2 * ACTIONS + LATENT))


def assert_same_gradients(pearl: PEARL, plain: Plain) -> None:
    """After one step of both: what they differentiate is the same."""
    for name, net in (("actor", plain.actor), ("encoder", plain.encoder), ("critics", plain.critics[0])):
        for i, layer in enumerate(layer for layer in net if isinstance(layer, nn.Linear)):
            ours, expected = pearl.params[f"{name}.w{i}"].grad, layer.weight.grad
            assert ours is not None
            assert expected is not None
            ours = ours[0] if ours.ndim == 3 else ours
            error = float((ours.T - expected).norm() / expected.norm())
            assert error < 1e-3, f"{name}.w{i}: the two gradients differ by {error:.0e}"


def measure(device: torch.device, num_tasks: int, repeats: int) -> dict[str, object]:
    """The plain update, ours, and ours in bfloat16 where it can gain."""

    def learner(autocast: bool) -> PEARL:
        return PEARL(PEARLConfig(name="pearl", autocast=autocast, num_train_tasks=1), Spaces(OBS, ACTIONS), device, 0)

    batch, full = make_data(num_tasks, device), learner(autocast=False)
    plain = Plain(full)
    full.step(batch)
    plain.step(batch)
    assert_same_gradients(full, plain)
    functions: list[Callable[[], object]] = [lambda: plain.step(batch), lambda: full.step(batch)]
    if can_gain := device.type == "cuda" or bfloat16_pays():
        half = learner(autocast=True)
        functions.append(lambda: half.step(batch))
    plain_times, full_times, *half_times = ms_in_turn(functions, repeats, device)
    result: dict[str, object] = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "tasks": num_tasks,
        "plain_ms": round(statistics.median(plain_times), 1),
        "float32_ms": round(statistics.median(full_times), 1),
        "bfloat16_ms": None,
        "speedup_float32": round(paired_ratio(plain_times, full_times), 3),
        "speedup_bfloat16": None,
    }
    if not can_gain:
        reason = (
            "not measured: this processor has neither AMX nor AMD's AVX512-BF16; bfloat16 products are slower on it"
        )
        return {**result, "speedup_bfloat16_reason": reason}
    result["bfloat16_ms"] = round(statistics.median(half_times[0]), 1)
    result["speedup_bfloat16"] = round(paired_ratio(plain_times, half_times[0]), 3)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--tasks", type=int, default=16)
    arguments = parser.parse_args()
    with reported() as result:
        result |= measure(torch.device(arguments.device), arguments.tasks, arguments.repeats)


if __name__ == "__main__":
    main()
