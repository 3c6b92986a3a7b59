"""The trust-region outer step: conjugate gradient on the exact curvature through adaptation, then a line search.

    step     theta - s F^-1 g,   g the meta-gradient, F the Hessian of the query KL in theta (and the rates)
    s        such that the quadratic model of the KL is `max_kl`, then backtracked until the loss falls within it

Sources: Schulman et al. 2015 (TRPO); Finn et al. 2017, sec. 5.3. Letters: K task, B samples, P all weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.algorithms.maml.config import TRPO
from metarl.algorithms.maml.objective import Chunk, MetaObjective, mean_over_tasks
from metarl.algorithms.maml.policy import RATE
from metarl.algorithms.tensors import RoundTensors
from metarl.kernels.parallel import parallel_map
from metarl.ops.functional_sgd import Params
from metarl.ops.trust_region import (
    backtracking_line_search,
    conjugate_gradient,
    fisher_product,
    step_to_boundary,
    unflatten,
)


def trpo_step(
    objective: MetaObjective, settings: TRPO, theta: Params, rounds: Sequence[RoundTensors]
) -> tuple[Params, dict[str, float]]:
    """The weights after one step, and its metrics; `theta` itself where no candidate lowers the loss.

    Sums over tasks and conjugate gradient are in double precision: the curvature has eigenvalues down to `cg_damping`,
    whose inverse magnifies rounding. The products of each task stay in the weights' own precision, which is 2.6 times
    as fast on a CPU and moves the step by less than 1 %.
    """
    return objective.fitting(
        lambda size: _trpo_step(objective, settings, theta, objective.chunks(rounds, size)),
        objective.chunk_size(rounds),
    )


def _trpo_step(
    objective: MetaObjective, settings: TRPO, theta: Params, chunks: Sequence[Chunk]
) -> tuple[Params, dict[str, float]]:
    dtype, device = next(iter(theta.values())).dtype, objective.device
    models = parallel_map(partial(local_model, objective, theta), chunks, device)
    g, loss_before = mean_over_tasks([m.gradients for m in models]), mean_over_tasks([m.losses for m in models])

    def curvature(v: Tensor) -> Tensor:
        parts = parallel_map(lambda model: model.curvature(v.to(dtype)), models, device)
        return mean_over_tasks(parts) + settings.cg_damping * v

    direction = conjugate_gradient(curvature, g, settings.cg_iterations)
    step = step_to_boundary(direction, curvature(direction), settings.max_kl)
    models.clear()  # their graphs are large

    def moved(step: Tensor) -> Params:
        return {name: theta[name] - move for name, move in unflatten(step.to(dtype), theta).items()}

    def evaluate(step: Tensor) -> tuple[float, float]:
        parts = parallel_map(partial(loss_and_kl, objective, moved(step)), chunks, device)
        losses, kls = zip(*parts, strict=True)
        loss, kl = torch.stack((mean_over_tasks(losses), mean_over_tasks(kls))).tolist()  # one wait for the device
        return loss, kl

    accepted = backtracking_line_search(
        evaluate, step, float(loss_before), settings.max_kl, settings.line_search_steps, settings.line_search_backtrack
    )
    metrics = {"outer_loss": accepted.loss, "kl": accepted.kl, "line_search_tries": float(accepted.tries)}
    return moved(accepted.step), {**metrics, "step_norm": float(accepted.step.norm())}


def loss_and_kl(
    objective: MetaObjective, weights: Params, chunk: Chunk
) -> tuple[Float[Tensor, " K"], Float[Tensor, " K"]]:
    """The meta-loss and KL(behaviour || adapted policy) on the query round, after adapting anew."""
    adaptation = objective.adapt(weights, chunk.supports, second_order=False)
    with torch.no_grad():
        distribution = objective.net.distribution(adaptation.adapted, chunk.query.observations)
        loss = objective.outer_loss(chunk.query, distribution) + objective.support_terms(adaptation.terms, chunk)
        return loss, chunk.query.kl_from_behaviour(distribution)


@dataclass(frozen=True)
class LocalModel:
    """The meta-loss and the KL near the present weights, for the tasks of a chunk, on graphs that are kept."""

    losses: Float[Tensor, " K"]
    gradients: Float[Tensor, "K P"]
    curvature: Callable[[Float[Tensor, " P"]], Float[Tensor, "K P"]]


def local_model(objective: MetaObjective, weights: Params, chunk: Chunk) -> LocalModel:
    """Loss, gradient and the product v -> F v at `weights`."""
    query, adaptation = chunk.query, objective.adapt(weights, chunk.supports)
    distribution = objective.net.distribution(adaptation.adapted, query.observations)
    losses = objective.outer_loss(query, distribution) + objective.support_terms(adaptation.terms, chunk)
    gradients = adaptation.meta_gradient(losses.sum(), retain_graph=True)
    weight = (query.mask / query.mask.sum((1, 2), keepdim=True)).flatten(1)
    along = objective.net.linearised(adaptation.adapted, query.observations)

    def per_task(d_theta: Params, d_rates: Params) -> Tensor:
        by_weight = objective.by_weight(d_theta, d_rates)
        return torch.cat([by_weight[name].flatten(1) for name in weights], dim=1)

    def curvature(v: Tensor) -> Tensor:
        tangent = unflatten(v, weights)
        theta = {n: tangent[n].expand_as(value) for n, value in adaptation.adapted.items()}
        rates = {n: tangent[RATE + n] for n in theta} if objective.config.variant == "meta_sgd" else None
        return per_task(*fisher_product(adaptation, distribution, along, weight, theta, rates))

    return LocalModel(losses.detach(), per_task(*gradients), curvature)
