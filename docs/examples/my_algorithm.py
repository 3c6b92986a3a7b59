"""The smallest algorithm that meta-learns: a mean action from which a step leads to what is rewarded."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from pydantic import Field

from metarl.algorithms.base import AlgorithmConfig, EvaluationSettings, judged_streams, rounds_of
from metarl.rollout import seeds
from metarl.rollout.spaces import Spaces
from metarl.rollout.types import Episodes, Extras, RoundPlan, Transition, TrialBatch, TrialPlan, Weights
from metarl.tasks import Task, TaskDistribution


class Config(AlgorithmConfig):
    tasks_per_iteration: int = Field(20, ge=1, description="tasks collected on before an update")
    num_streams: int = Field(10, ge=1, description="episodes per task and round")
    step_size: float = Field(1.0, gt=0, description="of adaptation")
    lr: float = Field(0.1, gt=0, description="of the learner")


class Policy:
    """Means [K, A] of Gaussian actions with a standard deviation of 0.5."""

    def __init__(self, action_dim: int, step_size: float):
        self.action_dim, self.step_size = action_dim, step_size

    def begin_trial(self, weights: Weights, num_tasks: int, num_streams: int, rng: np.random.Generator) -> np.ndarray:
        return np.tile(weights["mean"], (num_tasks, 1))

    def act(
        self, state: np.ndarray, observations: np.ndarray, rng: np.random.Generator, deterministic: bool
    ) -> tuple[np.ndarray, np.ndarray, Extras]:
        noise = 0.5 * rng.standard_normal((*observations.shape[:2], self.action_dim))
        mean = np.broadcast_to(state[:, None], noise.shape)
        return (mean if deterministic else mean + noise).astype(np.float32), state, {}

    def observe(self, state: np.ndarray, transition: Transition) -> np.ndarray:
        return state

    def end_round(self, state: np.ndarray, episodes: Episodes, adapt: bool) -> tuple[np.ndarray, Extras]:
        return (state + self.step_size * direction(episodes) if adapt else state), {}


def direction(episodes: Episodes) -> np.ndarray:
    """Covariance of action and reward over the steps of a task's episodes, [K, A]."""
    centred = episodes.rewards - episodes.rewards.mean(axis=(1, 2), keepdims=True)
    return np.einsum("knt,knta->ka", centred, episodes.actions) / centred[0].size


class MeanAction:
    Config = Config
    max_lag = 0  # learns from trials of its newest weights alone

    def __init__(self, config: Config, spaces: Spaces, device: torch.device, seed: int):
        self.config, self.policy = config, Policy(spaces.action_dim, config.step_size)
        self._mean = torch.zeros(spaces.action_dim)

    def tasks(self, distribution: TaskDistribution, seed: int, iteration: int) -> tuple[Task, ...]:
        return distribution.sample("train", self.config.tasks_per_iteration, seeds.training_tasks(seed, iteration))

    def plan(self, horizon: int) -> TrialPlan:
        return TrialPlan(self.config.num_streams, horizon, (RoundPlan("support"), RoundPlan("query", adapt=False)))

    def evaluation_plan(self, horizon: int, settings: EvaluationSettings) -> TrialPlan:
        support = (RoundPlan("support"),) * rounds_of(settings, 1, "MeanAction")
        query = RoundPlan("query", adapt=False, deterministic=settings.deterministic)
        streams = judged_streams(self.config.num_streams, settings)
        return TrialPlan(streams, horizon, (*support, query), settings.context)

    def weights(self) -> dict[str, np.ndarray]:
        return {"mean": self._mean.numpy().copy()}

    def update(self, batches: Sequence[TrialBatch], progress: float) -> dict[str, float]:
        step = np.concatenate([direction(batch.rounds[-1]) for batch in batches]).mean(axis=0)
        self._mean += self.config.lr * torch.as_tensor(step, dtype=torch.float32)
        return {"step": float(np.linalg.norm(step))}

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {"mean": self._mean}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        self._mean = state["mean"].clone()
