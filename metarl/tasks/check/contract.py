"""Checks of environments: what they answer, and that an episode is a function of task, seed and actions."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import gymnasium
import numpy as np
from gymnasium.spaces.utils import flatten
from gymnasium.utils.env_checker import check_env

from metarl.errors import TaskError
from metarl.tasks.action_space import require_action_space
from metarl.tasks.batch import EnvBatch
from metarl.tasks.check.declared_space import misfits
from metarl.tasks.check.remarks import require
from metarl.tasks.check.rollouts import (
    NUM_STEPS,
    NUM_TASKS,
    SEED,
    Trace,
    actions_of,
    rollout,
    some_tasks,
    splits_of,
)
from metarl.tasks.distribution import TaskDistribution
from metarl.tasks.environment import CheckedEnv
from metarl.tasks.success import successes_of_step
from metarl.tasks.task import Task


def check_environments_run(distribution: TaskDistribution) -> None:
    """Environments of several tasks are built, reset and stepped."""
    batch = distribution.make_batch(some_tasks(distribution))
    rollout(batch, steps=2)
    batch.close()


def check_gymnasium_api(distribution: TaskDistribution) -> None:
    """A single environment passes Gymnasium's own checker."""
    task = some_tasks(distribution)[0]
    env = CheckedEnv(distribution.make(task), task).env
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice such as normalising actions, not faults
        try:
            check_env(env, skip_render_check=True, skip_close_check=True)
        except AssertionError as error:
            raise TaskError(f"Gymnasium's checker: {error}{_misfit_at_reset(distribution, task)}") from error
        finally:
            env.close()


def _misfit_at_reset(distribution: TaskDistribution, task: Task) -> str:
    """What in the first observation its space does not allow; "" where it allows all."""
    env = distribution.make(task)
    found = next(misfits(env.observation_space, env.reset(seed=SEED)[0]), None)
    env.close()
    return "" if found is None else f" {found}"


def check_shapes(distribution: TaskDistribution) -> None:
    """Observations, rewards and flags of a batch have the shapes and types that its spaces promise."""
    tasks = some_tasks(distribution)
    batch = distribution.make_batch(tasks)
    n, space = len(tasks), batch.single_observation_space
    require(
        isinstance(space, gymnasium.spaces.Box) and len(space.shape) == 1, f"observations must be flat, got {space}"
    )
    for task, action_space in zip(tasks, batch.action_spaces, strict=True):
        require_action_space(action_space, task)
    require(batch.num_envs == n and batch.tasks == tasks, "a batch must hold its tasks in order")
    obs, _ = batch.reset(seed=SEED)
    _expect("reset: observation", obs, (n, *(space.shape or ())), np.floating)
    for action in actions_of(batch, 2):
        obs, reward, terminated, truncated, info = batch.step(action)
        _expect("observation", obs, (n, *(space.shape or ())), np.floating)
        _expect("reward", reward, (n,), np.floating)
        _expect("terminated", terminated, (n,), np.bool_)
        _expect("truncated", truncated, (n,), np.bool_)
        successes_of_step(info, tasks)
    batch.close()


def check_finite(distribution: TaskDistribution) -> None:
    """Observations and rewards are finite in float32 under random actions, in every split."""
    for split in splits_of(distribution):
        require_finite(distribution.sample(split, NUM_TASKS, SEED), distribution, NUM_STEPS)


def require_finite(tasks: Sequence[Task], distribution: TaskDistribution, steps: int) -> Trace:
    """One episode of `tasks`; TaskError naming task, step and dimension where a number is not finite in float32."""
    batch = distribution.make_batch(tasks)
    trace = rollout(batch, steps)
    batch.close()
    for what, values in (("observation", trace.observations), ("reward", trace.rewards[:, :, None])):
        with np.errstate(over="ignore"):
            bad = np.argwhere(~np.isfinite(values.astype(np.float32)))
        if len(bad):
            step, row, dimension = (int(i) for i in bad[0])
            where = f" in dimension {dimension}" if what == "observation" else ""
            raise TaskError(f"{tasks[row]}: {what} is not finite at step {step}{where}: {values[tuple(bad[0])]:.4g}")
    return trace


def check_determinism(distribution: TaskDistribution) -> None:
    """The same task, seed and actions give the same episode; the same task is the same world."""
    tasks = some_tasks(distribution)
    first, second = (rollout(distribution.make_batch(tasks)) for _ in range(2))
    require(
        first.equals(second),
        "the same tasks, seed and actions gave two different episodes: draw from `self.np_random` alone, which "
        "`reset(seed=...)` seeds, and keep nothing from former environments",
    )


