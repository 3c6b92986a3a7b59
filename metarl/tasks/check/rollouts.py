"""Short episodes for checks: what they are a function of, and what is kept of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from gymnasium.spaces import Box

from metarl.tasks.action_space import bounded_dimensions
from metarl.tasks.batch import TaskBatch
from metarl.tasks.distribution import TaskDistribution
from metarl.tasks.task import SPLITS, Split, Task

NUM_TASKS = 4
NUM_STEPS = 25
SEED = 7


@dataclass(frozen=True)
class Trace:
    """One episode of every task: observations [T+1, n, O], rewards and ends [T, n]."""

    observations: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray

    @property
    def ended(self) -> np.ndarray:
        return self.terminated | self.truncated

    def equals(self, other: Trace) -> bool:
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return all(a.shape == b.shape and np.array_equal(a, b, equal_nan=True) for a, b in pairs)

    def row(self, i: int) -> Trace:
        """The episode of one task alone, n = 1."""
        return Trace(*(values[:, i : i + 1] for values in vars(self).values()))


def splits_of(distribution: TaskDistribution) -> tuple[Split, ...]:
    return tuple(split for split in SPLITS if split != "ood" or distribution.has_ood)


def some_tasks(distribution: TaskDistribution) -> tuple[Task, ...]:
    return distribution.sample("train", NUM_TASKS, SEED)


def actions_of(
    batch: TaskBatch, steps: int, seed: int = SEED, constant: bool = False, alike: bool = True
) -> list[np.ndarray]:
    """`steps` actions for every sub-environment, each in its own space: of the same random numbers in each where
    `alike`; one action throughout where `constant`."""
    for space in batch.action_spaces:
        space.seed(seed)
    rows = []
    for i, space in enumerate(batch.action_spaces):
        if not alike or i == 0 or space is not batch.action_spaces[0]:
            space.seed(seed if alike else seed + i)
            drawn = [np.asarray(space.sample()) for _ in range(1 if constant else steps)]
        rows.append(drawn * steps if constant else drawn)
    return [np.stack(step) for step in zip(*rows, strict=True)]


def other_actions(space: Box, actions: np.ndarray, dimension: int) -> np.ndarray:
    """Actions [n, A] with another number in one dimension: the middle of its range mirrored, or shifted by 1."""
    low, high, changed = space.low[dimension], space.high[dimension], actions.copy()
    values = actions[:, dimension].astype(np.float64)
    if bounded_dimensions(space)[dimension]:
        middle = 0.5 * (float(low) + float(high))
        values = np.where(values > middle, float(low), float(high))
    else:
        values = np.where(values + 1 <= high, values + 1, values - 1)
    changed[:, dimension] = values.clip(low, high).astype(actions.dtype)
    return changed


def rollout(
    batch: TaskBatch,
    steps: int = NUM_STEPS,
    seed: int = SEED,
    actions: Sequence[np.ndarray] | None = None,
    is_seeded: bool = True,
) -> Trace:
    """One episode of random actions, a function of (tasks, seed); a batch of one is seeded as a single environment.

    Where not `is_seeded` the reset continues with the randomness so far, as a user's own reset does.
    """
    obs, _ = batch.reset(seed=[seed] * batch.num_envs if is_seeded else None)
    observations, rewards, terminated, truncated = [np.array(obs)], [], [], []
    for action in actions or actions_of(batch, steps, seed):
        obs, reward, is_terminal, is_cut, _ = batch.step(action)
        observations.append(np.array(obs))
        rewards.append(np.array(reward, np.float64))
        terminated.append(np.array(is_terminal, bool))
        truncated.append(np.array(is_cut, bool))
    return Trace(np.array(observations), np.array(rewards), np.array(terminated), np.array(truncated))
