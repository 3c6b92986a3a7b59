"""What an agent keeps of the round under way: the steps of its episodes, as rollouts record them.

A robot has one stream. A round that adapts to S streams is S episodes one after the other, all of them begun with the
policy's state at the round's start, as the streams of a rollout are. The last round of a plan is repeated for as long
as the task lasts.

Shape letters: K robots, S episodes of a round, T steps, O observation, A action.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from metarl.rollout.padding import Steps, lengthened
from metarl.rollout.spaces import Spaces
from metarl.rollout.types import Episodes, Extras, RoundPlan, TrialPlan


def episodes_of(plan: TrialPlan, number: int) -> tuple[RoundPlan, int]:
    """The plan of a task's round `number`, from 0, and its S.

    A round that is adapted to has as many episodes as the plan adapts to; any other has one.
    """
    round_plan = plan.rounds[min(number, len(plan.rounds) - 1)]
    if not round_plan.adapt:
        return round_plan, 1
    return round_plan, plan.streams_adapted_on(round_plan)


def episodes_until_adaptation(plan: TrialPlan, number: int, finished: int) -> int | None:
    """How many episodes must end from round `number` on, `finished` of which have, until one is adapted to; None where
    none will be."""
    count = -finished
    for later in range(number, max(number + 1, len(plan.rounds))):
        round_plan, num_episodes = episodes_of(plan, later)
        count += num_episodes
        if round_plan.adapt:
            return count
    return None


_ROWS = ("lengths", "terminated", "truncated", "running", "observations")


@dataclass
class Recorder:
    """The episode under way, step by step. All robots step together; one whose episode ended waits.

    lengths, terminated, truncated, running: [K, 1], as `metarl.rollout.collect` keeps them.
    observations: [K, 1, O] what the next action is for, or what followed the last one; zeros before an episode.
    """

    num_robots: int
    horizon: int
    spaces: Spaces
    t: int = 0
    steps: Steps = field(init=False)
    lengths: np.ndarray = field(init=False)
    terminated: np.ndarray = field(init=False)
    truncated: np.ndarray = field(init=False)
    running: np.ndarray = field(init=False)
    observations: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """A new episode of every robot."""
        shape = (self.num_robots, 1)
        self.t = 0
        self.steps = Steps(*shape, self.horizon, self.spaces)
        self.lengths = np.zeros(shape, np.int64)
        self.terminated, self.truncated = np.zeros(shape, bool), np.zeros(shape, bool)
        self.running = np.ones(shape, bool)
        self.observations = np.zeros((*shape, self.spaces.obs_dim), np.float32)

    @property
    def is_over(self) -> bool:
        return not self.running.any()

    def store(
        self,
        observations: np.ndarray,
        actions: np.ndarray,
        rewards: np.ndarray,
        logged: Extras,
        terminated: np.ndarray,
        truncated: np.ndarray,
    ) -> None:
        """Keep a step of all robots; rows that do not run are padding."""
        self.steps.store(self.t, observations, actions, rewards, logged)
        self.lengths += self.running
        self.t += 1
        if terminated.any() or truncated.any():
            self.terminated |= self.running & terminated
            self.truncated |= self.running & truncated & ~terminated
            self.running = ~(self.terminated | self.truncated)

    def finished(self) -> Episodes:
        """The episodes [K, 1, T]; where a robot still ran, it is truncated here."""
        self.truncated |= self.running & ~self.terminated
        padded = self.steps.padded_after(self.lengths)
        ends = self.lengths, self.terminated, self.truncated, self.observations
        return Episodes(*padded, *ends, self.steps.extras)

    # --- across a restart ----------------------------------------------------------------------------

    def saved(self) -> dict[str, Any]:
        """What `restore` wants: the steps taken so far, and the rows' flags."""
        steps, kept = self.steps, np.s_[:, :, : self.t]
        return {
            "t": self.t,
            "capacity": steps.rewards.shape[2],
            "steps": (steps.observations[kept], steps.actions[kept], steps.rewards[kept]),
            "extras": {name: value[kept] for name, value in steps.extras.items()},
            "rows": {name: getattr(self, name) for name in _ROWS},
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """The recorder that `saved` was made of; both have the same robots, horizon and spaces."""
        self.reset()
        self.t, capacity, steps = saved["t"], saved["capacity"], self.steps
        steps.observations, steps.actions, steps.rewards = (lengthened(a, capacity) for a in saved["steps"])
        steps.extras = {name: lengthened(value, capacity) for name, value in saved["extras"].items()}
        for name in _ROWS:
            setattr(self, name, saved["rows"][name])


def side_by_side(episodes: Sequence[Episodes]) -> Episodes:
    """Episodes [K, 1, T] of a round as its streams, [K, S, T]."""
    if len(episodes) == 1:
        return episodes[0]
    steps = max(e.rewards.shape[2] for e in episodes)
    of_steps = ("observations", "actions", "rewards")

    def joined(arrays: list[np.ndarray], has_steps: bool) -> np.ndarray:
        return np.concatenate([lengthened(a, steps) if has_steps else a for a in arrays], axis=1)

    arrays: dict[str, Any] = {
        f.name: joined([getattr(e, f.name) for e in episodes], f.name in of_steps)
        for f in fields(Episodes)
        if f.name not in ("extras", "success")
    }
    names = episodes[0].extras
    return Episodes(**arrays, extras={name: joined([e.extras[name] for e in episodes], True) for name in names})
