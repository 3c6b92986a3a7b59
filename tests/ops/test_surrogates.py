"""Surrogates: worked values, and their second derivatives against the exact Hessian of an enumerable return."""

from __future__ import annotations

import itertools

import torch

from metarl.ops.surrogates import INNER_OBJECTIVES, clipped_ratio, exploration_credit, likelihood_ratio

F64 = torch.float64


def as_knt(*values: float) -> torch.Tensor:
    return torch.tensor([[list(values)]], dtype=F64)


def test_clipping_by_hand():
    # r = 2, A = 1: min(2, 1.3) = 1.3;  r = 2, A = -1: min(-2, -1.3) = -2;  r = .5, A = 1: .5;  mean -.0667, negated
    ratio = as_knt(2.0, 2.0, 0.5)
    loss = clipped_ratio(ratio.log(), torch.zeros_like(ratio), as_knt(1, -1, 1), torch.ones_like(ratio), 0.3)
    torch.testing.assert_close(loss, torch.tensor([(-1.3 + 2 - 0.5) / 3], dtype=F64))


def test_padding_is_left_out_of_the_mean():
    log_prob, old = as_knt(0.0, 5.0), as_knt(0.0, 0.0)
    loss = likelihood_ratio(log_prob, old, as_knt(3.0, 9.0), as_knt(1.0, 0.0))
    torch.testing.assert_close(loss, torch.tensor([-3.0], dtype=F64))


def test_every_inner_objective_has_the_policy_gradient_as_its_first_derivative():
    g = torch.Generator().manual_seed(0)
    advantages, mask = torch.randn(2, 3, 4, generator=g, dtype=F64), torch.ones(2, 3, 4, dtype=F64)
    log_prob = torch.randn(2, 3, 4, generator=g, dtype=F64, requires_grad=True)
    for objective in INNER_OBJECTIVES.values():
        (gradient,) = torch.autograd.grad(
            objective(log_prob, log_prob.detach(), advantages, mask).sum(), log_prob, retain_graph=False
        )
        torch.testing.assert_close(gradient, -advantages / 12)


def test_e_maml_credits_every_support_action_with_the_query_return():
    # 2 episodes of 2 steps, query episodes of 2 steps: d/d log pi of -rho c / 2 with rho = 1 is -c / 2 for each action
    log_prob = torch.zeros(2, 2, 2, dtype=F64, requires_grad=True)
    two = torch.full((2,), 2.0, dtype=F64)
    loss = exploration_credit(log_prob.sum((1, 2)), torch.tensor([1.0, -2.0], dtype=F64), two)
    (gradient,) = torch.autograd.grad(loss.sum(), log_prob)
    assert gradient[0].unique().tolist() == [-0.5]
    assert gradient[1].unique().tolist() == [1.0]


def test_e_maml_clips_the_ratio_of_the_whole_support_data():
    # rho 2, c 1: min(2, 1.3);  rho 2, c -1: min(-2, -1.3);  rho .5, c -1: min(-.5, -.7);  negated, over 10 steps
    log_ratio, credit = torch.tensor([2.0, 2.0, 0.5], dtype=F64).log(), torch.tensor([1.0, -1.0, -1.0], dtype=F64)
    loss = exploration_credit(log_ratio, credit, torch.full((3,), 10.0, dtype=F64), clip=0.3)
    torch.testing.assert_close(loss, torch.tensor([-0.13, 0.2, 0.07], dtype=F64))


def expected_hessian(objective: str) -> tuple[torch.Tensor, torch.Tensor]:
    """E_tau[Hessian of the surrogate] and the exact Hessian of -E[return] / T, over all trajectories of two binary
    actions, a ~ Bernoulli(sigmoid(theta_0)), b ~ Bernoulli(sigmoid(theta_1 + a)); the return depends on both."""
    theta = torch.tensor([0.3, -0.4], dtype=F64)
    reward = {(0, 0): 1.0, (0, 1): -2.0, (1, 0): 0.5, (1, 1): 3.0}

    def log_probs(t: torch.Tensor, a: int, b: int) -> torch.Tensor:
        logits = torch.stack((t[0], t[1] + a))
        signs = torch.tensor([2 * a - 1, 2 * b - 1], dtype=F64)
        return torch.nn.functional.logsigmoid(signs * logits)

    def negative_return(t: torch.Tensor) -> torch.Tensor:
        returns = [log_probs(t, a, b).sum().exp() * reward[a, b] for a, b in reward]
        return -torch.stack(returns).sum() / 2

    expectation = torch.zeros(2, 2, dtype=F64)
    for a, b in itertools.product((0, 1), repeat=2):
        old = log_probs(theta, a, b)
        advantages = torch.full((1, 1, 2), reward[a, b], dtype=F64)  # both actions earn the final reward

        def surrogate(t: torch.Tensor, a=a, b=b, old=old, advantages=advantages) -> torch.Tensor:
            new = log_probs(t, a, b)[None, None]
            return INNER_OBJECTIVES[objective](new, old[None, None], advantages, torch.ones(1, 1, 2, dtype=F64))[0]

        expectation = expectation + old.sum().exp() * torch.autograd.functional.hessian(surrogate, theta)
    return expectation, torch.autograd.functional.hessian(negative_return, theta)


def test_dice_gives_the_unbiased_hessian_of_the_return():
    estimate, exact = expected_hessian("dice")
    torch.testing.assert_close(estimate, exact)


def test_plain_reinforce_differentiated_twice_is_biased():
    estimate, exact = expected_hessian("plain")
    assert float((estimate - exact).abs().max()) > 0.1


def test_likelihood_ratio_drops_only_the_cross_terms_between_time_steps():
    estimate, exact = expected_hessian("likelihood_ratio")
    torch.testing.assert_close(estimate.diagonal(), exact.diagonal())
    assert float((estimate - exact)[0, 1].abs()) > 0.01
