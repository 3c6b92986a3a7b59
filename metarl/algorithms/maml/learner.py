"""The MAML family: policies that adapt by gradient steps on their own support episodes.

Papers: MAML (Finn et al. 2017), FOMAML (ibid., sec. 5.2), Reptile (Nichol et al. 2018), Meta-SGD (Li et al. 2017),
ANIL (Raghu et al. 2020), E-MAML (Stadie et al. 2018), ProMP (Rothfuss et al. 2019), with TRPO's trust region
(Schulman et al. 2015) or PPO's clipping (Schulman et al. 2017) outside.

    inner   theta_{i+1} = theta_i - alpha * grad L_in(theta_i; support_i)       L_in: ops.surrogates.INNER_OBJECTIVES
    outer   minimise    mean over tasks of  L_out(theta_R; query) + eta sum_i KL_i + c L_emaml

The actor adapts (`MAMLPolicy.end_round`); the learner repeats the same steps with a graph. Deviations, on purpose:
- ratios and KL use the behaviour distribution logged by the actor at every step, inner and outer (never recomputed);
- advantages are computed once, in the actor, against a linear baseline refit per task and round;
- ANIL also leaves the log-std alone: its adapted part is the last layer's weights and bias;
- actions are in [-1, 1] where those codes have [-10, 10], so `init_std` 0.3 is three times theirs, and `output_gain`
  0.1 makes initial means as small as theirs (without it the first updates undo each other); `min_std` is ours;
- Reptile's last inner step uses the query episodes, and its direction (theta - theta_adapted) / alpha goes to Adam.

Letters: K task, N stream, T time, B = N T samples, O observation, A action; theta, alpha as in the papers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from metarl.algorithms.optimiser import load_moments, moments_of
from metarl.algorithms.tensors import RoundTensors, to_tensor
from metarl.kernels.parallel import parallel_map, sum_in_order
from metarl.nets.mlp_policy import MLPPolicy
from metarl.ops import functional_sgd as sgd_ops
from metarl.ops.distributions import Distribution
from metarl.ops.functional_sgd import Adaptation, Params, adapt, sgd
from metarl.ops.returns import linear_baseline_advantages
from metarl.ops.surrogates import INNER_OBJECTIVES, clipped_ratio, exploration_credit, likelihood_ratio
from metarl.ops.trust_region import (
    backtracking_line_search,
    conjugate_gradient,
    fisher_product,
    flatten,
    step_to_boundary,
    unflatten,
)
from metarl.rollout.policy import Spaces
from metarl.rollout.types import Extras, Round, RoundPlan, Transition, Trial, TrialPlan, Weights
from metarl.tasks import Task, TaskDistribution

_RATE = "rate."


class Config(BaseModel):
    """Defaults are ProMP's on HalfCheetah and Ant, but for the action scale (see the deviations)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["maml"] = "maml"
    variant: Literal["maml", "fomaml", "reptile", "meta_sgd", "anil"] = "maml"
    inner_objective: Literal["likelihood_ratio", "dice", "plain"] = "likelihood_ratio"
    outer: Literal["ppo", "trpo", "pg"] = "ppo"
    tasks_per_iteration: int = Field(40, ge=1)
    num_streams: int = Field(20, ge=1, description="episodes per task and round")
    inner_steps: int = Field(1, ge=1)
    inner_lr: float = Field(0.1, ge=0)
    gamma: float = Field(0.99, gt=0, le=1)
    gae_lambda: float = Field(1.0, ge=0, le=1)
    bootstrap_truncated: bool = False
    exploration_coef: float = Field(0.0, ge=0, description="c of E-MAML's term")
    outer_lr: float = Field(1e-3, gt=0, description="Adam's; not used by trpo")
    outer_steps: int = Field(5, ge=1, description="meta-gradient steps per iteration (ppo)")
    clip: float = Field(0.3, gt=0, lt=1)
    inner_kl_coef: float = Field(5e-4, ge=0, description="eta (ppo)")
    max_kl: float = Field(0.01, gt=0, description="trpo")
    cg_iterations: int = Field(10, ge=1)
    cg_damping: float = Field(1e-5, ge=0)
    line_search_steps: int = Field(15, ge=1)
    line_search_backtrack: float = Field(0.8, gt=0, lt=1)
    hidden: tuple[int, ...] = (64, 64)
    init_std: float = Field(0.3, gt=0, description="of half the action range")
    min_std: float = Field(0.05, gt=0)
    output_gain: float = Field(0.1, gt=0, description="scale of the last layer's initial weights")
    chunk_tasks: int | None = Field(None, ge=1, description="tasks per product; null fits the device's memory")

    @model_validator(mode="after")
    def _check(self) -> Config:
        if self.variant == "reptile" and self.outer != "pg":
            raise ValueError("variant reptile has no outer objective of its own: set outer: pg")
        if self.init_std < self.min_std:
            raise ValueError(f"init_std ({self.init_std}) must not be below min_std ({self.min_std})")
        return self

    @property
    def is_second_order(self) -> bool:
        return self.variant not in ("fomaml", "reptile")


