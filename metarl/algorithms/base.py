"""The protocol of the learner. Nothing is inherited between algorithms; they share by calling `metarl.ops`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch

from metarl.errors import ConfigError
from metarl.rollout.policy import AdaptivePolicy, Context
from metarl.rollout.types import Trial, TrialPlan
from metarl.tasks import Task, TaskDistribution


def refuse_to_train_with(context: Context) -> None:
    """ConfigError unless the policy sees its own context, as learning assumes."""
    if context != "own":
        raise ConfigError(f"algorithm.context = {context!r} is for evaluations; training needs 'own'")


class Algorithm(Protocol):
    """The central learner."""

    @property
    def policy(self) -> AdaptivePolicy[Any]: ...

    @property
    def max_lag(self) -> int:
        """How many updates old the weights may be that a trial was collected with; 0 for on-policy algorithms."""
        ...

    def tasks(self, distribution: TaskDistribution, seed: int, iteration: int) -> tuple[Task, ...]:
        """An iteration's training tasks, a function of the arguments alone: fresh ones, or some of a fixed pool."""
        ...

    def plan(self, horizon: int, evaluation: bool = False) -> TrialPlan:
        """How its next trials are collected, as data; asked for anew at every iteration."""
        ...

    def weights(self) -> dict[str, np.ndarray]:
        """What `AdaptivePolicy.begin_trial` needs, copied off the device."""
        ...

    def update(self, trials: Sequence[Trial]) -> dict[str, float]:
        """One meta-update from trials in unit order; the metrics of it."""
        ...

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Everything that resuming exactly needs (parameters, optimiser, normalisers), by name."""
        ...

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None: ...
