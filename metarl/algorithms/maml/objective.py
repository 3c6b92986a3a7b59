"""The meta-objective: the outer loss after adaptation, its gradient, and its pieces. Functions of the weights alone.

    L(theta) = mean over tasks of  L_out(theta_R; query) + eta sum_i KL_i + c L_emaml

Letters: K task, N stream, T time, B = N T samples, O observation, A action; theta, alpha as in the papers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from metarl.algorithms.maml.config import PPO, MAMLConfig
from metarl.algorithms.maml.policy import RATE, rates_of
from metarl.algorithms.tensors import RoundTensors
from metarl.kernels.parallel import parallel_map, sum_in_order
from metarl.nets.mlp_policy import MLPPolicy
from metarl.ops.distributions import Distribution
from metarl.ops.functional_sgd import Adaptation, Params, adapt, gradient
from metarl.ops.surrogates import INNER_OBJECTIVES, clipped_ratio, exploration_credit, likelihood_ratio


@dataclass(frozen=True)
class Chunk:
    """Tasks that are differentiated together: their rounds, and E-MAML's credit [K]."""

    rounds: list[RoundTensors]
    credit: Tensor


@dataclass(frozen=True)
class MetaObjective:
    """What the family minimises. `weights` are theta, and the learned rates where `variant` is meta_sgd."""

    config: MAMLConfig
    net: MLPPolicy
    device: torch.device

    def gradient(self, weights: Params, rounds: Sequence[RoundTensors]) -> tuple[Params, dict[str, float]]:
        """d/d weights of the mean outer loss over tasks, and its parts; in chunks of tasks that fit the device."""
        parts = parallel_map(partial(self._chunk_gradient, weights), self.chunks(rounds), self.device)
        gradients, losses, kls = zip(*parts, strict=True)
        n = len(rounds[0].mask)
        total = {name: sum_in_order([g[name] for g in gradients]) / n for name in weights}
        return total, {"outer_loss": float(sum_in_order(losses)) / n, "kl": float(sum_in_order(kls)) / n}

    def _chunk_gradient(self, weights: Params, chunk: Chunk) -> tuple[Params, Tensor, Tensor]:
        """Gradient, outer loss and KL(behaviour || adapted policy) on the query round, summed over a chunk's tasks."""
        if self.config.outer.name == "reptile":
            return self._reptile_direction(weights, chunk)
        query, adaptation = chunk.rounds[-1], self.adapt(weights, chunk.rounds[:-1], chunk.credit)
        distribution = self.net.distribution(adaptation.adapted, query.observations)
        loss = self.outer_loss(query, distribution).sum()
        with torch.no_grad():
            kl = query.kl_from_behaviour(distribution).sum()
        w = gradient(loss, adaptation.adapted)
        return self.over_tasks(*adaptation.pull_back(w)), loss.detach(), kl

    def _reptile_direction(self, weights: Params, chunk: Chunk) -> tuple[Params, Tensor, Tensor]:
        """(theta - theta_adapted) / alpha after a step on every round, the query's too; summed over tasks."""
        adaptation = self.adapt(weights, chunk.rounds, chunk.credit)
        start, end = adaptation.steps[0].params, adaptation.adapted
        scale = max(self.config.inner_lr, 1e-12)
        direction = {name: ((start[name] - end[name]) / scale).detach().sum(0) for name in end}
        query = chunk.rounds[-1]
        distribution = self.net.distribution(end, query.observations)
        loss, kl = self._inner_loss(query, distribution).sum(), query.kl_from_behaviour(distribution).sum()
        return direction, loss.detach(), kl.detach()

    def adapt(
        self, weights: Params, supports: Sequence[RoundTensors], credit: Tensor, second_order: bool = True
    ) -> Adaptation:
        """One inner step per support round, with a graph; every task starts from theta."""
        rates = rates_of(self.config, self.net, weights)
        num_tasks = len(supports[0].mask)
        theta = {name: weights[name].expand(num_tasks, *weights[name].shape) for name in rates}
        losses = [partial(self._support_loss, data, credit) for data in supports]
        return adapt(theta, losses, rates, second_order and self.config.is_second_order)

    def _support_loss(self, data: RoundTensors, credit: Tensor, params: Params) -> tuple[Tensor, Tensor]:
        """The loss adapted on, and what the support data add to the meta-loss (inner KL, E-MAML), over tasks."""
        distribution = self.net.distribution(params, data.observations)
        extra, outer = data.mask.new_zeros(()), self.config.outer
        if isinstance(outer, PPO) and outer.inner_kl_coef > 0:
            extra = extra + outer.inner_kl_coef * data.kl_from_behaviour(distribution).sum()
        if self.config.exploration_coef > 0:
            term = exploration_credit(data.log_prob(distribution), data.mask, credit)
            extra = extra + self.config.exploration_coef * term.sum()
        return self._inner_loss(data, distribution).sum(), extra

    def _inner_loss(self, data: RoundTensors, distribution: Distribution) -> Tensor:
        objective = INNER_OBJECTIVES[self.config.inner_objective]
        return objective(data.log_prob(distribution), data.old_log_prob, data.advantages, data.mask)

    def outer_loss(self, query: RoundTensors, distribution: Distribution) -> Tensor:
        """The surrogate on the query round, per task [K]."""
        arguments = (query.log_prob(distribution), query.old_log_prob, query.advantages, query.mask)
        outer = self.config.outer
        return clipped_ratio(*arguments, outer.clip) if isinstance(outer, PPO) else likelihood_ratio(*arguments)

    def over_tasks(self, d_theta: Params, d_rates: Params) -> Params:
        """Sum over the task axis, under the names of the weights."""
        summed = {name: value.sum(0) for name, value in d_theta.items()}
        if self.config.variant == "meta_sgd":
            summed |= {RATE + name: value.sum(0) for name, value in d_rates.items()}
        return summed

    def chunks(self, rounds: Sequence[RoundTensors]) -> list[Chunk]:
        """Groups of tasks, each with its credit for E-MAML's term: query returns standardised over all tasks."""
        num_tasks, num_samples = rounds[0].observations.shape[:2]
        returns = rounds[-1].returns
        credit = (returns - returns.mean()) / (returns.std(correction=0) + 1e-8)
        size = self.config.chunk_tasks or self.net.tasks_that_fit(num_samples, self.device)
        groups = [slice(start, min(start + size, num_tasks)) for start in range(0, num_tasks, size)]
        return [Chunk([r[tasks] for r in rounds], credit[tasks]) for tasks in groups]
