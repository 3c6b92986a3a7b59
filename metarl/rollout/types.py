"""What crosses process boundaries: the plan of a trial, the unit of work, and the arrays that a unit yields.

Shape letters: K tasks, N streams, R rounds, T steps (horizon), O observation, A action.
All arrays are NumPy, so the object store passes them without copies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np

from metarl.tasks.task import Task

Weights = Mapping[str, np.ndarray]
Extras = dict[str, np.ndarray]
Role = Literal["support", "query"]
Context = Literal["own", "blank", "shuffled"]
Adapts = Literal["between", "within", "never"]  # rounds; at every step; not at all


@dataclass(frozen=True)
class RoundPlan:
    """What one round is for.

    adapt: whether the policy adapts to the round when it ends.
    deterministic: whether actions are the policy's means (or most likely actions) instead of samples.
    support_streams: adapt to the episodes of so many streams alone, the first ones; None: to all of them.
    """

    role: Role
    adapt: bool = True
    deterministic: bool = False
    support_streams: int | None = None


@dataclass(frozen=True)
class TrialPlan:
    """How a trial is collected: each round is one episode per stream, of at most `horizon` steps.

    context: whose experience the policy adapts to. `own` is normal use. For ablations in evaluations, `blank` gives it
    none and `shuffled` that of another task of the unit.
    adapts: when the policy adapts. `within` episodes the first round already holds adaptation, so that it is no measure
    of the policy before adaptation; reports say what they compare with instead.
    """

    num_streams: int
    horizon: int
    rounds: tuple[RoundPlan, ...]
    context: Context = "own"
    adapts: Adapts = "between"

    def streams_adapted_on(self, round_plan: RoundPlan) -> int:
        """How many streams of a round the policy adapts to where it adapts."""
        return self.num_streams if round_plan.support_streams is None else round_plan.support_streams

    @property
    def ends_alike(self) -> bool:
        """Whether there is more than one round, and the first takes means or samples as the last does."""
        return len(self.rounds) > 1 and self.rounds[0].deterministic == self.rounds[-1].deterministic

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
class Episodes:
    """The episodes of one round. Steps at and beyond `lengths` are zero padding.

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
    extras: Extras  # [K, N, T, ...] what `act` logged (behaviour distribution)
    # [K, N] bool, whether any step of the episode reported success; None where the environments report none
    success: np.ndarray | None = field(default=None, kw_only=True)

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
        """Environment steps of all episodes together."""
        return int(self.lengths.sum())

    @property
    def next_observations(self) -> np.ndarray:
        """The observation after every real step, [K, N, T, O]; after an episode's last one `last_observations`."""
        after = np.roll(self.observations, -1, axis=2)
        k, n = np.indices(self.lengths.shape)
        after[k, n, self.lengths - 1] = self.last_observations
        return after

    def of_task(self, k: int) -> Episodes:
        """The episodes of one task alone, K = 1."""
        return self._part(np.s_[k : k + 1])

    def of_streams(self, num_streams: int) -> Episodes:
        """The episodes of the first `num_streams` streams of every task."""
        return self._part(np.s_[:, :num_streams])

    def _part(self, index: Any) -> Episodes:
        given = {f.name: getattr(self, f.name) for f in fields(Episodes) if f.name != "extras"}
        arrays: dict[str, Any] = {name: None if value is None else value[index] for name, value in given.items()}
        return Episodes(**arrays, extras={name: value[index] for name, value in self.extras.items()})


@dataclass(frozen=True)
class Round(Episodes):
    """One round of a trial: its episodes, and what the policy computed when it ended."""

    derived: Extras  # [K, ...] what `end_round` computed (advantages, posteriors)

    @staticmethod
    def of(episodes: Episodes, derived: Extras) -> Round:
        """Episodes with what belongs to them; the arrays are shared, not copied."""
        return Round(**{f.name: getattr(episodes, f.name) for f in fields(Episodes)}, derived=derived)


@dataclass(frozen=True)
class TrialBatch:
    """What a unit yields: a trial on each of its tasks, collected with the weights of `weights_version`."""

    unit: int
    tasks: tuple[Task, ...]
    rounds: tuple[Round, ...]
    weights_version: int

    @property
    def num_steps(self) -> int:
        """Environment steps of all rounds together."""
        return sum(r.num_steps for r in self.rounds)

    @property
    def returns(self) -> np.ndarray:
        """Undiscounted returns, float64 [R, K, N]."""
        return np.stack([r.returns for r in self.rounds])

    @property
    def success(self) -> np.ndarray | None:
        """Which episodes reported success, bool [R, K, N]; None where no round reports any."""
        reported = [r.success for r in self.rounds]
        if all(success is None for success in reported):
            return None
        nothing = np.zeros(self.rounds[0].lengths.shape, bool)
        return np.stack([nothing if success is None else success for success in reported])
