"""A small meta-problem in float64 with fixed data, for comparing meta-gradients with finite differences."""

from __future__ import annotations

from typing import Any

import torch

from metarl.algorithms.maml.learner import MAML, Config
from metarl.algorithms.tensors import RoundTensors
from metarl.ops.distributions import Categorical, Gaussian
from metarl.rollout.policy import Spaces

K, N, T = 3, 4, 5
NUM_OBS, NUM_ACTIONS = 3, 2


def learner(discrete: bool = False, **options: Any) -> MAML:
    """A MAML learner in float64 on a 3-observation, 2-action space."""
    config = Config(hidden=(5,), inner_lr=0.3, init_std=0.7, **options)
    maml = MAML(config, Spaces(NUM_OBS, NUM_ACTIONS, discrete), torch.device("cpu"), seed=0)
    maml._weights = {name: value.double() for name, value in maml._weights.items()}
    return maml


def rounds(maml: MAML, num_rounds: int, distance: float = 0.1) -> list[RoundTensors]:
    """Random episodes of unequal length whose behaviour policy lies near the learner's."""
    g = torch.Generator().manual_seed(1)
    theta = {n: v.expand(K, *v.shape) for n, v in maml._weights.items() if not n.startswith("rate.")}
    result = []
    for _ in range(num_rounds):
        observations = torch.randn(K, N * T, NUM_OBS, generator=g, dtype=torch.float64)
        near = {n: v + distance * torch.randn(v.shape, generator=g, dtype=torch.float64) for n, v in theta.items()}
        mask = (torch.arange(T) < torch.randint(2, T + 1, (K, N, 1), generator=g)).double()
        behaviour = maml.net.distribution(near, observations)
        if isinstance(behaviour, Categorical):
            actions = torch.randint(NUM_ACTIONS, (K, N * T), generator=g)
        else:
            assert isinstance(behaviour, Gaussian)
            noise = torch.randn(K, N * T, NUM_ACTIONS, generator=g, dtype=torch.float64)
            actions = behaviour.mean + behaviour.log_std.exp() * noise
        advantages = torch.randn(K, N, T, generator=g, dtype=torch.float64) * mask
        old_log_prob = behaviour.log_prob(actions).view(K, N, T)  # type: ignore[arg-type]
        returns = torch.randn(K, generator=g, dtype=torch.float64)
        result.append(RoundTensors(observations, actions, advantages, mask, behaviour, old_log_prob, returns))
    return result


def meta_loss(maml: MAML, data: list[RoundTensors]) -> torch.Tensor:
    """The meta-loss as a plain value: adapt, judge, add the support terms. No derivative code is used."""
    returns = data[-1].returns
    credit = (returns - returns.mean()) / (returns.std(correction=0) + 1e-8)
    adaptation = maml._adapt(data[:-1], credit, second_order=False)
    with torch.no_grad():
        distribution = maml.net.distribution(adaptation.adapted, data[-1].observations)
        loss = maml._outer_loss(data[-1], distribution).sum() + sum(step.extra for step in adaptation.steps)
    return loss.detach() / K


def finite_difference_gradient(maml: MAML, data: list[RoundTensors], step: float = 1e-5) -> dict[str, torch.Tensor]:
    """Central differences of `meta_loss` in every weight."""
    gradient = {}
    for name, value in maml._weights.items():
        flat = torch.zeros(value.numel(), dtype=value.dtype)
        for i in range(value.numel()):
            original = value.view(-1)[i].item()
            losses = []
            for sign in (1, -1):
                value.view(-1)[i] = original + sign * step
                losses.append(meta_loss(maml, data))
            value.view(-1)[i] = original
            flat[i] = (losses[0] - losses[1]) / (2 * step)
        gradient[name] = flat.view_as(value)
    return gradient
