"""The natural-gradient step: Fisher products, conjugate gradient, line search. Source: Schulman et al. 2015."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.ops.distributions import Distribution
from metarl.ops.functional_sgd import Adaptation, Params, gradient

Vector = Float[Tensor, " P"]


def flatten(tensors: Mapping[str, Tensor]) -> Vector:
    """All values as one vector, in the mapping's order."""
    return torch.cat([value.reshape(-1) for value in tensors.values()])


def unflatten(vector: Vector, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `flatten`, with the names, order and shapes of `like`."""
    parts = torch.split(vector, [value.numel() for value in like.values()])
    return {name: part.view_as(value) for (name, value), part in zip(like.items(), parts, strict=True)}


def conjugate_gradient(
    product: Callable[[Vector], Vector], b: Vector, iterations: int, tolerance: float = 1e-10
) -> Vector:
    """x with A x = b for a symmetric positive definite A given by its product; stops early at |r|^2 < tolerance."""
    x, r, p = torch.zeros_like(b), b.clone(), b.clone()
    rr = r @ r
    for _ in range(iterations):
        if rr < tolerance:
            break
        Ap = product(p)
        step = rr / (p @ Ap)
        x, r = x + step * p, r - step * Ap
        rr_next = r @ r
        p, rr = r + (rr_next / rr) * p, rr_next
    return x


def step_to_boundary(direction: Vector, product_of_direction: Vector, max_kl: float) -> Vector:
    """The longest step along `direction` whose quadratic model of the KL stays at `max_kl`: sqrt(2 kl / d'Ad) d."""
    curvature = (direction @ product_of_direction).clamp_min(1e-12)
    return torch.sqrt(2 * max_kl / curvature) * direction


def backtracking_line_search(
    evaluate: Callable[[Vector], tuple[float, float]],
    step: Vector,
    loss_before: float,
    max_kl: float,
    max_tries: int,
    backtrack: float,
) -> tuple[Vector, int]:
    """The first of step, backtrack * step, ... that lowers the loss within the trust region, and how many tries.

    `evaluate(step)` gives (loss, KL) at theta - step. The zero step where none is accepted.
    """
    for i in range(max_tries):
        candidate = step * backtrack**i
        loss, kl = evaluate(candidate)
        if loss < loss_before and kl <= max_kl:
            return candidate, i + 1
    return torch.zeros_like(step), max_tries


def fisher_product(
    adaptation: Adaptation,
    distribution: Distribution,
    along: Callable[[Params], Distribution],
    weight: Float[Tensor, "K B"],
    tangent: Params,
    rates_tangent: Params | None = None,
) -> tuple[Params, Params]:
    """J' F J v: Hessian of sum_b weight_b KL(behaviour || pi_adapted)_b in theta (and the rates), times a tangent.

    Exact where the adapted policy is the behaviour policy: the KL's gradient vanishes there, and with it every
    term but this product. It costs two Hessian products of the support loss instead of a double backward
    through the KL. `distribution` is the adapted policy's on the query data with its graph, which is kept, and
    `along` says how it moves along a direction in the adapted parameters.
    """
    moved = along(adaptation.push_forward(tangent, rates_tangent))
    cotangent = distribution.fisher_product(moved, weight)  # type: ignore[arg-type]
    product = sum((x * y.detach()).sum() for x, y in zip(distribution, cotangent, strict=True))
    w = gradient(product, adaptation.adapted, retain_graph=True)  # type: ignore[arg-type]
    return adaptation.pull_back(w, retain_graph=True)