def rates_of(config: Config, net: MLPPolicy, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """alpha for every parameter: learned ones (Meta-SGD), zero for what ANIL leaves alone, else the scalar."""
    names = [name for name in weights if not name.startswith(_RATE)]
    if config.variant == "meta_sgd":
        return {name: weights[_RATE + name] for name in names}
    head = {f"w{net.num_layers - 1}", f"b{net.num_layers - 1}"}
    adapted = head if config.variant == "anil" else set(names)
    like = weights[names[0]]
    return {name: like.new_tensor(config.inner_lr if name in adapted else 0.0) for name in names}


# --- what actors run ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class MAMLState:
    """Each task's own parameters [K, ...], and the inner rates that all tasks share."""

    params: dict[str, np.ndarray]
    rates: dict[str, np.ndarray]


@dataclass(frozen=True)
class MAMLPolicy:
    """The AdaptivePolicy of the family: acts with per-task parameters, adapts by the inner gradient step."""

    config: Config
    net: MLPPolicy

    def begin_trial(self, weights: Weights, num_tasks: int, num_streams: int, rng: np.random.Generator) -> MAMLState:
        rates = rates_of(self.config, self.net, {n: to_tensor(v) for n, v in weights.items()})
        theta = {name: weights[name] for name in rates}
        params = {name: np.repeat(value[None], num_tasks, axis=0) for name, value in theta.items()}
        return MAMLState(params, {name: rate.numpy() for name, rate in rates.items()})

    def act(
        self, state: MAMLState, observations: np.ndarray, rng: np.random.Generator, deterministic: bool
    ) -> tuple[np.ndarray, MAMLState, Extras]:
        output = self.net.output(state.params, observations)
        if self.net.discrete:
            gumbel = 0.0 if deterministic else rng.gumbel(size=output.shape)
            return np.argmax(output + gumbel, axis=-1), state, {"logits": output}
        if deterministic:
            return output, state, {"mean": output}
        noise = rng.standard_normal(output.shape, dtype=np.float32)
        noise *= np.exp(self.net.log_std(state.params))[:, None]
        noise += output
        return noise, state, {"mean": output}

    def observe(self, state: MAMLState, transition: Transition) -> MAMLState:
        return state

    def end_round(self, state: MAMLState, round_: Round, adapt: bool) -> tuple[MAMLState, Extras]:
        """Advantages against the refit baseline, and the inner gradient step on this round where `adapt`."""
        derived = {"advantages": self._advantages(round_)}
        if not self.net.discrete:
            derived["log_std"] = self.net.log_std(state.params)
        if not adapt:
            return state, derived
        data = RoundTensors.of([Round(**{**vars(round_), "derived": derived})], torch.device("cpu"))
        params = {name: to_tensor(value).requires_grad_() for name, value in state.params.items()}
        log_prob = data.log_prob(self.net.distribution(params, data.observations))
        objective = INNER_OBJECTIVES[self.config.inner_objective]
        loss = objective(log_prob, log_prob.detach(), data.advantages, data.mask).sum()
        grads = sgd_ops.gradient(loss, params)
        rates = {name: to_tensor(rate) for name, rate in state.rates.items()}
        with torch.no_grad():
            adapted = {name: value.numpy() for name, value in sgd(params, grads, rates).items()}
        return MAMLState(adapted, state.rates), derived

    def _advantages(self, round_: Round) -> np.ndarray:
        r, c = round_, self.config
        arrays = (r.observations, r.rewards, r.mask, r.truncated, r.last_observations)
        o, rewards, mask, truncated, last_o = (to_tensor(array) for array in arrays)
        settings = (c.gamma, c.gae_lambda, c.bootstrap_truncated)
        return linear_baseline_advantages(o, rewards, mask, truncated, last_o, *settings).float().numpy()


# --- the learner -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Chunk:
    """Tasks that are differentiated together: their rounds, and E-MAML's credit [K]."""

    rounds: list[RoundTensors]
    credit: Tensor


class MAML:
    """The Algorithm of the family: the meta-gradient, exact or first order, and the outer step."""

    def __init__(self, config: Config, spaces: Spaces, device: torch.device, seed: int):
        self.config, self.device = config, device
        self.net = MLPPolicy(
            spaces.obs_dim,
            spaces.action_dim,
            spaces.discrete,
            config.hidden,
            config.init_std,
            config.min_std,
            config.output_gain,
        )
        theta = self.net.init(torch.Generator().manual_seed(seed))
        if config.variant == "meta_sgd":
            theta.update({_RATE + name: torch.full_like(value, config.inner_lr) for name, value in theta.items()})
        self._weights: Params = {name: value.to(device) for name, value in theta.items()}
        self._optimiser = torch.optim.Adam(list(self._weights.values()), lr=config.outer_lr)

    @property
    def policy(self) -> MAMLPolicy:
        return MAMLPolicy(self.config, self.net)

    max_lag = 0

    def tasks(self, distribution: TaskDistribution, seed: int, iteration: int) -> tuple[Task, ...]:
        return distribution.sample("train", self.config.tasks_per_iteration, (seed, iteration))

    def plan(self, horizon: int, evaluation: bool = False) -> TrialPlan:
        supports = (RoundPlan("support"),) * self.config.inner_steps
        return TrialPlan(self.config.num_streams, horizon, (*supports, RoundPlan("query", adapt=False)))

    def weights(self) -> dict[str, np.ndarray]:
        return {name: value.detach().cpu().numpy().copy() for name, value in self._weights.items()}

    def update(self, trials: Sequence[Trial]) -> dict[str, float]:
        """One meta-update: `outer_steps` Adam steps (ppo), one Adam step (pg, reptile) or one TRPO step."""
        rounds = [RoundTensors.of(group, self.device) for group in zip(*(t.rounds for t in trials), strict=True)]
        if self.config.outer == "trpo":
            metrics = self._trpo_step(rounds)
        else:
            for _ in range(self.config.outer_steps if self.config.outer == "ppo" else 1):
                gradient, metrics = self.meta_gradient(rounds)
                for name, value in self._weights.items():
                    value.grad = gradient[name]
                self._optimiser.step()
            metrics["meta_gradient_norm"] = float(flatten(gradient).norm())
        if "log_std" in self._weights:
            metrics["policy_std"] = float(self._weights["log_std"].exp().clamp_min(self.config.min_std).mean())
        return metrics

    def state_dict(self) -> dict[str, Tensor]:
        flat = {f"weights.{name}": value for name, value in self._weights.items()}
        flat |= moments_of(self._optimiser, self._weights)
        return {name: value.detach().clone() for name, value in flat.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, value in self._weights.items():
                value.copy_(state[f"weights.{name}"])
        load_moments(self._optimiser, self._weights, state)

    # --- the meta-gradient ---

    def meta_gradient(self, rounds: Sequence[RoundTensors]) -> tuple[Params, dict[str, float]]:
        """d/d weights of the mean outer loss over tasks, and its parts; in chunks of tasks that fit the device."""
        parts = parallel_map(self._chunk_gradient, self._chunks(rounds), self.device)
        gradients, losses, kls = zip(*parts, strict=True)
        n = len(rounds[0].mask)
        total = {name: sum_in_order([gradient[name] for gradient in gradients]) / n for name in self._weights}
        return total, {"outer_loss": float(sum_in_order(losses)) / n, "kl": float(sum_in_order(kls)) / n}

    def _chunk_gradient(self, chunk: Chunk) -> tuple[Params, Tensor, Tensor]:
        """Gradient, outer loss and KL(behaviour || adapted policy) on the query round, summed over a chunk's tasks."""
        if self.config.variant == "reptile":
            return self._reptile_direction(chunk)
        query, adaptation = chunk.rounds[-1], self._adapt(chunk.rounds[:-1], chunk.credit)
        distribution = self.net.distribution(adaptation.adapted, query.observations)
        loss = self._outer_loss(query, distribution).sum()
        with torch.no_grad():
            kl = query.kl_from_behaviour(distribution).sum()
        w = sgd_ops.gradient(loss, adaptation.adapted)
        return self._over_tasks(*adaptation.pull_back(w)), loss.detach(), kl

    def _reptile_direction(self, chunk: Chunk) -> tuple[Params, Tensor, Tensor]:
        """(theta - theta_adapted) / alpha after a step on every round, the query's too; summed over tasks."""
        adaptation = self._adapt(chunk.rounds, chunk.credit)
        start, end = adaptation.steps[0].params, adaptation.adapted
        scale = max(self.config.inner_lr, 1e-12)
        direction = {name: ((start[name] - end[name]) / scale).detach().sum(0) for name in end}
        query = chunk.rounds[-1]
        distribution = self.net.distribution(end, query.observations)
        loss, kl = self._inner_loss(query, distribution).sum(), query.kl_from_behaviour(distribution).sum()
        return direction, loss.detach(), kl.detach()

    def _adapt(self, supports: Sequence[RoundTensors], credit: Tensor, second_order: bool = True) -> Adaptation:
        rates = rates_of(self.config, self.net, self._weights)
        num_tasks = len(supports[0].mask)
        theta = {name: self._weights[name].expand(num_tasks, *self._weights[name].shape) for name in rates}
        losses = [partial(self._support_loss, data, credit) for data in supports]
        return adapt(theta, losses, rates, second_order and self.config.is_second_order)

    def _support_loss(self, data: RoundTensors, credit: Tensor, params: Params) -> tuple[Tensor, Tensor]:
        """The loss adapted on, and what the support data add to the meta-loss (inner KL, E-MAML), over tasks."""
        distribution = self.net.distribution(params, data.observations)
        extra = data.mask.new_zeros(())
        if self.config.outer == "ppo" and self.config.inner_kl_coef > 0:
            extra = extra + self.config.inner_kl_coef * data.kl_from_behaviour(distribution).sum()
        if self.config.exploration_coef > 0:
            term = exploration_credit(data.log_prob(distribution), data.mask, credit)
            extra = extra + self.config.exploration_coef * term.sum()
        return self._inner_loss(data, distribution).sum(), extra

    def _inner_loss(self, data: RoundTensors, distribution: Distribution) -> Tensor:
        objective = INNER_OBJECTIVES[self.config.inner_objective]
        return objective(data.log_prob(distribution), data.old_log_prob, data.advantages, data.mask)

    def _outer_loss(self, query: RoundTensors, distribution: Distribution) -> Tensor:
        """The surrogate on the query round, per task [K]."""
        arguments = (query.log_prob(distribution), query.old_log_prob, query.advantages, query.mask)
        return (
            clipped_ratio(*arguments, self.config.clip) if self.config.outer == "ppo" else likelihood_ratio(*arguments)
        )

    def _over_tasks(self, d_theta: Params, d_rates: Params) -> Params:
        """Sum over the task axis, under the names of the weights."""
        gradient = {name: value.sum(0) for name, value in d_theta.items()}
        if self.config.variant == "meta_sgd":
            gradient.update({_RATE + name: value.sum(0) for name, value in d_rates.items()})
        return gradient

    def _chunks(self, rounds: Sequence[RoundTensors]) -> list[Chunk]:
        """Groups of tasks, each with its credit for E-MAML's term: query returns standardised over all tasks."""
        num_tasks, num_samples = rounds[0].observations.shape[:2]
        returns = rounds[-1].returns
        credit = (returns - returns.mean()) / (returns.std(correction=0) + 1e-8)
        size = self.config.chunk_tasks or self.net.tasks_that_fit(num_samples, self.device)
        groups = [slice(start, min(start + size, num_tasks)) for start in range(0, num_tasks, size)]
        return [Chunk([r[tasks] for r in rounds], credit[tasks]) for tasks in groups]

    # --- the trust region ---

    def _trpo_step(self, rounds: Sequence[RoundTensors]) -> dict[str, float]:
        """theta - step along F^-1 g, F the exact Hessian of the query KL through adaptation."""
        config, num_tasks, theta, chunks = self.config, len(rounds[0].mask), self._weights, self._chunks(rounds)
        graphs = parallel_map(self._trust_region_graph, chunks, self.device)
        gradient = sum_in_order([g for g, _, _ in graphs]) / num_tasks
        loss_before = sum(loss for _, loss, _ in graphs) / num_tasks

        def product(v: Tensor) -> Tensor:
            parts = parallel_map(lambda graph: graph[2](v), graphs, self.device)
            return sum_in_order(parts) / num_tasks + config.cg_damping * v

        direction = conjugate_gradient(product, gradient, config.cg_iterations)
        step = step_to_boundary(direction, product(direction), config.max_kl)
        graphs.clear()

        def evaluate(step: Tensor) -> tuple[float, float]:
            move = unflatten(step, theta)
            self._weights = {name: value - move[name] for name, value in theta.items()}
            losses, kls = zip(*parallel_map(self._judge, chunks, self.device), strict=True)
            return sum(losses) / num_tasks, sum(kls) / num_tasks

        accepted, tries = backtracking_line_search(
            evaluate, step, loss_before, config.max_kl, config.line_search_steps, config.line_search_backtrack
        )
        loss, kl = evaluate(accepted)
        return {"outer_loss": loss, "kl": kl, "line_search_tries": float(tries), "step_norm": float(accepted.norm())}

    def _judge(self, chunk: Chunk) -> tuple[float, float]:
        """Meta-loss and KL of the current weights after adapting anew, summed over a chunk's tasks."""
        adaptation, query = self._adapt(chunk.rounds[:-1], chunk.credit, second_order=False), chunk.rounds[-1]
        with torch.no_grad():
            distribution = self.net.distribution(adaptation.adapted, query.observations)
            loss = self._outer_loss(query, distribution).sum() + adaptation.extra
            return float(loss), float(query.kl_from_behaviour(distribution).sum())

    def _trust_region_graph(self, chunk: Chunk) -> tuple[Tensor, float, Callable[[Tensor], Tensor]]:
        """Of one chunk, summed over its tasks: the gradient, the loss, and v -> F v on graphs that are kept."""
        query, adaptation = chunk.rounds[-1], self._adapt(chunk.rounds[:-1], chunk.credit)
        distribution = self.net.distribution(adaptation.adapted, query.observations)
        loss = self._outer_loss(query, distribution).sum()
        w = sgd_ops.gradient(loss, adaptation.adapted, retain_graph=True)
        total = float(loss.detach() + adaptation.extra)
        gradient = flatten(self._over_tasks(*adaptation.pull_back(w, retain_graph=True)))
        weight = (query.mask / query.mask.sum((1, 2), keepdim=True)).flatten(1)
        along = self.net.linearised(adaptation.adapted, query.observations)

        def product(v: Tensor) -> Tensor:
            tangent = unflatten(v, self._weights)
            theta = {n: tangent[n].expand(len(query.mask), *tangent[n].shape) for n in adaptation.adapted}
            rates = {n: tangent[_RATE + n] for n in theta} if self.config.variant == "meta_sgd" else None
            products = fisher_product(adaptation, distribution, along, weight, theta, rates)
            return flatten(self._over_tasks(*products))

        return gradient, total, product


def build(config: Config, spaces: Spaces, device: torch.device, seed: int) -> MAML:
    """The learner of the family."""
    return MAML(config, spaces, device, seed)
