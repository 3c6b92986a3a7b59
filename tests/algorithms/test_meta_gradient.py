"""The meta-gradient against central finite differences in float64."""

from __future__ import annotations

import pytest
import torch
from meta_problem import finite_difference_gradient, learner, rounds


def largest_error(options: dict, inner_steps: int, discrete: bool = False) -> float:
    maml = learner(discrete=discrete, inner_steps=inner_steps, **options)
    data = rounds(maml, inner_steps + 1)
    exact, _ = maml.meta_gradient(data)
    numeric = finite_difference_gradient(maml, data)
    return max(float((exact[name] - numeric[name]).abs().max()) for name in numeric)


@pytest.mark.parametrize("inner_steps", [1, 3])
@pytest.mark.parametrize("inner_objective", ["likelihood_ratio", "dice", "plain"])
@pytest.mark.parametrize("variant", ["maml", "meta_sgd", "anil"])
@pytest.mark.parametrize("outer", ["ppo", "pg"])
def test_exact_meta_gradient_equals_finite_differences(variant, inner_objective, inner_steps, outer):
    options = {"variant": variant, "inner_objective": inner_objective, "outer": outer, "inner_kl_coef": 0.1}
    assert largest_error(options, inner_steps) < 1e-7


def test_meta_gradient_with_e_maml_term_equals_finite_differences():
    assert largest_error({"exploration_coef": 0.5}, inner_steps=2) < 1e-7


def test_meta_gradient_of_a_discrete_policy_equals_finite_differences():
    assert largest_error({"inner_objective": "dice"}, inner_steps=2, discrete=True) < 1e-7


@pytest.mark.parametrize("inner_steps", [1, 3])
def test_first_order_gradient_is_visibly_different(inner_steps):
    maml = learner(variant="fomaml", inner_steps=inner_steps, outer="pg")
    data = rounds(maml, inner_steps + 1)
    first_order, _ = maml.meta_gradient(data)
    numeric = finite_difference_gradient(maml, data)
    assert max(float((first_order[n] - numeric[n]).abs().max()) for n in numeric) > 1e-2


@pytest.mark.parametrize("variant", ["maml", "fomaml", "anil"])
def test_zero_inner_rate_gives_the_plain_policy_gradient(variant):
    maml = learner(variant=variant, outer="pg")
    maml.config = maml.config.model_copy(update={"inner_lr": 0.0})
    data = rounds(maml, 2)
    meta, _ = maml.meta_gradient(data)
    theta = {name: value.clone().requires_grad_() for name, value in maml._weights.items()}
    query = data[-1]
    expanded = {name: value.expand(len(query.mask), *value.shape) for name, value in theta.items()}
    ratio = torch.exp(query.log_prob(maml.net.distribution(expanded, query.observations)) - query.old_log_prob)
    per_task = -(ratio * query.advantages * query.mask).sum((1, 2)) / query.mask.sum((1, 2))
    policy_gradient = torch.autograd.grad(per_task.mean(), list(theta.values()))
    for name, expected in zip(theta, policy_gradient, strict=True):
        torch.testing.assert_close(meta[name], expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("chunk_tasks", [1, 2])
def test_tasks_in_one_product_equal_a_loop_over_tasks(chunk_tasks):
    whole, looped = learner(inner_steps=2), learner(inner_steps=2, chunk_tasks=chunk_tasks)
    data = rounds(whole, 3)
    batched, loop = whole.meta_gradient(data)[0], looped.meta_gradient(data)[0]
    for name in batched:
        torch.testing.assert_close(batched[name], loop[name], atol=1e-12, rtol=0)


def test_inner_and_outer_learning_rates_are_not_mixed_up():
    slow, fast = learner(outer_lr=1e-3), learner(outer_lr=1e-1)
    data = rounds(slow, 2)
    for name, gradient in slow.meta_gradient(data)[0].items():
        assert torch.equal(gradient, fast.meta_gradient(data)[0][name])
    assert fast._optimiser.param_groups[0]["lr"] == 1e-1
