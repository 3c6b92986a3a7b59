"""Checks of declared variations: what resets leave in the model, and what variation costs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium.spaces import Discrete

from metarl.errors import TaskError
from metarl.tasks.batch import TaskBatch
from metarl.tasks.check.remarks import Remark
from metarl.tasks.check.rollouts import SEED, actions_of, rollout, some_tasks
from metarl.tasks.distribution import TaskDistribution
from metarl.tasks.indexed_actions import indexed_actions_of

_SECONDS = 0.5  # of stepping, each way
_COSTLY = 1.1


def check_fields_after_resets(distribution: TaskDistribution) -> list[Remark]:
    """After resets, and after other tasks, the model's fields are what the tasks say: nothing is lost or compounded."""
    if not hasattr(distribution, "expected_fields"):
        return []
    family: Any = distribution
    tasks, others = some_tasks(distribution), distribution.sample("train", 4, SEED + 1)
    batch = distribution.make_batch(tasks)
    expected = family.expected_fields(tasks)
    for when in ("the first reset", "the second reset", "the third reset"):
        rollout(batch, steps=min(3, distribution.horizon))
        batch.reset()
        _require_equal(family.fields_in(batch), expected, tasks, f"after {when}")
    batch.set_tasks(others)
    batch.set_tasks(tasks)
    batch.reset()
    _require_equal(family.fields_in(batch), expected, tasks, "after other tasks were set")
    batch.close()
    return [Remark(f"{', '.join(expected)}: the same after three resets and after other tasks")] if expected else []


def _require_equal(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], tasks: Any, when: str) -> None:
    for field, values in expected.items():
        wrong = ~np.isclose(found[field], values, rtol=1e-12, atol=0.0)
        if wrong.any():
            row = int(np.argwhere(wrong)[0][0])
            raise TaskError(
                f"{tasks[row]}: {field} is {found[field][wrong][0]:.6g} {when}, the task says {values[wrong][0]:.6g}: "
                "something else edits the model too; leave that to `vary`"
            )


def check_speed(distribution: TaskDistribution) -> list[Remark]:
    """How many steps per second variants make, against the unvaried environment: a remark, never a failure."""
    if not hasattr(distribution, "unvaried"):
        return []
    family: Any = distribution
    tasks = distribution.sample("train", 100 if family.is_native else 4, SEED)
    batches = [made.make_batch(tasks) for made in (distribution, family.unvaried())]
    varied, plain = (_rate(batch, distribution.horizon) for batch in batches)
    for batch in batches:
        batch.close()
    cost = plain / varied
    text = f"{varied:,.0f} steps/s, unvaried {plain:,.0f} ({family.path_taken})"
    return [Remark(f"{text}: variation costs {cost - 1:.0%}", True) if cost > _COSTLY else Remark(text)]


def _rate(batch: TaskBatch, horizon: int) -> float:
    """Steps per second of processor time, the fastest of some episodes, while half of them or more are running."""
    actions = actions_of(batch, min(horizon, 50))
    best, end = 0.0, time.perf_counter() + _SECONDS
    while not best or time.perf_counter() < end:
        batch.reset(seed=[SEED] * batch.num_envs)
        start, steps, running = time.process_time(), 0, batch.num_envs
        for action in actions:
            terminated, truncated = batch.step(action)[2:4]
            steps += running
            running = int((~(terminated | truncated)).sum())
            if 2 * running < batch.num_envs:
                break
        best = max(best, steps / max(time.process_time() - start, 1e-6))
    return best


def check_first_actions(distribution: TaskDistribution) -> list[Remark]:
    """What a robot with discrete actions gets until the first delayed one arrives."""
    body = getattr(distribution, "body", None)
    delays = [d for d in getattr(body, "declared", ()) if d.kind == "action_delay" and d.ends[1] > 0]
    if not delays:
        return []
    env = distribution.make(some_tasks(distribution)[0])
    space, indexed = env.action_space, indexed_actions_of(env)
    env.close()
    if not isinstance(space, Discrete):
        return []
    first = int(space.start) if indexed is None else indexed.action(0).tolist()
    return [
        Remark(
            f"effects.{delays[0].name}: until the first action arrives the robot gets the first action of its space, "
            f"{first}: discrete actions have no known rest"
        )
    ]


VARIATION_CHECKS: tuple[Callable[[TaskDistribution], list[Remark]], ...] = (
    check_fields_after_resets,
    check_first_actions,
    check_speed,
)
