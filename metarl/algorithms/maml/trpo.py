"""The trust-region outer step: conjugate gradient on the exact curvature through adaptation, then a line search.

Sources: Schulman et al. 2015 (TRPO); Finn et al. 2017, sec. 5.3. Letters: K task, B samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from metarl.algorithms.maml.config import TRPO
from metarl.algorithms.maml.objective import Chunk, MetaObjective
from metarl.algorithms.maml.policy import RATE
from metarl.algorithms.tensors import RoundTensors
from metarl.kernels.parallel import parallel_map, sum_in_order
from metarl.ops.functional_sgd import Params, gradient
from metarl.ops.trust_region import (
    backtracking_line_search,
    conjugate_gradient,
    fisher_product,
    flatten,
    step_to_boundary,
    unflatten,
)


def trpo_step(
    objective: MetaObjective, settings: TRPO, theta: Params, rounds: Sequence[RoundTensors]
) -> tuple[Params, dict[str, float]]:
    """theta - step along F^-1 g, F the exact Hessian of the query KL through adaptation; the step's metrics.

    Source: Schulman et al. 2015; Finn et al. 2017, sec. 5.3.
    """
    num_tasks, chunks, device = len(rounds[0].mask), objective.chunks(rounds), objective.device
    graphs = parallel_map(partial(_trust_region_graph, objective, theta), chunks, device)
    gradient = sum_in_order([g for g, _, _ in graphs]) / num_tasks
    loss_before = sum(loss for _, loss, _ in graphs) / num_tasks

    def product(v: Tensor) -> Tensor:
        parts = parallel_map(lambda graph: graph[2](v), graphs, device)
        return sum_in_order(parts) / num_tasks + settings.cg_damping * v

    direction = conjugate_gradient(product, gradient, settings.cg_iterations)
    step = step_to_boundary(direction, product(direction), settings.max_kl)
    graphs.clear()

    def moved(step: Tensor) -> Params:
        move = unflatten(step, theta)
        return {name: value - move[name] for name, value in theta.items()}

    def evaluate(step: Tensor) -> tuple[float, float]:
        losses, kls = zip(*parallel_map(partial(_judge, objective, moved(step)), chunks, device), strict=True)
        return sum(losses) / num_tasks, sum(kls) / num_tasks

    accepted, tries = backtracking_line_search(
        evaluate, step, loss_before, settings.max_kl, settings.line_search_steps, settings.line_search_backtrack
    )
    loss, kl = evaluate(accepted)
    metrics = {"outer_loss": loss, "kl": kl, "line_search_tries": float(tries), "step_norm": float(accepted.norm())}
    return moved(accepted), metrics


def _judge(objective: MetaObjective, weights: Params, chunk: Chunk) -> tuple[float, float]:
    """Meta-loss and KL of the weights after adapting anew, summed over a chunk's tasks."""
    query = chunk.rounds[-1]
    adaptation = objective.adapt(weights, chunk.rounds[:-1], chunk.credit, second_order=False)
    with torch.no_grad():
        distribution = objective.net.distribution(adaptation.adapted, query.observations)
        loss = objective.outer_loss(query, distribution).sum() + adaptation.extra
        return float(loss), float(query.kl_from_behaviour(distribution).sum())


def _trust_region_graph(
    objective: MetaObjective, weights: Params, chunk: Chunk
) -> tuple[Tensor, float, Callable[[Tensor], Tensor]]:
    """Of one chunk, summed over its tasks: the gradient, the loss, and v -> F v on graphs that are kept."""
    query, adaptation = chunk.rounds[-1], objective.adapt(weights, chunk.rounds[:-1], chunk.credit)
    distribution = objective.net.distribution(adaptation.adapted, query.observations)
    loss = objective.outer_loss(query, distribution).sum()
    w = gradient(loss, adaptation.adapted, retain_graph=True)
    total = float(loss.detach() + adaptation.extra)
    direction = flatten(objective.over_tasks(*adaptation.pull_back(w, retain_graph=True)))
    weight = (query.mask / query.mask.sum((1, 2), keepdim=True)).flatten(1)
    along = objective.net.linearised(adaptation.adapted, query.observations)

    def product(v: Tensor) -> Tensor:
        tangent = unflatten(v, weights)
        theta = {n: tangent[n].expand(len(query.mask), *tangent[n].shape) for n in adaptation.adapted}
        rates = {n: tangent[RATE + n] for n in theta} if objective.config.variant == "meta_sgd" else None
        products = fisher_product(adaptation, distribution, along, weight, theta, rates)
        return flatten(objective.over_tasks(*products))

    return direction, total, product
