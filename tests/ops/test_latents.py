"""Beliefs over a latent, against closed forms."""

from __future__ import annotations

import math

import torch

from metarl.ops.latents import Evidence, contrastive_loss, gather_evidence, kl_from_standard_normal, posterior

NEVER_LIMITED = 10**9


def test_the_posterior_is_the_product_of_the_prior_and_the_factors():
    # N(0,1) N(z; 2, 1/2) N(z; 5, 1/3): precisions 1 + 2 + 3 = 6, mean (2*2 + 5*3) / 6 = 19/6
    evidence = gather_evidence(torch.tensor([[2.0], [5.0]]), torch.tensor([[1 / 2], [1 / 3]]))
    mean, var = posterior(evidence, NEVER_LIMITED)
    torch.testing.assert_close(mean, torch.tensor([19 / 6]))
    torch.testing.assert_close(var, torch.tensor([1 / 6]))


def test_the_product_agrees_with_the_densities_themselves():
    mu, var = torch.tensor([[0.5], [-1.0], [2.0]]).double(), torch.tensor([[0.3], [2.0], [0.7]]).double()
    z = torch.linspace(-3, 3, 50).double()
    log_product = -0.5 * z**2 - (0.5 * (z - mu) ** 2 / var).sum(0)
    mean, v = posterior(gather_evidence(mu, var), NEVER_LIMITED)
    difference = log_product + 0.5 * (z - mean) ** 2 / v
    torch.testing.assert_close(difference, difference[:1].expand(50))  # equal but for a constant


def test_no_evidence_is_the_prior():
    zeros = torch.zeros(4, 3)
    mean, var = posterior(Evidence(zeros, zeros, torch.zeros(4, 1)), 100)
    assert (mean == 0).all()
    assert (var == 1).all()


def test_the_order_of_the_context_does_not_matter():
    g = torch.Generator().manual_seed(0)
    mu, var = torch.randn(7, 3, generator=g).double(), torch.rand(7, 3, generator=g).double() + 0.1
    order = torch.randperm(7, generator=g)
    one, other = (posterior(gather_evidence(mu[o], var[o]), 5) for o in (torch.arange(7), order))
    torch.testing.assert_close(one, other)


def test_a_longer_context_than_in_training_is_no_sharper():
    def var_of(number: int) -> float:
        return float(posterior(gather_evidence(torch.ones(number, 1), torch.ones(number, 1)), 10)[1])

    assert math.isclose(var_of(5), 1 / 6, rel_tol=1e-6)
    assert math.isclose(var_of(10), 1 / 11, rel_tol=1e-6)
    assert math.isclose(var_of(1000), 1 / 11, rel_tol=1e-6)


def test_kl_is_zero_at_the_prior_and_hand_worked_elsewhere():
    assert float(kl_from_standard_normal(torch.zeros(3), torch.ones(3))) == 0
    # 1/2 (v + m^2 - 1 - log v) with m = 2, v = 1/4
    expected = 0.5 * (0.25 + 4 - 1 + math.log(4))
    torch.testing.assert_close(
        kl_from_standard_normal(torch.tensor([2.0]), torch.tensor([0.25])), torch.tensor(expected)
    )


def test_contexts_of_one_task_are_pulled_together_and_tasks_apart():
    one = torch.tensor([[0.0], [3.0]])
    near, far = torch.tensor([[0.1], [3.1]]), torch.tensor([[3.1], [0.1]])
    assert contrastive_loss(one, near, 1.0) < 0.01 < 1 < contrastive_loss(one, far, 1.0)
    # two tasks at distance d, equal contexts: log(1 + exp(-d^2 / temperature))
    expected = math.log(1 + math.exp(-9 / 2))
    torch.testing.assert_close(contrastive_loss(one, one, 2.0), torch.tensor(expected))
