"""PEARL as graphs: acting under a latent, and the posterior given one more episode.

    act      observation, first, posterior, latent      ->   action, latent       z is drawn at an episode's first step
    adapt    an episode, what was read before           ->   what has been read, posterior

Letters: T steps, O observation, A action, Z latent, C context features, E hidden units.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from metarl.algorithms.graphs import ADAPTS, Graph, PolicyGraphs, Port, Rounds, episode_ports, noise_port, state_ports
from metarl.algorithms.pearl.policy import LOG_STD_RANGE, PEARLPolicy
from metarl.errors import ExportError
from metarl.kernels.relu_mlp import ReluMLP
from metarl.nets.context_encoder import MIN_VAR, PermutationInvariantEncoder, RecurrentEncoder


def pearl_graphs(policy: PEARLPolicy, weights: Mapping[str, np.ndarray], rounds: Rounds) -> PolicyGraphs:
    """The graphs of a policy with these weights."""
    if rounds.episodes != 1:
        raise ExportError(f"a round of {rounds.episodes} episodes: PEARL adapts to one at a time")
    Z, obs_dim = policy.latent_dim, policy.actor.sizes[0] - policy.latent_dim
    action_dim = policy.actor.sizes[-1] // 2
    prior = {"mean": np.zeros((1, Z), np.float32), "var": np.ones((1, Z), np.float32)}
    acted = {"latent": np.zeros((1, Z), np.float32)}
    adapt_module = _Adapt(policy, weights)
    memory = adapt_module.initial()
    noises = (Port("noise.latent", (1, Z), draw="normal", draw_at="first"), noise_port((1, action_dim), False))
    act = Graph(
        _Act(policy, weights),
        (
            Port("observation", (1, obs_dim)),
            Port("first", (1, 1)),
            *noises,
            *state_ports({**prior, **acted}, "state"),
        ),
        (Port("action", (1, action_dim)), *state_ports(acted, "next")),
    )
    ports = episode_ports(rounds, obs_dim, action_dim, discrete=False)
    data = [
        "observations",
        "actions",
        "rewards",
        "lengths",
        *(["last_observations"] if policy.next_observation else []),
    ]
    inputs = (ADAPTS, *(ports[name] for name in data), *state_ports({**prior, **memory}, "state"))
    adapt = Graph(adapt_module, inputs, state_ports({**memory, **prior}, "next"))
    return PolicyGraphs(act, {**prior, **acted, **memory}, adapt)


class _MLP(torch.nn.Module):
    """A ReluMLP of one member."""

    def __init__(self, net: ReluMLP, weights: Mapping[str, np.ndarray]):
        super().__init__()
        self.num_layers = len(net.sizes) - 1
        for i in range(self.num_layers):
            for kind in "wb":
                self.register_buffer(f"{kind}{i}", torch.tensor(weights[f"{net.name}.{kind}{i}"]))

    def forward(self, x: Tensor) -> Tensor:
        for i in range(self.num_layers):
            x = x @ getattr(self, f"w{i}") + getattr(self, f"b{i}")
            x = torch.relu(x) if i < self.num_layers - 1 else x
        return x


class _Act(torch.nn.Module):
    def __init__(self, policy: PEARLPolicy, weights: Mapping[str, np.ndarray]):
        super().__init__()
        self.actor = _MLP(policy.actor, weights)

    def forward(
        self,
        observation: Tensor,
        first: Tensor,
        noise_latent: Tensor,
        noise_action: Tensor,
        mean: Tensor,
        var: Tensor,
        latent: Tensor,
    ) -> tuple[Tensor, Tensor]:
        z = torch.where(first > 0, mean + var.sqrt() * noise_latent, latent)
        action, log_std = self.actor(torch.cat((observation, z), 1)).chunk(2, 1)
        return torch.tanh(action + log_std.clamp(*LOG_STD_RANGE).exp() * noise_action), z


class _Adapt(torch.nn.Module):
    """PEARLPolicy.end_round on one episode, which is read in any case, and believed where `adapts`."""

    embed_w: Tensor
    embed_b: Tensor

    def __init__(self, policy: PEARLPolicy, weights: Mapping[str, np.ndarray]):
        super().__init__()
        self.policy = policy
        encoder = policy.encoder
        if not isinstance(encoder, PermutationInvariantEncoder | RecurrentEncoder):
            raise ExportError(f"an encoder {type(encoder).__name__} has no graph")
        self.is_recurrent = isinstance(encoder, RecurrentEncoder)
        if isinstance(encoder, RecurrentEncoder):
            name = encoder.name
            self.embed = _MLP(ReluMLP(f"{name}.head", (encoder.hidden_dim, 2 * encoder.latent_dim)), weights)
            self.register_buffer("embed_w", torch.tensor(weights[f"{name}.embed.w"]))
            self.register_buffer("embed_b", torch.tensor(weights[f"{name}.embed.b"]))
            self.core = torch.nn.GRU(encoder.hidden_dim, encoder.hidden_dim)
            with torch.no_grad():
                for kind in ("w_ih", "w_hh", "b_ih", "b_hh"):
                    full = {"w": "weight", "b": "bias"}[kind[0]] + kind[1:] + "_l0"
                    getattr(self.core, full).copy_(torch.tensor(weights[f"{name}.core.{kind}"]))
            self.hidden_dim = encoder.hidden_dim
        else:
            self.embed = _MLP(ReluMLP(encoder.name, encoder.sizes), weights)

    def initial(self) -> dict[str, np.ndarray]:
        """What nothing read is remembered by."""
        Z = self.policy.latent_dim
        read = {"number": np.zeros((1, 1), np.float32)}
        if self.is_recurrent:
            return {"hidden": np.zeros((1, self.hidden_dim), np.float32), **read}
        return {"precision": np.zeros((1, Z), np.float32), "weighted_mean": np.zeros((1, Z), np.float32), **read}

    def forward(
        self, adapts: Tensor, observations: Tensor, actions: Tensor, rewards: Tensor, lengths: Tensor, *rest: Tensor
    ) -> tuple[Tensor, ...]:
        parts = [observations, actions, rewards[..., None]]
        if self.policy.next_observation:
            last, *rest = rest  # type: ignore[assignment]
            shifted = torch.cat((observations[:, 1:], last[:, None]), 1)
            at_end = torch.arange(observations.shape[1])[None, :, None] == lengths[:, None, None] - 1
            parts.append(torch.where(at_end, last[:, None], shifted))
        context = torch.cat(parts, -1)
        before, rest = rest[:2], rest[2:]
        mask = (torch.arange(rewards.shape[1])[None] < lengths[:, None]).float()
        if self.is_recurrent:
            *memory, mean, var = self._read_in_order(context, lengths, *rest)
            return (*memory, *_chosen(adapts, (mean, var), before))
        mu, var = self._gaussian(context)
        precision = (mask[..., None] / var).double()  # other runtimes add one by one
        sums = (precision.sum(1).float(), (mu * precision).sum(1).float(), mask.sum(1, keepdim=True))
        memory = [former + found for former, found in zip(rest, sums, strict=True)]
        return (*memory, *_chosen(adapts, self._posterior(*memory), before))

    def _read_in_order(self, context: Tensor, lengths: Tensor, hidden: Tensor, number: Tensor) -> tuple[Tensor, ...]:
        encoded = torch.relu(context @ self.embed_w.mT + self.embed_b)
        outputs, _ = self.core(encoded.transpose(0, 1), hidden[None])
        hidden = outputs.transpose(0, 1).gather(1, (lengths - 1)[:, None, None].expand(-1, 1, self.hidden_dim))[:, 0]
        mu, var = self._gaussian(hidden)
        number = number + lengths[:, None].float()
        return hidden, number, *self._posterior(1 / var, mu / var, torch.ones_like(number))

    def _gaussian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mu, raw = self.embed(x).chunk(2, -1)
        return mu, torch.nn.functional.softplus(raw) + MIN_VAR

    def _posterior(self, precision: Tensor, weighted_mean: Tensor, number: Tensor) -> tuple[Tensor, Tensor]:
        scale = (self.policy.context_size / number.clamp_min(1)).clamp_max(1)
        var = 1 / (1 + scale * precision)
        return var * scale * weighted_mean, var


def _chosen(first: Tensor, one: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """`one` where `first`, else `other`."""
    return tuple(torch.where(first, a, b) for a, b in zip(one, other, strict=True))
