"""E-MAML's gradient against the exact one of a bandit whose pulls are all enumerated, in float64."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from metarl.algorithms.maml.config import MAMLConfig
from metarl.algorithms.maml.objective import Chunk, MetaObjective
from metarl.algorithms.tensors import RoundTensors
from metarl.nets.mlp_policy import MLPPolicy
from metarl.ops.distributions import Categorical
from metarl.ops.functional_sgd import Params

F64 = torch.float64
REWARD = torch.tensor([1.0, -0.5, 2.0], dtype=F64)  # of the three arms
ARMS, PULLS, ALPHA = 3, 3, 0.7  # support pulls are episodes of one step; the query is one pull
THETA, ELSEWHERE = torch.tensor([0.2, -0.3, 0.1], dtype=F64), torch.tensor([0.25, -0.25, 0.0], dtype=F64)
SUPPORTS = torch.tensor(list(itertools.product(range(ARMS), repeat=PULLS)))  # [27, PULLS], a task each


def objective(outer: dict[str, Any], **options: Any) -> MetaObjective:
    """No hidden layer and an observation of 0: the logits are the biases."""
    settings: dict[str, Any] = {"inner_objective": "plain", "inner_lr": ALPHA, "exploration_coef": 1.0, "hidden": ()}
    net = MLPPolicy(1, ARMS, True, (), init_std=0.3, min_std=0.1)
    return MetaObjective(
        MAMLConfig.model_validate({"name": "maml", "outer": outer, **settings, **options}), net, torch.device("cpu")
    )


def params(theta: Tensor) -> Params:
    return {"w0": torch.zeros(1, ARMS, dtype=F64), "b0": theta}


def adapted(theta: Tensor, pulls: Tensor) -> Tensor:
    """theta + alpha mean_n grad log pi(a_n) r_n, with grad log pi(a) = onehot(a) - pi; differentiable."""
    scores = torch.nn.functional.one_hot(pulls, ARMS) - torch.softmax(theta, -1)
    return theta + ALPHA * (scores * REWARD[pulls][:, None]).mean(0)


def probability(theta: Tensor, pulls: Tensor) -> Tensor:
    return torch.softmax(theta, -1)[pulls].prod()


def expected_return(theta: Tensor) -> Tensor:
    """sum over all support pulls of pi_theta(pulls) sum_a pi_theta'(a) r(a)."""
    terms = [probability(theta, s) * torch.softmax(adapted(theta, s), -1) @ REWARD for s in SUPPORTS]
    return torch.stack(terms).sum()


def a_round(pulls: Tensor, logits: Tensor) -> RoundTensors:
    """Pulls [K, N] of a policy with `logits` [K, A]; advantages are the rewards."""
    K, N = pulls.shape
    behaviour = Categorical(logits[:, None].expand(K, N, ARMS))
    old_log_prob, rewards = behaviour.log_prob(pulls)[..., None], REWARD[pulls][..., None]
    observations, mask = torch.zeros(K, N, 1, dtype=F64), torch.ones(K, N, 1, dtype=F64)
    return RoundTensors(observations, pulls, rewards, mask, behaviour, old_log_prob, rewards.mean((1, 2)))


def expected_gradient(objective: MetaObjective, theta: Tensor, collected_with: Tensor) -> Tensor:
    """E[gradient of the meta-loss] over all pulls of support (probabilities of `collected_with`) and query."""
    old = collected_with.expand(len(SUPPORTS), ARMS)
    old_adapted = torch.stack([adapted(collected_with, s) for s in SUPPORTS])
    weights = torch.stack([probability(collected_with, s) for s in SUPPORTS])
    total = torch.zeros(ARMS, dtype=F64)
    for arm in range(ARMS):
        query = a_round(torch.full((len(SUPPORTS), 1), arm), old_adapted)
        chunk = Chunk([a_round(SUPPORTS, old)], query, credit=query.returns)
        adaptation = objective.adapt(params(theta), chunk.supports)
        distribution = objective.net.distribution(adaptation.adapted, query.observations)
        loss = objective.outer_loss(query, distribution) + objective.support_terms(adaptation.terms, chunk)
        gradient, _ = adaptation.meta_gradient(loss.sum())
        total += ((weights * torch.softmax(old_adapted, -1)[:, arm])[:, None] * gradient["b0"]).sum(0)
    return total


@pytest.mark.parametrize("outer", ["pg", "trpo", "ppo"])
def test_the_expected_meta_gradient_is_that_of_the_expected_return_after_adaptation(outer):
    settings = {"name": outer, "inner_kl_coef": 0.0} if outer == "ppo" else {"name": outer}
    exact = torch.autograd.functional.jacobian(expected_return, THETA)
    torch.testing.assert_close(expected_gradient(objective(settings), THETA, THETA), -exact, atol=1e-10, rtol=0)


def test_without_the_term_the_support_pulls_get_no_credit():
    plain = MetaObjective(
        objective({"name": "pg"}).config.model_copy(update={"exploration_coef": 0.0}),
        objective({"name": "pg"}).net,
        torch.device("cpu"),
    )
    exact = torch.autograd.functional.jacobian(expected_return, THETA)
    assert float((expected_gradient(plain, THETA, THETA) + exact).abs().max()) > 1e-2


@pytest.mark.parametrize("outer", ["pg", "ppo"])
def test_in_later_outer_steps_the_term_is_still_exact(outer):
    """theta has moved away from what collected the pulls: d/dtheta of sum pi_theta(pulls) x the query return then."""
    settings = {"name": "ppo", "inner_kl_coef": 0.0, "clip": 0.9} if outer == "ppo" else {"name": "pg"}
    query_return = torch.stack([torch.softmax(adapted(THETA, s), -1) @ REWARD for s in SUPPORTS])

    def credited(theta: Tensor) -> Tensor:
        return torch.stack([probability(theta, s) for s in SUPPORTS]) @ query_return

    exact = torch.autograd.functional.jacobian(credited, ELSEWHERE)
    with_term, without = objective(settings), objective(settings)
    without = MetaObjective(
        without.config.model_copy(update={"exploration_coef": 0.0}), without.net, torch.device("cpu")
    )
    term = expected_gradient(with_term, ELSEWHERE, THETA) - expected_gradient(without, ELSEWHERE, THETA)
    torch.testing.assert_close(term, -exact, atol=1e-10, rtol=0)
