"""Densities and divergences against closed forms and torch.distributions."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Independent, Normal, kl_divergence

from metarl.ops.distributions import Categorical, Gaussian, project_log_std_, squashed_sample


def gaussians() -> tuple[Gaussian, Gaussian]:
    g = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)  # noqa: E731
    return Gaussian(draw(2, 5, 3), draw(2, 1, 3)), Gaussian(draw(2, 5, 3), draw(2, 1, 3))


def test_log_prob_is_summed_over_action_dimensions_not_averaged():
    # two dimensions, each log N(0; 0, 1) = -1/2 log 2 pi = -0.918938...: the sum is -1.837877
    gaussian = Gaussian(torch.zeros(1, 2), torch.zeros(1, 2))
    assert math.isclose(float(gaussian.log_prob(torch.zeros(1, 2))), -math.log(2 * math.pi), rel_tol=1e-6)


def test_gaussian_agrees_with_torch_distributions():
    p, q = gaussians()
    theirs = [Independent(Normal(d.mean, d.log_std.exp()), 1) for d in (p, q)]
    action = torch.randn(2, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(p.log_prob(action), theirs[0].log_prob(action))
    torch.testing.assert_close(p.kl(q), kl_divergence(*theirs))
    torch.testing.assert_close(p.entropy().expand(2, 5), theirs[0].entropy())


def test_categorical_agrees_with_torch_distributions():
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 3, generator=g, dtype=torch.float64)
    p, q = Categorical(logits[0]), Categorical(logits[1])
    theirs = [TorchCategorical(logits=x) for x in logits]
    action = torch.tensor([0, 2, 1, 1])
    torch.testing.assert_close(p.log_prob(action), theirs[0].log_prob(action))
    torch.testing.assert_close(p.kl(q), kl_divergence(*theirs))
    torch.testing.assert_close(p.entropy(), theirs[0].entropy())


@pytest.mark.parametrize("kind", ["gaussian", "categorical"])
def test_fisher_product_is_the_hessian_of_the_kl_at_equality(kind):
    g = torch.Generator().manual_seed(2)
    weight = torch.rand(2, 5, generator=g, dtype=torch.float64)
    p: Any = (
        gaussians()[0] if kind == "gaussian" else Categorical(torch.randn(2, 5, 3, generator=g, dtype=torch.float64))
    )
    tangent = type(p)(*(torch.randn(x.shape, generator=g, dtype=torch.float64) for x in p))
    running = type(p)(*(x.clone().requires_grad_() for x in p))
    kl = (weight * p.kl(running)).sum()
    gradients = torch.autograd.grad(kl, list(running), create_graph=True)
    expected = torch.autograd.grad(gradients, list(running), list(tangent))
    for product, hessian in zip(p.fisher_product(tangent, weight), expected, strict=True):
        torch.testing.assert_close(product, hessian)


@pytest.mark.parametrize("min_std", [0.05, 0.2, 0.3])
def test_projection_raises_a_log_std_to_the_floor_and_leaves_larger_ones(min_std):
    params = {"log_std": torch.tensor([-9.0, math.log(0.9)]), "w0": torch.tensor([-9.0])}
    project_log_std_(params, min_std)
    torch.testing.assert_close(params["log_std"].exp(), torch.tensor([min_std, 0.9]))
    assert params["w0"].item() == -9


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("min_std", [0.05, 0.2, 0.3])
def test_a_projected_log_std_has_a_gradient_through_the_floor_of_the_forward_pass(min_std, dtype):
    """`clamp_min` has derivative 1 at its bound, if the bound is rounded alike on both sides."""
    params = {"log_std": torch.full((2,), -9.0, dtype=dtype)}
    project_log_std_(params, min_std)
    log_std = params["log_std"].requires_grad_()
    log_std.clamp_min(math.log(min_std)).sum().backward()
    assert log_std.grad is not None
    assert log_std.grad.tolist() == [1.0, 1.0]


def test_projecting_parameters_without_a_log_std_changes_nothing():
    params = {"w0": torch.tensor([-9.0])}
    project_log_std_(params, 0.2)
    assert params["w0"].item() == -9


def test_a_squashed_sample_has_the_density_of_a_transformed_normal():
    g = torch.Generator().manual_seed(0)
    mean, log_std, noise = (torch.randn(5, 3, generator=g, dtype=torch.float64) for _ in range(3))
    action, log_prob = squashed_sample(mean, log_std, noise)
    normal = torch.distributions.Normal(mean, log_std.exp())
    squashed = torch.distributions.TransformedDistribution(normal, torch.distributions.TanhTransform(cache_size=1))
    torch.testing.assert_close(action, torch.tanh(mean + log_std.exp() * noise))
    torch.testing.assert_close(log_prob, squashed.log_prob(action).sum(-1))


def test_a_squashed_sample_far_out_keeps_a_finite_density_and_gradient():
    mean = torch.full((1, 1), 50.0, requires_grad=True)
    action, log_prob = squashed_sample(mean, torch.zeros(1, 1), torch.zeros(1, 1))
    (log_prob.sum() + action.sum()).backward()
    assert torch.isfinite(log_prob).all()
    assert mean.grad is not None
    assert torch.isfinite(mean.grad).all()
