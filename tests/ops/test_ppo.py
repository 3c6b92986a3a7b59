"""PPO's loss by hand, in parts, and where its gradient vanishes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from metarl.ops.distributions import Categorical, Distribution, Gaussian
from metarl.ops.ppo import PPOBatch, PPOCoefficients, PPOMetrics, bound_penalty, explained_variance, ppo_loss

T, B, A = 6, 4, 2
NOTHING = {"clip": 0.2, "value": 0.0, "entropy": 0.0, "bound": 0.0}


def coefficients(**changes: float) -> PPOCoefficients:
    return PPOCoefficients(**{**NOTHING, **changes})


def bernoulli(p: float) -> Categorical:
    """Action 1 with probability p, [1, 1, 2]."""
    return Categorical(torch.tensor([[[1 - p, p]]]).double().log())


def one_step(p_old: float, advantage: float, target: float = 0.0) -> PPOBatch:
    old, action = bernoulli(p_old), torch.ones(1, 1, dtype=torch.int64)
    number = torch.ones(1, 1).double()
    return PPOBatch(action, old, old.log_prob(action), advantage * number, target * number, number)


def loss_of(p: float, batch: PPOBatch, v: float = 0.0, **changes: float) -> tuple[float, PPOMetrics]:
    loss, metrics = ppo_loss(bernoulli(p), torch.full((1, 1), v).double(), batch, coefficients(**changes))
    return float(loss), metrics


@pytest.mark.parametrize(
    ("p", "advantage", "expected"),
    [
        (0.5, 2.0, -2.0),  # the ratio is 1
        (0.55, 2.0, -1.1 * 2),  # 1.1 lies within the clip
        (0.75, 2.0, -1.2 * 2),  # 1.5 is cut to 1.2
        (0.25, 2.0, -0.5 * 2),  # a good action became less likely: not clipped
        (0.25, -2.0, 0.8 * 2),  # 0.5 is cut to 0.8
        (0.75, -2.0, 1.5 * 2),  # a bad action became more likely: not clipped
    ],
)
def test_the_policys_loss_is_the_clipped_ratio(p, advantage, expected):
    loss, metrics = loss_of(p, one_step(0.5, advantage))
    assert loss == pytest.approx(expected)
    assert float(metrics.policy_loss) == pytest.approx(expected)


def test_the_critics_loss_the_entropy_and_the_divergence_by_hand():
    batch = one_step(0.5, 0.0, target=1.0)
    loss, metrics = loss_of(0.25, batch, 4.0, value=0.5, entropy=0.1)
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert loss == pytest.approx(0.5 * 0.5 * 9 - 0.1 * entropy)
    assert float(metrics.value_loss) == pytest.approx(9)
    assert float(metrics.entropy) == pytest.approx(entropy)
    assert float(metrics.kl) == pytest.approx(0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75))
    assert float(metrics.clip_fraction) == 1  # the ratio is 1/2


# --- whole sequences ---


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def sequences(mask: Tensor) -> tuple[PPOBatch, Tensor, Tensor, Tensor]:
    """A batch, and the policy's means, log-std and values."""
    behaviour = Gaussian(normal(T, B, A), normal(A, seed=1) / 10)
    actions = behaviour.mean + behaviour.log_std.exp() * normal(T, B, A, seed=2)
    batch = PPOBatch(actions, behaviour, behaviour.log_prob(actions), normal(T, B, seed=3), normal(T, B, seed=4), mask)
    mean, log_std = behaviour.mean + normal(T, B, A, seed=5) / 5, behaviour.log_std + normal(A, seed=6) / 10
    return batch, 2 * mean, log_std, normal(T, B, seed=7)


ALL = coefficients(value=0.5, entropy=0.1, bound=0.3)


def rows_of(batch: PPOBatch, rows: slice) -> PPOBatch:
    arrays = {name: value[:, rows] for name, value in batch._asdict().items() if name != "behaviour"}
    assert isinstance(batch.behaviour, Gaussian)
    return PPOBatch(behaviour=Gaussian(batch.behaviour.mean[:, rows], batch.behaviour.log_std), **arrays)


def ragged() -> Tensor:
    return (torch.arange(T)[:, None] < torch.tensor([6, 2, 4, 1])).double()


def test_padding_counts_for_nothing():
    mask = ragged()
    batch, mean, log_std, values = sequences(mask)
    spoilt = batch._replace(
        advantages=torch.where(mask > 0, batch.advantages, 1e3), targets=torch.where(mask > 0, batch.targets, 1e3)
    )
    results = [ppo_loss(Gaussian(mean, log_std), values, b, ALL) for b in (batch, spoilt)]
    assert results[0][0] == results[1][0]
    assert results[0][1] == results[1][1]


