"""What rollout workers run: a policy with parameters per task, adapted by the inner gradient step.

    theta_{i+1} = theta_i - alpha * grad L_in(theta_i; support_i)

Letters: K task, N stream, A action; theta, alpha as in the papers (see `learner.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from metarl.algorithms.maml.config import MAMLConfig
from metarl.algorithms.tensors import RoundTensors, to_tensor
from metarl.nets.mlp_policy import MLPPolicy
from metarl.ops.functional_sgd import gradient, sgd
from metarl.ops.returns import linear_baseline_advantages
from metarl.ops.surrogates import INNER_OBJECTIVES
from metarl.rollout.types import Episodes, Extras, Round, Transition, Weights

RATE = "rate."  # prefix of the learned rates among the weights


def rates_of(config: MAMLConfig, net: MLPPolicy, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """alpha for every parameter: learned ones (Meta-SGD), zero for what ANIL leaves alone, else the scalar."""
    names = [name for name in weights if not name.startswith(RATE)]
    if config.variant == "meta_sgd":
        return {name: weights[RATE + name] for name in names}
    head = {f"w{net.num_layers - 1}", f"b{net.num_layers - 1}"}
    adapted = head if config.variant == "anil" else set(names)
    like = weights[names[0]]
    return {name: like.new_full((), config.alpha if name in adapted else 0.0) for name in names}


@dataclass(frozen=True)
class MAMLState:
    """Each task's own parameters [K, ...], the inner rates that all tasks share, theta, from which all of them began,
    and whose episodes each task adapts to (None: its own; see `AblatablePolicy.begin_trial`)."""

    params: dict[str, np.ndarray]
    rates: dict[str, np.ndarray]
    theta: dict[str, np.ndarray]
    context_of: np.ndarray | None = None


@dataclass(frozen=True)
class MAMLPolicy:
    """The AdaptivePolicy of the family: acts with per-task parameters, adapts by the inner gradient step."""

    config: MAMLConfig
    net: MLPPolicy

    def begin_trial(
        self,
        weights: Weights,
        num_tasks: int,
        num_streams: int,
        rng: np.random.Generator,
        context_of: np.ndarray | None = None,
    ) -> MAMLState:
        rates = rates_of(self.config, self.net, {n: to_tensor(v) for n, v in weights.items()})
        theta = {name: weights[name] for name in rates}
        params = {name: np.repeat(value[None], num_tasks, axis=0) for name, value in theta.items()}
        return MAMLState(params, {name: rate.numpy() for name, rate in rates.items()}, theta, context_of)

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

    def end_round(self, state: MAMLState, episodes: Episodes, adapt: bool) -> tuple[MAMLState, Extras]:
        """Advantages against the refit baseline, and the inner gradient step on this round where `adapt`."""
        derived = {"advantages": self._advantages(episodes)}
        if not self.net.discrete:
            derived["log_std"] = self.net.log_std(state.params)
        if adapt:
            data = RoundTensors.of([Round.of(episodes, derived)], torch.device("cpu"))
            state = replace(state, params=self._adapted(state, data))
        return state, derived

    def describe(self, state: MAMLState) -> dict[str, np.ndarray]:
        """How far each task's parameters are from theta, |theta_i - theta| [K], and the standard deviations [K, A]."""
        squares = [((value - state.theta[n]) ** 2).reshape(len(value), -1).sum(1) for n, value in state.params.items()]
        change = {"parameter_change": np.sqrt(np.sum(squares, axis=0))}
        return change if self.net.discrete else {**change, "std": np.exp(self.net.log_std(state.params))}

    def _adapted(self, state: MAMLState, data: RoundTensors) -> dict[str, np.ndarray]:
        """Each task's parameters after one step on its own episodes, or on those of `context_of`."""
        source = state.context_of
        params = {name: to_tensor(value).requires_grad_() for name, value in state.params.items()}
        data = data if source is None else data[torch.from_numpy(source.clip(0))]
        log_prob = data.log_prob(self.net.distribution(params, data.observations))
        old_log_prob = log_prob.detach() if source is None else data.old_log_prob
        objective = INNER_OBJECTIVES[self.config.inner_objective]
        grads = gradient(objective(log_prob, old_log_prob, data.advantages, data.mask).sum(), params)
        rates = {name: to_tensor(rate) for name, rate in state.rates.items()}
        with torch.no_grad():
            end = self.net.step_above_floor(params, sgd(params, grads, rates))
        adapted = {name: value.numpy() for name, value in end.items()}
        if source is None:
            return adapted
        has_context = source >= 0
        return {n: np.where(_column(has_context, value), value, state.params[n]) for n, value in adapted.items()}

    def _advantages(self, episodes: Episodes) -> np.ndarray:
        r, c = episodes, self.config
        arrays = (r.observations, r.rewards, r.mask, r.truncated, r.last_observations)
        o, rewards, mask, truncated, last_o = (to_tensor(array) for array in arrays)
        settings = (c.gamma, c.gae_lambda, c.bootstrap_truncated, c.baseline)
        return linear_baseline_advantages(o, rewards, mask, truncated, last_o, *settings).float().numpy()


def _column(rows: np.ndarray, like: np.ndarray) -> np.ndarray:
    """[K] as [K, 1, ...], to be broadcast against `like`."""
    return rows.reshape(-1, *[1] * (like.ndim - 1))
