"""A small meta-problem in float64 with fixed data, for comparing meta-gradients with finite differences."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from metarl.algorithms.maml.config import MAMLConfig
from metarl.algorithms.maml.learner import MAML
from metarl.algorithms.maml.objective import MetaObjective
from metarl.algorithms.maml.trpo import loss_and_kl
from metarl.algorithms.tensors import RoundTensors
from metarl.ops.distributions import Categorical, Gaussian
from metarl.ops.functional_sgd import Params
from metarl.rollout.spaces import Spaces

K, N, T = 3, 4, 5
NUM_OBS, NUM_ACTIONS = 3, 2


@dataclass(frozen=True)
class Problem:
    """A meta-objective and the weights it is looked at."""

    objective: MetaObjective
    weights: Params

    def with_weights(self, weights: Params) -> Problem:
        return replace(self, weights=weights)


def problem(discrete: bool = False, outer: str | dict[str, Any] = "ppo", **options: Any) -> Problem:
    """The objective of a MAML learner in float64 on a 3-observation, 2-action space, at its initial weights."""
    outer = {"name": outer} if isinstance(outer, str) else outer
    settings = {"name": "maml", "hidden": (5,), "inner_lr": 0.3, "init_std": 0.7, "outer": outer, **options}
    maml = MAML(MAMLConfig(**settings), Spaces(NUM_OBS, NUM_ACTIONS, discrete), torch.device("cpu"), seed=0)
    weights = {name: torch.from_numpy(value).double() for name, value in maml.weights().items()}
    return Problem(maml.objective, weights)


def rounds(p: Problem, num_rounds: int, distance: float = 0.1) -> list[RoundTensors]:
    """Random episodes of unequal length whose behaviour policy lies near the problem's weights."""
    g = torch.Generator().manual_seed(1)
    theta = {n: v.expand(K, *v.shape) for n, v in p.weights.items() if not n.startswith("rate.")}
    result = []
    for _ in range(num_rounds):
        observations = torch.randn(K, N * T, NUM_OBS, generator=g, dtype=torch.float64)
        near = {n: v + distance * torch.randn(v.shape, generator=g, dtype=torch.float64) for n, v in theta.items()}
        mask = (torch.arange(T) < torch.randint(2, T + 1, (K, N, 1), generator=g)).double()
        behaviour = p.objective.net.distribution(near, observations)
        if isinstance(behaviour, Categorical):
            actions = torch.randint(NUM_ACTIONS, (K, N * T), generator=g)
        else:
            assert isinstance(behaviour, Gaussian)
            noise = torch.randn(K, N * T, NUM_ACTIONS, generator=g, dtype=torch.float64)
            actions = behaviour.mean + behaviour.log_std.exp() * noise
        advantages = torch.randn(K, N, T, generator=g, dtype=torch.float64) * mask
        old_log_prob = behaviour.log_prob(actions).view(K, N, T)
        returns = torch.randn(K, generator=g, dtype=torch.float64)
        result.append(RoundTensors(observations, actions, advantages, mask, behaviour, old_log_prob, returns))
    return result


def meta_loss_and_kl(p: Problem, data: list[RoundTensors]) -> tuple[float, float]:
    """The meta-loss and the query KL as plain values, means over tasks: adapt, judge, add the support terms."""
    (chunk,) = p.objective.chunks(data)
    loss, kl = loss_and_kl(p.objective, p.weights, chunk)
    return float(loss.mean()), float(kl.mean())


def finite_difference_gradient(p: Problem, data: list[RoundTensors], step: float = 1e-5) -> Params:
    """Central differences of the meta-loss in every weight. No derivative code is used but the inner step's own."""

    def loss(name: str, i: int, by: float) -> float:
        moved = p.weights[name].clone()
        moved.view(-1)[i] += by
        return meta_loss_and_kl(p.with_weights({**p.weights, name: moved}), data)[0]

    gradient = {}
    for name, value in p.weights.items():
        flat = [(loss(name, i, step) - loss(name, i, -step)) / (2 * step) for i in range(value.numel())]
        gradient[name] = torch.tensor(flat, dtype=value.dtype).view_as(value)
    return gradient


def on_policy(p: Problem, data: list[RoundTensors]) -> list[RoundTensors]:
    """The same rounds, whose query behaviour policy is exactly the adapted policy."""
    query = data[-1]
    adapted = p.objective.adapt(p.weights, data[:-1], second_order=False).adapted
    with torch.no_grad():
        behaviour = p.objective.net.distribution(adapted, query.observations)
        old: Tensor = query.log_prob(behaviour)
    return [*data[:-1], replace(query, behaviour=behaviour, old_log_prob=old)]


def in_single_precision(data: RoundTensors) -> RoundTensors:
    """The same round in float32."""

    def single(value: Tensor) -> Tensor:
        return value.float() if value.is_floating_point() else value

    arrays = {f.name: single(getattr(data, f.name)) for f in fields(data) if f.name != "behaviour"}
    return RoundTensors(**arrays, behaviour=type(data.behaviour)(*map(single, data.behaviour)))
