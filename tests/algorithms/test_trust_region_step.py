"""The structured Fisher product through adaptation against the exact Hessian of the KL, and the TRPO step."""

from __future__ import annotations

import pytest
import torch

from metarl.algorithms.maml.config import TRPO
from metarl.algorithms.maml.trpo import local_model, trpo_step
from metarl.ops.trust_region import flatten, unflatten
from tests.algorithms.meta_problem import in_single_precision, meta_loss_and_kl, on_policy, problem, rounds


@pytest.mark.parametrize(
    ("variant", "inner_steps"), [("maml", 1), ("maml", 3), ("meta_sgd", 2), ("anil", 1), ("fomaml", 1)]
)
@pytest.mark.parametrize("discrete", [False, True])
def test_fisher_product_equals_the_second_difference_of_the_kl(variant, inner_steps, discrete):
    p = problem(discrete, variant=variant, inner_steps=inner_steps, outer="trpo")
    data = on_policy(p, rounds(p, inner_steps + 1))
    (chunk,) = p.objective.chunks(data)
    vector = flatten(p.weights)
    v = torch.randn(vector.numel(), generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def kl(step: torch.Tensor) -> float:
        move = unflatten(step, p.weights)
        return meta_loss_and_kl(p.with_weights({n: value + move[n] for n, value in p.weights.items()}), data)[1]

    h = 1e-4
    curvature = (kl(h * v) - 2 * kl(0 * v) + kl(-h * v)) / h**2
    structured = float(v @ local_model(p.objective, p.weights, chunk).curvature(v).mean(0))
    if variant == "fomaml":  # J is taken as the identity there: no claim of exactness
        assert abs(structured - curvature) > 1e-3 * abs(curvature)
    else:
        assert abs(structured - curvature) < 1e-5 * abs(curvature)


@pytest.mark.parametrize("exploration_coef", [0.0, 0.5])
def test_trpo_step_lowers_the_loss_within_the_trust_region(exploration_coef):
    p = problem(outer="trpo", exploration_coef=exploration_coef)
    data = on_policy(p, rounds(p, 2))
    weights, metrics = trpo_step(p.objective, TRPO(max_kl=0.01), p.weights, data)
    loss, kl = meta_loss_and_kl(p.with_weights(weights), data)
    assert metrics["outer_loss"] == pytest.approx(loss, abs=1e-12)
    assert metrics["kl"] == pytest.approx(kl, abs=1e-12)
    assert metrics["kl"] <= 0.01
    assert metrics["outer_loss"] < meta_loss_and_kl(p, data)[0]
    assert any(not torch.equal(p.weights[name], weights[name]) for name in weights)


def step_of(weights: dict[str, torch.Tensor], moved: dict[str, torch.Tensor]) -> torch.Tensor:
    return flatten({name: moved[name].double() - value.double() for name, value in weights.items()})


@pytest.mark.parametrize("chunk_tasks", [1, 2])
def test_a_trpo_step_in_single_precision_is_the_one_in_double_precision_however_tasks_are_divided(chunk_tasks):
    p, divided = problem(outer="trpo"), problem(outer="trpo", chunk_tasks=chunk_tasks)
    data = on_policy(p, rounds(p, 2))
    exact = step_of(p.weights, trpo_step(p.objective, TRPO(), p.weights, data)[0])
    weights = {name: value.float() for name, value in p.weights.items()}
    moved, _ = trpo_step(divided.objective, TRPO(), weights, [in_single_precision(round_) for round_ in data])
    assert all(value.dtype == torch.float32 for value in moved.values())
    assert float((step_of(weights, moved) - exact).norm()) < 0.01 * float(exact.norm())
