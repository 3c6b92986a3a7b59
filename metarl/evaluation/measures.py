"""What adaptation costs and how fast it is: measures of whole trials, exploration included.

    reward over time     mean reward of each step of the trial; episodes joined, a step that no episode reached left out
    online return        return per episode over all rounds of a trial, those adapted on included
    area                 under the return above the first round's, against the round, per round (trapezoids)
    to a threshold       episodes and environment steps adapted on before the first round at or above it
    regret               expert's return minus return, per episode, over all rounds: where an expert's return is known

Shape letters: R rounds, K tasks, N streams, T steps of a round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from metarl.evaluation.by_task import ByTask, Estimate
from metarl.evaluation.statistics import Interval
from metarl.rollout.padding import of_equal_length
from metarl.rollout.types import TrialBatch, TrialPlan
from metarl.tasks import Anchors

CLOSE = 0.9  # of the way from the best non-adaptive policy to the expert: the threshold where none is given
_MOST_POINTS = 60  # of a round's reward curve


@dataclass(frozen=True)
class RewardOverTime:
    """Reward per step of one round, averaged over tasks and over `width` steps each; `steps` are their middles."""

    steps: tuple[float, ...]
    mean: tuple[float, ...]
    ci95: tuple[Interval, ...]
    width: int


@dataclass(frozen=True)
class ToThreshold:
    """How soon a task's return reaches `threshold`.

    `reached`: the share of tasks that do. `episodes` and `steps`: those adapted on before, mean over these tasks; None
    where there are none.
    """

    threshold: float
    is_default: bool
    reached: float
    episodes: float | None
    steps: float | None


@dataclass(frozen=True)
class Measures:
    """Of all trials of an evaluation."""

    over_time: tuple[RewardOverTime, ...]  # one per round
    online: Estimate
    exploration_cost: Estimate  # last round's return minus the online return, per episode
    area: Estimate | None  # None with one round, or where the first and the last do not act alike
    to_threshold: ToThreshold | None  # None where there is no threshold
    regret: Estimate | None  # None where no expert's return is known
    episodes_adapted_on: int  # per task
    steps_adapted_on: float  # per task

    @staticmethod
    def from_json(content: dict[str, Any]) -> Measures:
        """The inverse of `dataclasses.asdict` after JSON; KeyError or TypeError where the layout is another."""
        estimate = Estimate.from_json
        online, cost = estimate(content["online"]), estimate(content["exploration_cost"])
        assert online is not None
        assert cost is not None
        return Measures(
            tuple(
                RewardOverTime(
                    tuple(part["steps"]), tuple(part["mean"]), tuple(map(tuple, part["ci95"])), part["width"]
                )
                for part in content["over_time"]
            ),
            online,
            cost,
            estimate(content["area"]),
            None if content["to_threshold"] is None else ToThreshold(**content["to_threshold"]),
            estimate(content["regret"]),
            content["episodes_adapted_on"],
            content["steps_adapted_on"],
        )


def measure(
    trials: Sequence[TrialBatch], plan: TrialPlan, groups: ByTask, anchors: Anchors, threshold: float | None = None
) -> Measures:
    """The measures of an evaluation's trials, in the order of the tasks that `groups` was made of.

    `anchors` are those that apply to these tasks and this horizon; Anchors() where none do.
    """
    equal = of_equal_length(trials)
    returns = np.concatenate([trial.returns for trial in equal], axis=1)  # [R, K, N]
    lengths = np.stack([np.concatenate([t.rounds[r].lengths for t in equal]) for r in range(len(plan.rounds))])
    over_time = tuple(
        reward_over_time(np.concatenate([t.rounds[r].rewards for t in equal]), lengths[r], groups)
        for r in range(len(plan.rounds))
    )
    online = returns.mean(axis=0)  # [K, N]
    used = _adapted_on(plan)
    steps_used = np.stack([lengths[r][:, :n].sum(axis=1) for r, n in enumerate(used)])  # [R, K], episodes adapted on
    task_steps = groups.means(np.cumsum(steps_used, axis=0)[:, :, None].astype(np.float64))
    goal, is_default = (threshold, False) if threshold is not None else (_usual_threshold(anchors), True)
    return Measures(
        over_time,
        groups.estimate(online),
        groups.estimate(returns[-1] - online),
        groups.estimate(area(returns)) if plan.ends_alike else None,
        None if goal is None else to_threshold(groups.means(returns), task_steps, used, goal, is_default),
        None if anchors.expert is None else groups.estimate(anchors.expert - online),
        sum(used[:-1]),
        float(task_steps[-2].mean()) if len(returns) > 1 else 0.0,
    )


def area(returns: Float[np.ndarray, "R K N"]) -> Float[np.ndarray, "K N"]:
    """Trapezoids of the return above the first round's, over the number of intervals between rounds."""
    above = returns - returns[0]
    return np.asarray(((above[1:] + above[:-1]) / 2).mean(axis=0))


def to_threshold(
    returns: Float[np.ndarray, "R D"],
    steps: Float[np.ndarray, "R D"],
    episodes: Sequence[int],
    threshold: float,
    is_default: bool = False,
) -> ToThreshold:
    """`steps` [R, D]: environment steps of the episodes adapted on up to each round's end; `episodes` [R]: how many of
    each round are adapted on."""
    above = returns >= threshold
    reaching = above.any(axis=0)
    if not reaching.any():
        return ToThreshold(threshold, is_default, 0.0, None, None)
    first = above.argmax(axis=0)[reaching]  # the first such round
    before = np.concatenate(([0], np.cumsum(episodes)))
    steps_before = np.concatenate((np.zeros((1, steps.shape[1])), steps))[first, np.flatnonzero(reaching)]
    return ToThreshold(
        threshold, is_default, float(reaching.mean()), float(before[first].mean()), float(steps_before.mean())
    )


def reward_over_time(
    rewards: Float[np.ndarray, "K N T"], lengths: Int[np.ndarray, "K N"], groups: ByTask
) -> RewardOverTime:
    """Mean reward of the steps that episodes reached, in at most 60 equal parts of the longest episode."""
    longest = int(lengths.max())
    width = -(-longest // _MOST_POINTS)
    starts = range(0, longest, width)
    is_real = np.arange(rewards.shape[2]) < lengths[:, :, None]
    steps, means, intervals = [], [], []
    for start in starts:
        part, real = rewards[:, :, start : start + width], is_real[:, :, start : start + width]
        count = real.sum(axis=(1, 2))  # [K]
        if not count.all():  # a task all of whose episodes had ended: its value would be of other tasks alone
            break
        per_task = (part * real).sum(axis=(1, 2), dtype=np.float64) / count
        found = groups.estimate(per_task[:, None])
        steps.append(start + (min(width, longest - start) + 1) / 2)
        means.append(found.mean)
        intervals.append(found.ci95)
    return RewardOverTime(tuple(steps), tuple(means), tuple(intervals), width)


def _adapted_on(plan: TrialPlan) -> tuple[int, ...]:
    """Episodes of each round that the policy has seen when the next one begins."""
    return tuple(map(plan.streams_adapted_on, plan.rounds))


def _usual_threshold(anchors: Anchors) -> float | None:
    if anchors.task_blind is None or anchors.expert is None:
        return None
    return anchors.task_blind + CLOSE * (anchors.expert - anchors.task_blind)