def check_reset_keeps_task(distribution: TaskDistribution) -> None:
    """After other episodes, the same seed and actions give the first episode again, and `tasks` are the same."""
    tasks = some_tasks(distribution)
    batch = distribution.make_batch(tasks)
    first = rollout(batch)
    rollout(batch, seed=SEED + 1)
    batch.reset()
    require(batch.tasks == tasks, "`reset` changed the batch's tasks: they may change in `set_tasks` alone")
    require(
        rollout(batch).equals(first),
        "after `reset` the environment behaves as another task: put all state back in `reset`, and compute what varies "
        "from the model's own values, not from those of the last episode",
    )


def check_single_equals_batch(distribution: TaskDistribution) -> None:
    """`make(task)` and `make_batch([task])` are the same environment."""
    task = some_tasks(distribution)[0]
    batch, env = distribution.make_batch([task]), distribution.make(task)
    trace = rollout(batch)
    obs, _ = env.reset(seed=SEED)
    single = [flatten(env.observation_space, obs)]
    rewards: list[float] = []
    for action in actions_of(batch, NUM_STEPS):
        if rewards and bool(trace.ended[len(rewards) - 1, 0]):
            break
        obs, reward, *_ = env.step(action[0])
        single.append(flatten(env.observation_space, obs))
        rewards.append(float(reward))
    same = np.array_equal(np.array(single, np.float64), trace.observations[: len(single), 0], equal_nan=True)
    same = same and np.array_equal(rewards, trace.rewards[: len(rewards), 0], equal_nan=True)
    require(
        same,
        f"{task}: `make` and `make_batch` give different episodes for the same seed and actions: both must use the "
        "task in the same way",
    )
    env.close()
    batch.close()


def check_batch_equals_each_alone(distribution: TaskDistribution) -> None:
    """Side by side, with actions of their own, several tasks behave as each does alone: they share no state."""
    tasks = some_tasks(distribution)
    batch = distribution.make_batch(tasks)
    actions = actions_of(batch, NUM_STEPS, alike=False)
    together = rollout(batch, actions=actions)
    batch.close()
    for i, task in enumerate(tasks):
        # Batches of one generator draw by position: there, compare with a batch of the same size.
        is_generic = isinstance(batch, EnvBatch)
        alone = distribution.make_batch([task] if is_generic else [task] * len(tasks))
        mine = slice(i, i + 1) if is_generic else slice(None)
        trace = rollout(alone, actions=[action[mine] for action in actions]).row(0 if is_generic else i)
        alone.close()
        require(
            trace.equals(together.row(i)),
            f"{task} behaves otherwise beside {tasks[i - 1]} than alone: their environments share state, such as a "
            "module's or a class's variable; keep it in `self`",
        )


def check_set_tasks_equals_fresh_batch(distribution: TaskDistribution) -> None:
    """A batch that held other tasks before behaves as one built anew."""
    old, new = some_tasks(distribution), distribution.sample("train", NUM_TASKS, SEED + 1)
    batch = distribution.make_batch(old)
    rollout(batch)
    batch.set_tasks(new)
    require(batch.tasks == new, "`set_tasks` did not set `tasks`")
    require(
        rollout(batch).equals(rollout(distribution.make_batch(new))),
        "tasks set before leave traces in later ones: compute what varies from the model's own values",
    )


def check_finished_stay_finished(distribution: TaskDistribution) -> None:
    """A finished sub-environment keeps observation and flags and earns 0, whatever its action, until a reset."""
    tasks = some_tasks(distribution)
    batch = distribution.make_batch(tasks)
    steps = min(distribution.horizon, 100)
    trace = rollout(batch, steps=steps)
    for i, ended in enumerate(trace.ended.T):
        if not ended.any():
            continue
        last = int(np.argmax(ended))
        require(bool(ended[last:].all()), f"{tasks[i]}: ended at step {last}, then ran on without a reset")
        require(not trace.rewards[last + 1 :, i].any(), f"{tasks[i]}: earned a reward after its end at step {last}")
        still = trace.observations[last + 2 :, i] == trace.observations[last + 1, i]
        require(bool(still.all()), f"{tasks[i]}: its observation moved after its end at step {last}")
    again = rollout(batch, steps=1)
    require(np.array_equal(again.ended, trace.ended[:1]), "a reset after the end did not start a new episode")


ENVIRONMENT_CHECKS: tuple[Callable[[TaskDistribution], None], ...] = (
    check_gymnasium_api,
    check_shapes,
    check_finite,
    check_determinism,
    check_reset_keeps_task,
    check_single_equals_batch,
    check_batch_equals_each_alone,
    check_set_tasks_equals_fresh_batch,
    check_finished_stay_finished,
)


def _expect(what: str, array: object, shape: tuple[int, ...], kind: type[np.generic]) -> None:
    got = np.asarray(array)
    require(
        got.shape == shape and np.issubdtype(got.dtype, kind),
        f"{what} must have shape {shape} and be {kind.__name__}, got {got.shape} {got.dtype}",
    )
