"""The structured Fisher product through adaptation against the exact Hessian of the KL, and the TRPO step."""

from __future__ import annotations

import pytest
import torch
from meta_problem import K, learner, rounds

from metarl.algorithms.maml.learner import Chunk
from metarl.algorithms.tensors import RoundTensors
from metarl.ops.trust_region import flatten, unflatten


def on_policy(maml, data):
    """The same rounds, whose query behaviour policy is exactly the adapted policy."""
    credit = torch.zeros(K, dtype=torch.float64)
    query = data[-1]
    adapted = maml._adapt(data[:-1], credit, second_order=False).adapted
    with torch.no_grad():
        behaviour = maml.net.distribution(adapted, query.observations)
        old = behaviour.log_prob(query.actions).view_as(query.mask)
    fields = (query.observations, query.actions, query.advantages, query.mask)
    return [*data[:-1], RoundTensors(*fields, behaviour, old, query.returns)]


@pytest.mark.parametrize(
    ("variant", "inner_steps"), [("maml", 1), ("maml", 3), ("meta_sgd", 2), ("anil", 1), ("fomaml", 1)]
)
@pytest.mark.parametrize("discrete", [False, True])
def test_fisher_product_equals_the_second_difference_of_the_kl(variant, inner_steps, discrete):
    maml = learner(discrete, variant=variant, inner_steps=inner_steps, outer="trpo")
    data = on_policy(maml, rounds(maml, inner_steps + 1))
    *_, product = maml._trust_region_graph(Chunk(data, torch.zeros(K, dtype=torch.float64)))
    theta = dict(maml._weights)
    vector = flatten(theta)
    v = torch.randn(vector.numel(), generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def kl(step: torch.Tensor) -> float:
        move = unflatten(step, theta)
        maml._weights = {name: value + move[name] for name, value in theta.items()}
        adapted = maml._adapt(data[:-1], torch.zeros(K, dtype=torch.float64), second_order=False).adapted
        with torch.no_grad():
            distance = data[-1].kl_from_behaviour(maml.net.distribution(adapted, data[-1].observations)).sum()
        maml._weights = theta
        return float(distance)

    h = 1e-4
    curvature = (kl(h * v) - 2 * kl(0 * v) + kl(-h * v)) / h**2
    structured = float(v @ product(v))
    if variant == "fomaml":  # J is taken as the identity there: no claim of exactness
        assert abs(structured - curvature) > 1e-3 * abs(curvature)
    else:
        assert abs(structured - curvature) < 1e-5 * abs(curvature)


def test_trpo_step_lowers_the_loss_within_the_trust_region():
    maml = learner(outer="trpo", max_kl=0.01)
    data = on_policy(maml, rounds(maml, 2))
    before = {name: value.clone() for name, value in maml._weights.items()}
    metrics = maml._trpo_step(data)
    assert metrics["kl"] <= 0.01
    assert metrics["outer_loss"] < float(maml_loss(maml, before, data))
    assert any(not torch.equal(before[name], maml._weights[name]) for name in before)


def maml_loss(maml, weights, data):
    adapted_by = maml._weights
    maml._weights = weights
    adapted = maml._adapt(data[:-1], torch.zeros(K, dtype=torch.float64), second_order=False).adapted
    with torch.no_grad():
        loss = maml._outer_loss(data[-1], maml.net.distribution(adapted, data[-1].observations)).mean()
    maml._weights = adapted_by
    return loss
