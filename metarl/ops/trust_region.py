"""The natural-gradient step: Fisher products, conjugate gradient, line search. Source: Schulman et al. 2015."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

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
    """x with A x = b for a symmetric positive definite A given by its product. x stays once |r|^2 < tolerance.

    All iterations are made: to stop early, the host would have to wait for the device in each of them.
    """
    x, r, p = torch.zeros_like(b), b.clone(), b.clone()
    rr = r @ r
    for _ in range(iterations):
        is_left = rr >= tolerance
        Ap = product(p)
        step = torch.where(is_left, rr / (p @ Ap), 0.0)
        x, r = x + step * p, r - step * Ap
        rr_next = r @ r
        p, rr = r + torch.where(is_left, rr_next / rr, 0.0) * p, rr_next
    return x


def step_to_boundary(direction: Vector, product_of_direction: Vector, max_kl: float) -> Vector:
    """The longest step along `direction` whose quadratic model of the KL stays at `max_kl`: sqrt(2 kl / d'Ad) d."""
    curvature = (direction @ product_of_direction).clamp_min(1e-12)
    return torch.sqrt(2 * max_kl / curvature) * direction


@dataclass(frozen=True)
class Accepted:
    """What a line search ends with; the zero step where no candidate is accepted."""

    step: Vector
    loss: float
    kl: float
    tries: int


def backtracking_line_search(
    evaluate: Callable[[Vector], tuple[float, float]],
    step: Vector,
    loss_before: float,
    max_kl: float,
    max_tries: int,
    backtrack: float,
) -> Accepted:
    """The first of step, backtrack * step, ... that lowers the loss within the trust region.

    `evaluate(step)` gives (loss, KL) at theta - step. The host waits for the device once per candidate: which one comes
    next depends on the values.
    """
    for i in range(max_tries):
        candidate = step * backtrack**i
        loss, kl = evaluate(candidate)
        if loss < loss_before and kl <= max_kl:
            return Accepted(candidate, loss, kl, i + 1)
    stay = torch.zeros_like(step)
    return Accepted(stay, *evaluate(stay), max_tries)


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
