"""Tasks that change in mid-episode: how much a change costs, and how long it takes to recover from it.

                 b = mean reward before             a = mean reward after
    reward   ____________________________|____                        ________
                                         c     \\______/\\____/
                                         |<--- time to recover ------>|

Recovered is the first step s >= c from which the mean reward of WINDOW steps is at least b - 0.1 |b|: 90 % of it where
it is positive. Episodes count that reach their change, in the judged round alone. One that ends before WINDOW steps
have followed never recovers; where it is time that ends it, it does not count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from metarl.rollout.types import TrialBatch
from metarl.tasks import TaskDistribution

WINDOW = 10  # steps whose mean reward says that a policy has recovered
BASELINE = 20  # steps before the change, at most, whose mean reward is compared with
_RECOVERED = 0.9


@dataclass(frozen=True)
class ChangeScore:
    """What changes in mid-episode did. Rewards are means per step, over the episodes that reached their change.

    recovery_steps: the mean time to recover, over the episodes that do; None where none does.
    """

    episodes: int
    reward_before: float
    reward_after: float
    recovery_steps: float | None
    share_never: float

    @staticmethod
    def from_json(content: dict[str, Any] | None) -> ChangeScore | None:
        """The inverse of `dataclasses.asdict`; None gives None."""
        return None if content is None else ChangeScore(**content)


def change_score(distribution: TaskDistribution, trials: Sequence[TrialBatch]) -> ChangeScore | None:
    """The score of the last round of `trials`; None where no task changes, or no episode reaches its change."""
    episodes = []
    for trial in trials:
        judged = trial.rounds[-1]
        for k, task in enumerate(trial.tasks):
            step = distribution.change_step(task)
            for n in range(judged.lengths.shape[1]) if step is not None else ():
                length = int(judged.lengths[k, n])
                rewards = judged.rewards[k, n, :length].astype(np.float64)
                found = of_episode(rewards, math.ceil(step or 0), bool(judged.terminated[k, n]))
                episodes += [] if found is None else [found]
    if not episodes:
        return None
    before, after, times = zip(*episodes, strict=True)
    recovered = [time for time in times if time is not None]
    return ChangeScore(
        episodes=len(episodes),
        reward_before=float(np.mean(before)),
        reward_after=float(np.mean(after)),
        recovery_steps=float(np.mean(recovered)) if recovered else None,
        share_never=1.0 - len(recovered) / len(episodes),
    )


def of_episode(rewards: np.ndarray, step: int, has_terminated: bool) -> tuple[float, float, int | None] | None:
    """Mean reward before and after a change at `step`, and the time to recover (None: never); rewards [T].

    None where the episode does not count: no step before the change, none after it, or too few before time ran out.
    """
    if not 0 < step < len(rewards) or (len(rewards) - step < WINDOW and not has_terminated):
        return None
    before, after = rewards[max(0, step - BASELINE) : step].mean(), rewards[step:]
    target = before - (1 - _RECOVERED) * abs(before)
    if len(after) < WINDOW:
        return float(before), float(after.mean()), None
    means = np.convolve(after, np.full(WINDOW, 1 / WINDOW), mode="valid")  # of the WINDOW steps from each on
    reached = means >= target - 1e-12 * abs(target)
    return float(before), float(after.mean()), int(np.argmax(reached)) if reached.any() else None
