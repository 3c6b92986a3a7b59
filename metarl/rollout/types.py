"""What crosses process boundaries: the plan of a trial, the unit of work, and the arrays a trial yields.

Shape letters: K tasks, N streams, R rounds, T steps (horizon), O observation, A action.
All arrays are NumPy, so the object store passes them without copies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from metarl.tasks.task import Task

Weights = Mapping[str, np.ndarray]
Extras = dict[str, np.ndarray]
Role = Literal["support", "query"]


@dataclass(frozen=True)
class RoundPlan:
    """What one round is for. `adapt`: whether the policy adapts on it when it ends; the last query needs not."""

    role: Role
    adapt: bool = True
    deterministic: bool = False


@dataclass(frozen=True)
class TrialPlan:
    """How a trial is collected: each round is one episode per stream, of at most `horizon` steps."""

    num_streams: int
    horizon: int
    rounds: tuple[RoundPlan, ...]

    @property
    def max_steps(self) -> int:
        """Environment steps of one task's trial if no episode ends early."""
        return self.num_streams * self.horizon * len(self.rounds)


@dataclass(frozen=True)
class Unit:
    """A fixed group of tasks x streams, collected by one actor in one call.

    Its result is a function of (weights, tasks, plan, seed path) alone.
    """

    index: int
    tasks: tuple[Task, ...]
    plan: TrialPlan
    seed: tuple[int, ...]


@dataclass(frozen=True)
class Transition:
    """One step of all streams, as `AdaptivePolicy.observe` sees it. `running` [K, N] marks live streams:
    where it is False the episode had ended before this step and the row means nothing."""

    observations: np.ndarray  # [K, N, O] before the action, float32
    actions: np.ndarray  # [K, N, A] float32 in [-1, 1] units, or [K, N] int64
    rewards: np.ndarray  # [K, N] float32
    next_observations: np.ndarray  # [K, N, O] float32
    terminated: np.ndarray  # [K, N] bool
    truncated: np.ndarray  # [K, N] bool
    running: np.ndarray  # [K, N] bool


@dataclass(frozen=True)
class Round:
    """The episodes collected with one adaptation state. Steps at and beyond `lengths` are zero padding.

    `terminated` means that an episode's last step reached a terminal state (its value is 0);
    `truncated` that time ran out there (its value must be bootstrapped from `last_observations`).
    """

    observations: np.ndarray  # [K, N, T, O] float32
    actions: np.ndarray  # [K, N, T, A] float32, or [K, N, T] int64
    rewards: np.ndarray  # [K, N, T] float32
    lengths: np.ndarray  # [K, N] int64, from 1 to T
    terminated: np.ndarray  # [K, N] bool
    truncated: np.ndarray  # [K, N] bool
    last_observations: np.ndarray  # [K, N, O] float32, after the last step
    extras: Extras = field(default_factory=dict)  # [K, N, T, ...] what `act` logged (behaviour distribution)
    derived: Extras = field(default_factory=dict)  # [K, ...] what `end_round` computed (advantages, inner rates)

    @property
    def mask(self) -> np.ndarray:
        """Which steps are real, bool [K, N, T]."""
        return np.arange(self.rewards.shape[2]) < self.lengths[:, :, None]

    @property
    def returns(self) -> np.ndarray:
        """Undiscounted return of each episode, float64 [K, N]."""
        return self.rewards.sum(axis=2, dtype=np.float64)

    @property
    def num_steps(self) -> int:
        return int(self.lengths.sum())

    @property
    def next_observations(self) -> np.ndarray:
        """The observation after every real step, [K, N, T, O]; after an episode's last one `last_observations`."""
        after = np.roll(self.observations, -1, axis=2)
        k, n = np.indices(self.lengths.shape)
        after[k, n, self.lengths - 1] = self.last_observations
        return after

    def of_task(self, k: int) -> Round:
        """The round of one task alone, K = 1."""
        one = slice(k, k + 1)

        def of(extras: Extras) -> Extras:
            return {name: value[one] for name, value in extras.items()}

        return Round(
            self.observations[one],
            self.actions[one],
            self.rewards[one],
            self.lengths[one],
            self.terminated[one],
            self.truncated[one],
            self.last_observations[one],
            of(self.extras),
            of(self.derived),
        )


@dataclass(frozen=True)
class Trial:
    """What a unit yields. `weights_version` is the version of the weights it was collected with."""

    unit: int
    tasks: tuple[Task, ...]
    rounds: tuple[Round, ...]
    weights_version: int

    @property
    def num_steps(self) -> int:
        return sum(r.num_steps for r in self.rounds)

    @property
    def returns(self) -> np.ndarray:
        """Undiscounted returns, float64 [R, K, N]."""
        return np.stack([r.returns for r in self.rounds])
