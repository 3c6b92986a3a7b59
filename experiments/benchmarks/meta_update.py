"""One exact ProMP-style meta-gradient against a plain loop over tasks, and one MAML-TRPO step.

40 tasks x (2000 support + 2000 query) samples, observations 17, actions 6, two hidden layers of 64. The loop is
what one writes first: per task, `torch.autograd.grad(create_graph=True)`, then a backward through the query loss.
Both are run in turn in this process and their gradients compared; the last line is one JSON object.

    python experiments/benchmarks/meta_update.py [--device cuda] [--repeats 7] [--tasks 40]
"""

from __future__ import annotations

import argparse
import math
import statistics

import torch
from _timing import ms_in_turn, paired_ratio, reported
from torch.nn.functional import linear

from metarl.algorithms.maml.config import PPO, TRPO, MAMLConfig
from metarl.algorithms.maml.learner import MAML
from metarl.algorithms.maml.objective import MetaObjective
from metarl.algorithms.maml.trpo import trpo_step
from metarl.algorithms.tensors import RoundTensors
from metarl.ops.distributions import Gaussian
from metarl.ops.functional_sgd import Params
from metarl.rollout.spaces import Spaces

NUM_OBS, NUM_ACTIONS = 17, 6
N, T = 20, 100


def make_data(objective: MetaObjective, theta: Params, K: int, device: torch.device) -> list[RoundTensors]:
    """A support round of the learner's own policy and a query round of the adapted one, on random observations."""
    g = torch.Generator().manual_seed(0)
    params = {n: v.expand(K, *v.shape) for n, v in theta.items()}
    rounds: list[RoundTensors] = []
    for _ in range(2):
        observations = torch.randn(K, N * T, NUM_OBS, generator=g).to(device)
        with torch.no_grad():
            behaviour = objective.net.distribution(params, observations)
        assert isinstance(behaviour, Gaussian)
        noise = torch.randn(K, N * T, NUM_ACTIONS, generator=g).to(device)
        actions = behaviour.mean + behaviour.log_std.exp() * noise
        advantages = torch.randn(K, N, T, generator=g).to(device)
        mask, returns = torch.ones(K, N, T, device=device), torch.zeros(K, device=device)
        old_log_prob = behaviour.log_prob(actions).view(K, N, T)
        rounds.append(RoundTensors(observations, actions, advantages, mask, behaviour, old_log_prob, returns))
        params = objective.adapt(theta, rounds, second_order=False).adapted
    return rounds


def loop_meta_gradient(
    config: MAMLConfig, theta: dict[str, torch.Tensor], rounds: list[RoundTensors]
) -> list[torch.Tensor]:
    """The same meta-gradient, task after task, by plain double backward."""
    support, query = rounds
    ppo = config.outer
    assert isinstance(ppo, PPO)
    params = {name: value.clone().requires_grad_() for name, value in theta.items()}
    total = [torch.zeros_like(value) for value in params.values()]

    def policy(p: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        h = torch.tanh(linear(x, p["w0"].T, p["b0"]))
        h = torch.tanh(linear(h, p["w1"].T, p["b1"]))
        return linear(h, p["w2"].T, p["b2"])

    def log_prob(mean: torch.Tensor, log_std: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        z = (action - mean) / log_std.exp()
        return (-0.5 * z**2 - log_std - 0.5 * math.log(2 * math.pi)).sum(-1)

    floor, K = math.log(config.min_std), len(support.actions)
    for k in range(K):
        mean, log_std = policy(params, support.observations[k]), params["log_std"].clamp_min(floor)
        ratio = torch.exp(log_prob(mean, log_std, support.actions[k]) - support.old_log_prob[k].flatten())
        inner = -(ratio * support.advantages[k].flatten()).mean()
        old = support.behaviour
        assert isinstance(old, Gaussian)
        old_log_std = old.log_std[k, 0]
        variance = torch.exp(2 * (old_log_std - log_std)) + ((old.mean[k] - mean) / log_std.exp()) ** 2
        kl = (log_std - old_log_std + 0.5 * (variance - 1)).sum(-1).mean()
        grads = torch.autograd.grad(inner, list(params.values()), create_graph=True)
        adapted = {n: p - config.alpha * g for (n, p), g in zip(params.items(), grads, strict=True)}
        mean, log_std = policy(adapted, query.observations[k]), adapted["log_std"].clamp_min(floor)
        ratio = torch.exp(log_prob(mean, log_std, query.actions[k]) - query.old_log_prob[k].flatten())
        advantages = query.advantages[k].flatten()
        clipped = ratio.clamp(1 - ppo.clip, 1 + ppo.clip)
        outer = -torch.minimum(ratio * advantages, clipped * advantages).mean() + ppo.inner_kl_coef * kl
        total = [t + g / K for t, g in zip(total, torch.autograd.grad(outer, list(params.values())), strict=True)]
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--trpo-repeats", type=int, default=2)
    parser.add_argument("--tasks", type=int, default=40)
    arguments = parser.parse_args()
    with reported() as result:
        device = torch.device(arguments.device)
        result |= measure(device, arguments.tasks, arguments.repeats, arguments.trpo_repeats)


def measure(device: torch.device, num_tasks: int, repeats: int, trpo_repeats: int) -> dict[str, object]:
    """The batched meta-gradient and the TRPO step against the loop."""
    spaces = Spaces(NUM_OBS, NUM_ACTIONS)
    maml = MAML(MAMLConfig(name="maml"), spaces, device, seed=0)
    objective, theta = maml.objective, {n: torch.from_numpy(v).to(device) for n, v in maml.weights().items()}
    rounds = make_data(objective, theta, num_tasks, device)

    exact, expected = objective.gradient(theta, rounds)[0], loop_meta_gradient(objective.config, theta, rounds)
    error = max(float((exact[n] - e).abs().max() / e.abs().max()) for n, e in zip(theta, expected, strict=True))
    assert error < 1e-3, f"the two meta-gradients differ by {error:.1e}"
    loop, batched = ms_in_turn(
        [lambda: loop_meta_gradient(objective.config, theta, rounds), lambda: objective.gradient(theta, rounds)],
        repeats,
        device,
    )
    trpo_learner = MAML(MAMLConfig(name="maml", outer=TRPO()), spaces, device, seed=0)

    def one_trpo_step() -> None:  # from the same parameters each time: they are the behaviour policy of the data
        trpo_step(trpo_learner.objective, TRPO(), theta, rounds)

    loop_again, trpo = ms_in_turn(
        [lambda: loop_meta_gradient(objective.config, theta, rounds), one_trpo_step], trpo_repeats, device
    )
    batched_ms, loop_ms, trpo_ms = (statistics.median(times) for times in (batched, loop, trpo))
    print(f"meta-gradient {batched_ms:.1f} ms, loop {loop_ms:.1f} ms, TRPO step {trpo_ms:.0f} ms, agree to {error:.0e}")
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "tasks": num_tasks,
        "meta_gradient_ms": round(batched_ms, 2),
        "loop_ms": round(loop_ms, 2),
        "speedup_vs_loop": round(paired_ratio(loop, batched), 3),
        "trpo_step_ms": round(trpo_ms, 1),
        "trpo_step_over_loop": round(paired_ratio(trpo, loop_again), 2),
    }


if __name__ == "__main__":
    main()
