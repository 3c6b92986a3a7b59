"""The time axis of what is collected: it grows with the episodes, so that a long horizon costs no memory by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from metarl.rollout.spaces import Spaces
from metarl.rollout.types import Extras, Round, TrialBatch

FIRST_CAPACITY = 1024  # steps; rounds of at most so many are as long as their horizon


class Steps:
    """What the steps of a round give, [K, N, T, ...] each; grows with the longest episode, up to the horizon."""

    def __init__(self, num_tasks: int, num_streams: int, horizon: int, spaces: Spaces):
        self._horizon = horizon
        shape = (num_tasks, num_streams, min(horizon, FIRST_CAPACITY))
        action_shape: tuple[int, ...] = () if spaces.discrete else (spaces.action_dim,)
        self.observations = np.zeros((*shape, spaces.obs_dim), np.float32)
        self.actions = np.zeros((*shape, *action_shape), np.int64 if spaces.discrete else np.float32)
        self.rewards = np.zeros(shape, np.float32)
        self.extras: Extras = {}

    def store(self, t: int, observations: np.ndarray, actions: np.ndarray, rewards: np.ndarray, logged: Extras) -> None:
        """Keep step t of all streams; arrays [K, N, ...]."""
        if t == self.rewards.shape[2]:
            self._lengthen(min(2 * t, self._horizon))
        for name, value in logged.items():
            if name not in self.extras:
                self.extras[name] = np.zeros((*self.rewards.shape, *value.shape[2:]), value.dtype)
            self.extras[name][:, :, t] = value
        self.observations[:, :, t], self.actions[:, :, t], self.rewards[:, :, t] = observations, actions, rewards

    def _lengthen(self, steps: int) -> None:
        self.observations, self.actions, self.rewards = (
            lengthened(array, steps) for array in (self.observations, self.actions, self.rewards)
        )
        self.extras = {name: lengthened(array, steps) for name, array in self.extras.items()}

    def padded_after(self, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Observations, actions and rewards; all arrays become 0 at and beyond `lengths` [K, N]."""
        if (lengths < self.rewards.shape[2]).any():
            padding = np.arange(self.rewards.shape[2]) >= lengths[:, :, None]
            for array in (self.observations, self.actions, self.rewards, *self.extras.values()):
                array[padding] = 0
        return self.observations, self.actions, self.rewards


def lengthened(array: np.ndarray, steps: int) -> np.ndarray:
    """`array` [K, N, T, ...] with zeros behind, [K, N, steps, ...]."""
    longer = np.zeros((*array.shape[:2], steps, *array.shape[3:]), array.dtype)
    longer[:, :, : array.shape[2]] = array
    return longer


def of_equal_length(trials: Sequence[TrialBatch]) -> list[TrialBatch]:
    """The trials with the same round of each padded to the same number of steps, so that units can be joined."""
    if not trials:
        return []
    steps = [max(r.rewards.shape[2] for r in rounds) for rounds in zip(*(t.rounds for t in trials), strict=True)]
    return [
        replace(trial, rounds=tuple(_of_length(r, n) for r, n in zip(trial.rounds, steps, strict=True)))
        for trial in trials
    ]


def _of_length(round_: Round, steps: int) -> Round:
    shape = round_.rewards.shape
    if shape[2] == steps:
        return round_

    def padded(extras: Extras) -> Extras:
        return {name: lengthened(x, steps) if x.shape[:3] == shape else x for name, x in extras.items()}

    return replace(
        round_,
        observations=lengthened(round_.observations, steps),
        actions=lengthened(round_.actions, steps),
        rewards=lengthened(round_.rewards, steps),
        extras=padded(round_.extras),
        derived=padded(round_.derived),
    )
