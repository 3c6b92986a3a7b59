"""The meta-objective: the outer loss after adaptation, its terms, and its gradient. Functions of the weights alone.

    L(theta) = mean over tasks of  L_out(theta_R; query) + eta sum_i KL_i + c L_emaml

Letters: K task, N stream, T time, B = N T samples, O observation, A action; theta, alpha as in the papers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.algorithms.maml.config import PPO, MAMLConfig
from metarl.algorithms.maml.policy import RATE, rates_of
from metarl.algorithms.tensors import RoundTensors
from metarl.kernels.memory import FittingChunks
from metarl.kernels.parallel import parallel_map, sum_in_order
from metarl.nets.mlp_policy import MLPPolicy
from metarl.ops.distributions import Distribution
from metarl.ops.functional_sgd import Adaptation, Params, adapt
from metarl.ops.surrogates import INNER_OBJECTIVES, clipped_ratio, exploration_credit, likelihood_ratio

KL, LOG_RATIO = "kl", "log_ratio"  # what the meta-loss reads of the support rounds


@dataclass(frozen=True)
class Chunk:
    """Tasks that are differentiated together: their rounds, and E-MAML's credit."""

    supports: list[RoundTensors]
    query: RoundTensors
    credit: Float[Tensor, " K"]


@dataclass(frozen=True)
class MetaObjective:
    """What the family minimises. `weights` are theta, and the learned rates where `variant` is meta_sgd.

    `config.inner_lr` is a number here; see `MAMLConfig.for_spaces`.
    """

    config: MAMLConfig
    net: MLPPolicy
    device: torch.device
    fitting: FittingChunks = field(default_factory=FittingChunks, compare=False)

    # --- the loss ---

    def adapt(self, weights: Params, supports: Sequence[RoundTensors], second_order: bool = True) -> Adaptation:
        """One inner step per support round, with its graph; every task starts from theta."""
        rates = rates_of(self.config, self.net, weights)
        num_tasks = len(supports[0].mask)
        theta = {name: weights[name].expand(num_tasks, *weights[name].shape) for name in rates}
        losses = [partial(self._support_loss, data) for data in supports]
        return adapt(theta, losses, rates, second_order and self.config.is_second_order, self.net.step_above_floor)

    def _support_loss(self, data: RoundTensors, params: Params) -> tuple[Tensor, Params]:
        """The loss adapted on, summed over tasks, and the terms [K] that `support_terms` reads."""
        distribution = self.net.distribution(params, data.observations)
        terms, outer = {}, self.config.outer
        if isinstance(outer, PPO) and outer.inner_kl_coef > 0:
            terms[KL] = data.kl_from_behaviour(distribution)
        log_prob = data.log_prob(distribution)
        if self.config.exploration_coef > 0:
            terms[LOG_RATIO] = ((log_prob - data.old_log_prob) * data.mask).sum((1, 2))
        inner = INNER_OBJECTIVES[self.config.inner_objective]
        return inner(log_prob, data.old_log_prob, data.advantages, data.mask).sum(), terms

    def outer_loss(self, query: RoundTensors, distribution: Distribution) -> Float[Tensor, " K"]:
        """The surrogate on the query round."""
        arguments = (query.log_prob(distribution), query.old_log_prob, query.advantages, query.mask)
        outer = self.config.outer
        return clipped_ratio(*arguments, outer.clip) if isinstance(outer, PPO) else likelihood_ratio(*arguments)

    def support_terms(self, terms: Params, chunk: Chunk) -> Float[Tensor, " K"]:
        """eta sum_i KL_i + c L_emaml."""
        outer, c = self.config.outer, self.config.exploration_coef
        total = torch.zeros_like(chunk.credit)
        if KL in terms:
            assert isinstance(outer, PPO)
            total = total + outer.inner_kl_coef * terms[KL]
        if LOG_RATIO in terms:
            num_steps = chunk.query.mask.sum((1, 2)) / chunk.query.mask.shape[1]
            clip = outer.clip if isinstance(outer, PPO) else None
            total = total + c * exploration_credit(terms[LOG_RATIO], chunk.credit, num_steps, clip)
        return total

    # --- its gradient ---

    def gradient(self, weights: Params, rounds: Sequence[RoundTensors]) -> tuple[Params, dict[str, Tensor]]:
        """d/d weights of the meta-loss, and the outer loss and KL(behaviour || adapted policy) on the query round, as
        tensors: the host does not wait for them."""
        direction = self._reptile_direction if self.config.outer.name == "reptile" else self._meta_gradient
        parts = self.fitting(
            lambda size: parallel_map(partial(direction, weights), self.chunks(rounds, size), self.device),
            self.chunk_size(rounds),
        )
        gradients, losses, kls = zip(*parts, strict=True)
        num_tasks = len(rounds[0].mask)
        total = {name: sum_in_order([g[name] for g in gradients]) / num_tasks for name in weights}
        return total, {"outer_loss": mean_over_tasks(losses), "kl": mean_over_tasks(kls)}

    def _meta_gradient(self, weights: Params, chunk: Chunk) -> tuple[Params, Tensor, Tensor]:
        """The meta-loss's gradient, summed over a chunk's tasks, and per task the outer loss and the query KL."""
        query, adaptation = chunk.query, self.adapt(weights, chunk.supports)
        distribution = self.net.distribution(adaptation.adapted, query.observations)
        loss = self.outer_loss(query, distribution)
        meta_loss = loss.sum() + self.support_terms(adaptation.terms, chunk).sum()
        gradients = self.by_weight(*adaptation.meta_gradient(meta_loss))
        return (
            {n: g.sum(0) for n, g in gradients.items()},
            loss.detach(),
            query.kl_from_behaviour(distribution).detach(),
        )

    def _reptile_direction(self, weights: Params, chunk: Chunk) -> tuple[Params, Tensor, Tensor]:
        """The same with (theta - theta_adapted) / alpha for the gradient: a step on every round, the query too."""
        query, adaptation = chunk.query, self.adapt(weights, [*chunk.supports, chunk.query])
        start, end = adaptation.steps[0].params, adaptation.adapted
        scale = max(self.config.alpha, 1e-12)
        direction = {name: ((start[name] - end[name]) / scale).detach().sum(0) for name in end}
        distribution = self.net.distribution(end, query.observations)
        inner = INNER_OBJECTIVES[self.config.inner_objective]
        loss = inner(query.log_prob(distribution), query.old_log_prob, query.advantages, query.mask)
        return direction, loss.detach(), query.kl_from_behaviour(distribution).detach()

    def by_weight(self, d_theta: Params, d_rates: Params) -> Params:
        """Derivatives under the names of the weights."""
        learned = d_rates if self.config.variant == "meta_sgd" else {}
        return {**d_theta, **{RATE + name: value for name, value in learned.items()}}

    # --- tasks ---

    def inner_kl(self, weights: Params, rounds: Sequence[RoundTensors]) -> Tensor:
        """How far adaptation moved the policy: KL(pi_theta || behaviour on the query round), mean over tasks."""
        return mean_over_tasks(parallel_map(partial(self._inner_kl, weights), self.chunks(rounds), self.device))

    @torch.no_grad()
    def _inner_kl(self, weights: Params, chunk: Chunk) -> Float[Tensor, " K"]:
        query = chunk.query
        theta = {n: v.expand(len(query.mask), *v.shape) for n, v in weights.items() if not n.startswith(RATE)}
        return query.kl_to_behaviour(self.net.distribution(theta, query.observations))

    def chunk_size(self, rounds: Sequence[RoundTensors]) -> int:
        """How many tasks are differentiated together: as configured, or as many as the device has room for."""
        observations = rounds[0].observations
        num_samples = observations.shape[1]
        return self.config.chunk_tasks or self.net.tasks_that_fit(num_samples, self.device, observations.itemsize)

    def chunks(self, rounds: Sequence[RoundTensors], size: int | None = None) -> list[Chunk]:
        """Groups of `size` tasks (None: of `chunk_size`). E-MAML's credit is the query return, standardised over all
        tasks."""
        num_tasks, returns = len(rounds[0].mask), rounds[-1].returns
        credit = (returns - returns.mean()) / (returns.std(correction=0) + 1e-8)
        size = size or self.chunk_size(rounds)
        groups = [slice(start, min(start + size, num_tasks)) for start in range(0, num_tasks, size)]
        return [Chunk([r[tasks] for r in rounds[:-1]], rounds[-1][tasks], credit[tasks]) for tasks in groups]


def mean_over_tasks(parts: Sequence[Tensor]) -> Tensor:
    """The mean over the leading axis of all parts, float64: the same however tasks are divided into chunks."""
    tasks = torch.cat(tuple(parts)).double()
    return tasks.sum(0) / len(tasks)
