"""The time axis of what is collected: it grows with the episodes, so that a long horizon costs no memory by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from metarl.rollout.types import Extras, Round, TrialBatch

FIRST_CAPACITY = 1024  # steps; rounds of at most so many are as long as their horizon


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