def test_chunks_given_the_minibatchs_steps_add_up_to_it_with_their_gradients():
    mask = ragged()
    batch, *outputs = sequences(mask)
    mean, log_std, values = (x.requires_grad_() for x in outputs)
    whole, metrics = ppo_loss(Gaussian(mean, log_std), values, batch, ALL)
    parts = [
        ppo_loss(Gaussian(mean[:, r], log_std), values[:, r], rows_of(batch, r), ALL, num_steps=mask.sum())
        for r in (slice(0, 1), slice(1, 4))
    ]
    torch.testing.assert_close(parts[0][0] + parts[1][0], whole)
    for name in PPOMetrics._fields:
        total = getattr(parts[0][1], name) + getattr(parts[1][1], name)
        torch.testing.assert_close(total, getattr(metrics, name), msg=name)
    together = torch.autograd.grad(whole, (mean, log_std, values), retain_graph=True)
    apart = torch.autograd.grad(parts[0][0] + parts[1][0], (mean, log_std, values))
    for a, b in zip(together, apart, strict=True):
        torch.testing.assert_close(a, b)


def test_the_gradient_equals_finite_differences():
    batch, mean, log_std, values = sequences(ragged())

    def loss(mean: Tensor, log_std: Tensor, values: Tensor) -> Tensor:
        return ppo_loss(Gaussian(mean, log_std), values, batch, ALL, torch.tensor([1.0, 0.5]).double())[0]

    assert torch.autograd.gradcheck(loss, tuple(x.requires_grad_() for x in (mean, log_std, values)))


def test_metrics_carry_no_gradient():
    batch, mean, log_std, values = sequences(torch.ones(T, B).double())
    _, metrics = ppo_loss(Gaussian(mean.requires_grad_(), log_std), values.requires_grad_(), batch, ALL)
    assert not any(metric.requires_grad for metric in metrics)


# --- the bound ---


def test_the_penalty_is_the_squared_excess_over_the_limit_of_each_dimension():
    mean = torch.tensor([[0.5, -3.0], [2.0, 1.0]])
    assert bound_penalty(mean).tolist() == [4.0, 1.0]
    assert bound_penalty(mean, torch.tensor([1.0, math.inf])).tolist() == [0.0, 1.0]


def penalty_gradient(mean: Tensor, limits: Tensor | None) -> Tensor:
    """Of the loss with nothing but the penalty in it."""
    behaviour: Distribution = Gaussian(mean.detach(), torch.zeros(A).double())
    zeros = torch.zeros(T, B).double()
    actions = mean.detach()
    batch = PPOBatch(actions, behaviour, behaviour.log_prob(actions), zeros, zeros, zeros + 1)
    loss, _ = ppo_loss(Gaussian(mean, torch.zeros(A).double()), zeros, batch, coefficients(bound=1.0), limits)
    (gradient,) = torch.autograd.grad(loss, mean)
    return gradient


@pytest.mark.parametrize(("size", "sign"), [(0.5, 0), (-0.5, 0), (3.0, 1), (-3.0, -1)])
def test_means_beyond_the_range_are_drawn_back_and_those_within_are_left_alone(size, sign):
    gradient = penalty_gradient(torch.full((T, B, A), size).double().requires_grad_(), None)
    assert (gradient.sign() == sign).all()


def test_a_dimension_without_a_limit_is_left_alone():
    mean = torch.full((T, B, A), 3.0).double().requires_grad_()
    gradient = penalty_gradient(mean, torch.tensor([math.inf, 1.0]).double())
    assert (gradient[..., 0] == 0).all()
    assert (gradient[..., 1] > 0).all()


# --- explained variance ---


@pytest.mark.parametrize("scale", [1.0, 1e-9, 1e6])
def test_explained_variance_by_hand_at_any_scale(scale):
    returns = scale * torch.tensor([1.0, 2, 3, 4])
    assert explained_variance(returns, returns + scale) == pytest.approx(1)
    assert explained_variance(returns, torch.zeros(4)) == pytest.approx(0)
    halves = scale * torch.tensor([1.0, 1, 3, 3])  # leaves 0, 1, 0, 1 of variance 1/4; the returns' is 5/4
    assert explained_variance(returns, halves) == pytest.approx(1 - 0.25 / 1.25, abs=1e-5)


@pytest.mark.parametrize("returns", [[5.0], [2.0, 2.0]])
def test_where_returns_do_not_vary_nothing_is_explained(returns: Any):
    assert explained_variance(torch.tensor(returns), torch.zeros(len(returns))) == 0
