"""A small algorithm for tests of the platform: a Gaussian policy with a bias per action, moved towards what paid.

It adapts (a step of the bias on the support round), has an optimiser state and draws random numbers of
its own, so that resuming exactly is not trivially true.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import Field

from metarl.algorithms.base import AlgorithmConfig, EvaluationSettings, Sizes, judged_streams, rounds_of
from metarl.rollout.spaces import Spaces
from metarl.rollout.types import Episodes, Extras, RoundPlan, Transition, TrialBatch, TrialPlan, Weights
from metarl.tasks import Task, TaskDistribution


class ToyConfig(AlgorithmConfig):
    num_tasks: int = Field(4, ge=1)
    num_streams: int = Field(2, ge=1)
    outer_lr: float = Field(0.05, gt=0)
    hidden: Sizes = (8, 8)
    spoil_at: int = -1  # at this update: the parameters become NaN
    nan_metric_at: int = -1
    ballast: int = Field(0, ge=0)  # so many numbers more among the weights, others each time


@dataclass(frozen=True)
class ToyPolicy:
    action_dim: int

    def begin_trial(self, weights: Weights, num_tasks: int, num_streams: int, rng: np.random.Generator) -> np.ndarray:
        return np.tile(weights["bias"], (num_tasks, 1))

    def act(
        self, state: np.ndarray, observations: np.ndarray, rng: np.random.Generator, deterministic: bool
    ) -> tuple[np.ndarray, np.ndarray, Extras]:
        K, N = observations.shape[:2]
        noise = 0.3 * rng.standard_normal((K, N, self.action_dim))
        mean = np.broadcast_to(state[:, None], noise.shape)
        return (mean if deterministic else mean + noise).astype(np.float32), state, {}

    def observe(self, state: np.ndarray, transition: Transition) -> np.ndarray:
        return state

    def end_round(self, state: np.ndarray, episodes: Episodes, adapt: bool) -> tuple[np.ndarray, Extras]:
        return (state + 0.1 * _direction(episodes) if adapt else state), {}


def _direction(episodes: Episodes) -> np.ndarray:
    """Covariance of action and reward, [K, A]."""
    centred = episodes.rewards - episodes.rewards.mean(axis=(1, 2), keepdims=True)
    return np.einsum("knt,knta->ka", centred, episodes.actions) / centred[0].size


class Toy:
    Config = ToyConfig

    def __init__(self, config: ToyConfig, spaces: Spaces, device: torch.device, seed: int):
        self.config, self.policy, self.max_lag = config, ToyPolicy(spaces.action_dim), 0
        self._generator = torch.Generator().manual_seed(seed)
        self._bias = torch.randn(spaces.action_dim, generator=self._generator).mul(0.1)
        self._moments = [torch.zeros_like(self._bias), torch.zeros_like(self._bias)]
        self._updates = 0

    def tasks(self, distribution: TaskDistribution, seed: int, iteration: int) -> tuple[Task, ...]:
        return distribution.sample("train", self.config.num_tasks, (seed, iteration))

    def plan(self, horizon: int) -> TrialPlan:
        return TrialPlan(self.config.num_streams, horizon, (RoundPlan("support"), RoundPlan("query", adapt=False)))

    def evaluation_plan(self, horizon: int, settings: EvaluationSettings) -> TrialPlan:
        support, query = self.plan(horizon).rounds
        rounds = (support,) * rounds_of(settings, 1, "this algorithm")
        return TrialPlan(judged_streams(self.config.num_streams, settings), horizon, (*rounds, query), settings.context)

    def weights(self) -> dict[str, np.ndarray]:
        weights = {"bias": self._bias.detach().numpy().copy()}
        if self.config.ballast:
            weights["ballast"] = np.full(self.config.ballast, self._updates, np.float32)
        return weights

    def update(self, batches: Sequence[TrialBatch], progress: float) -> dict[str, float]:
        direction = np.concatenate([_direction(batch.rounds[-1]) for batch in batches]).mean(axis=0)
        noise = 1e-3 * torch.randn(len(direction), generator=self._generator)
        self._updates += 1
        m, v = self._moments
        gradient = -torch.as_tensor(direction, dtype=torch.float32) + noise
        m.mul_(0.9).add_(gradient, alpha=0.1)
        v.mul_(0.99).addcmul_(gradient, gradient, value=0.01)
        with torch.no_grad():
            self._bias -= self.config.outer_lr * m / (v.sqrt() + 1e-3)
            if self._updates == self.config.spoil_at:
                self._bias[0] = float("nan")
        spoiled = self._updates == self.config.nan_metric_at
        return {"loss": float("nan") if spoiled else float(-direction.sum()), "updates": float(self._updates)}

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {
            "bias": self._bias.detach(),
            "m": self._moments[0],
            "v": self._moments[1],
            "updates": torch.tensor(self._updates),
            "rng": self._generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        with torch.no_grad():
            self._bias.copy_(state["bias"])
        self._moments = [state["m"].clone(), state["v"].clone()]
        self._updates = int(state["updates"])
        self._generator.set_state(state["rng"])
