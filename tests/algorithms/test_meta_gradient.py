"""The meta-gradient against central finite differences in float64."""

from __future__ import annotations

import pytest
import torch

from metarl.ops.functional_sgd import Params
from tests.algorithms.meta_problem import finite_difference_gradient, problem, rounds


def meta_gradient(p, data) -> Params:
    return p.objective.gradient(p.weights, data)[0]


def largest_error(options: dict, inner_steps: int, discrete: bool = False) -> float:
    p = problem(discrete=discrete, inner_steps=inner_steps, **options)
    data = rounds(p, inner_steps + 1)
    exact, numeric = meta_gradient(p, data), finite_difference_gradient(p, data)
    return max(float((exact[name] - numeric[name]).abs().max()) for name in numeric)


@pytest.mark.parametrize("inner_steps", [1, 3])
@pytest.mark.parametrize("inner_objective", ["likelihood_ratio", "dice", "plain"])
@pytest.mark.parametrize("variant", ["maml", "meta_sgd", "anil"])
@pytest.mark.parametrize("outer", [{"name": "ppo", "inner_kl_coef": 0.1}, {"name": "pg"}], ids=["ppo", "pg"])
def test_exact_meta_gradient_equals_finite_differences(variant, inner_objective, inner_steps, outer):
    options = {"variant": variant, "inner_objective": inner_objective, "outer": outer}
    assert largest_error(options, inner_steps) < 1e-7


@pytest.mark.parametrize("inner_objective", ["likelihood_ratio", "plain"])
@pytest.mark.parametrize("outer", ["ppo", "pg", "trpo"])
def test_meta_gradient_with_e_maml_term_equals_finite_differences(outer, inner_objective):
    options = {"exploration_coef": 0.5, "outer": outer, "inner_objective": inner_objective}
    assert largest_error(options, inner_steps=2) < 1e-7


def test_meta_gradient_of_a_discrete_policy_equals_finite_differences():
    assert largest_error({"inner_objective": "dice"}, inner_steps=2, discrete=True) < 1e-7


@pytest.mark.parametrize("inner_steps", [1, 3])
def test_first_order_gradient_is_visibly_different(inner_steps):
    p = problem(variant="fomaml", inner_steps=inner_steps, outer="pg")
    data = rounds(p, inner_steps + 1)
    first_order, numeric = meta_gradient(p, data), finite_difference_gradient(p, data)
    assert max(float((first_order[n] - numeric[n]).abs().max()) for n in numeric) > 1e-2


@pytest.mark.parametrize("variant", ["maml", "fomaml", "anil"])
def test_zero_inner_rate_gives_the_plain_policy_gradient(variant):
    p = problem(variant=variant, outer="pg", inner_lr=0.0)
    data = rounds(p, 2)
    meta = meta_gradient(p, data)
    theta = {name: value.clone().requires_grad_() for name, value in p.weights.items()}
    query = data[-1]
    expanded = {name: value.expand(len(query.mask), *value.shape) for name, value in theta.items()}
    distribution = p.objective.net.distribution(expanded, query.observations)
    ratio = torch.exp(query.log_prob(distribution) - query.old_log_prob)
    per_task = -(ratio * query.advantages * query.mask).sum((1, 2)) / query.mask.sum((1, 2))
    policy_gradient = torch.autograd.grad(per_task.mean(), list(theta.values()))
    for name, expected in zip(theta, policy_gradient, strict=True):
        torch.testing.assert_close(meta[name], expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("chunk_tasks", [1, 2])
def test_tasks_in_one_product_equal_a_loop_over_tasks(chunk_tasks):
    whole, looped = problem(inner_steps=2), problem(inner_steps=2, chunk_tasks=chunk_tasks)
    data = rounds(whole, 3)
    batched, loop = meta_gradient(whole, data), meta_gradient(looped, data)
    for name in batched:
        torch.testing.assert_close(batched[name], loop[name], atol=1e-12, rtol=0)


def test_the_outer_learning_rate_has_no_part_in_the_meta_gradient():
    slow, fast = problem(outer={"name": "ppo", "lr": 1e-3}), problem(outer={"name": "ppo", "lr": 1e-1})
    data = rounds(slow, 2)
    for name, gradient in meta_gradient(slow, data).items():
        assert torch.equal(gradient, meta_gradient(fast, data)[name])
