"""Checks that a task distribution keeps its contract: for built-in families, and for a stranger's plug-in.

Each check is a function of the distribution that raises TaskError saying what is wrong. They use only the
public interface, a few tasks and short episodes.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import gymnasium
import numpy as np
from gymnasium.spaces.utils import flatten
from gymnasium.utils.env_checker import check_env

from metarl.errors import TaskError
from metarl.tasks.batch import TaskBatch
from metarl.tasks.distribution import TaskDistribution
from metarl.tasks.task import SPLITS, Split, Task

_NUM_TASKS = 4
_NUM_STEPS = 25
_SEED = 7


@dataclass(frozen=True)
class CheckResult:
    """The outcome of one check; `message` says what is wrong where it did not pass."""

    name: str
    passed: bool
    message: str = ""


@dataclass(frozen=True)
class _Trace:
    """One episode of every task: observations [T+1, n, O], rewards and ends [T, n]."""

    observations: np.ndarray
    rewards: np.ndarray
    ended: np.ndarray

    def equals(self, other: _Trace) -> bool:
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return all(a.shape == b.shape and np.array_equal(a, b, equal_nan=True) for a, b in pairs)


def check_distribution(distribution: TaskDistribution) -> list[CheckResult]:
    """The result of every check, in order. An exception of the plug-in counts as a failed check."""
    return [_run(check, distribution) for check in CHECKS]


def _run(check: Callable[[TaskDistribution], None], distribution: TaskDistribution) -> CheckResult:
    name = check.__name__.removeprefix("check_").replace("_", " ")
    try:
        check(distribution)
    except TaskError as error:
        return CheckResult(name, False, str(error))
    except Exception as error:
        return CheckResult(name, False, f"{type(error).__name__}: {error}")
    return CheckResult(name, True)


# --- tasks -------------------------------------------------------------------------------------------


def check_description(distribution: TaskDistribution) -> None:
    """Name, version, horizon, parameter names and anchors are what they should be."""
    name = getattr(distribution, "name", None)
    _require(
        isinstance(name, str) and bool(name), f"{type(distribution).__name__}: `name` must be a string, got {name!r}"
    )
    _require(
        isinstance(distribution.horizon, int) and distribution.horizon >= 1, "`horizon` must be a positive integer"
    )
    names = [parameter.name for parameter in distribution.parameters]
    _require(bool(names), f"{name}: needs at least one parameter")
    _require(len(set(names)) == len(names), f"{name}: parameter names must differ, got {names}")
    anchors = distribution.anchors
    figures = [f for f in (anchors.nothing, anchors.task_blind, anchors.expert) if f is not None]
    _require(all(np.isfinite(f) for f in figures), f"{name}: anchors must be finite, got {anchors}")
    _require(not figures or bool(anchors.source), f"{name}: anchors need a source")


def check_pickling(distribution: TaskDistribution) -> None:
    """A distribution that went through pickle draws the same tasks, and its tasks are equal."""
    copy = pickle.loads(pickle.dumps(distribution))
    tasks = distribution.sample("train", _NUM_TASKS, _SEED)
    _require(copy.sample("train", _NUM_TASKS, _SEED) == tasks, "a pickled copy draws other tasks from the same seed")
    _require(pickle.loads(pickle.dumps(tasks)) == tasks, "a pickled task differs from itself")


def check_sampling(distribution: TaskDistribution) -> None:
    """Tasks are a function of (split, seed), a short draw begins a long one, and each belongs to its split."""
    for split in _splits(distribution):
        tasks = distribution.sample(split, 8, _SEED)
        _require(distribution.sample(split, 8, _SEED) == tasks, f"{split}: the same seed drew other tasks")
        _require(distribution.sample(split, 3, _SEED) == tasks[:3], f"{split}: a short draw is no prefix of a long one")
        if distribution.finite_tasks() is None:
            _require(distribution.sample(split, 8, _SEED + 1) != tasks, f"{split}: another seed drew the same tasks")
        for task in tasks:
            _require(split in distribution.split_of(task), f"{task} was drawn for {split}, but does not belong to it")
            _require(distribution.task(**task.values) == task, f"{task}: `task` does not give it back")


def check_disjoint_splits(distribution: TaskDistribution) -> None:
    """No task belongs to two splits, unless the family says that train and test coincide."""
    drawn: dict[Split, set[Task]] = {s: set(distribution.sample(s, 32, _SEED)) for s in _splits(distribution)}
    allowed = {"train", "test"} if distribution.splits_coincide else set()
    for first in drawn:
        for second in drawn:
            if first != second and not {first, second} <= allowed:
                common = drawn[first] & drawn[second]
                _require(not common, f"{first} and {second} share {next(iter(common), None)}")


def check_ood_outside_training_range(distribution: TaskDistribution) -> None:
    """Every out-of-distribution task has a parameter outside its training prior."""
    if not distribution.has_ood:
        return
    for task in distribution.sample("ood", 32, _SEED):
        inside = [p.prior.contains(task[p.name]) for p in distribution.parameters]
        _require(not all(inside), f"{task} was drawn as ood but lies inside the training range")


# --- environments ------------------------------------------------------------------------------------


def check_gymnasium_api(distribution: TaskDistribution) -> None:
    """A single environment passes Gymnasium's own checker."""
    env = distribution.make(_tasks(distribution)[0])
    _require(isinstance(env, gymnasium.Env), f"`make` must give a gymnasium.Env, got {type(env).__name__}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice such as normalising actions, not faults
        try:
            check_env(env, skip_render_check=True, skip_close_check=True)
        except AssertionError as error:
            raise TaskError(f"Gymnasium's checker: {error}") from error
        finally:
            env.close()


def check_shapes(distribution: TaskDistribution) -> None:
    """Observations, rewards and flags of a batch have the shapes and types that its spaces promise."""
    tasks = _tasks(distribution)
    batch = distribution.make_batch(tasks)
    n, space = len(tasks), batch.single_observation_space
    _require(
        isinstance(space, gymnasium.spaces.Box) and len(space.shape) == 1, f"observations must be flat, got {space}"
    )
    allowed = gymnasium.spaces.Box | gymnasium.spaces.Discrete
    _require(
        isinstance(batch.single_action_space, allowed), f"actions must be Box or Discrete, got {batch.action_space}"
    )
    _require(batch.num_envs == n and batch.tasks == tasks, "a batch must hold its tasks in order")
    obs, _ = batch.reset(seed=_SEED)
    _expect("reset: observation", obs, (n, *(space.shape or ())), np.floating)
    for action in _actions(batch, 2):
        obs, reward, terminated, truncated, _ = batch.step(action)
        _expect("observation", obs, (n, *(space.shape or ())), np.floating)
        _expect("reward", reward, (n,), np.floating)
        _expect("terminated", terminated, (n,), np.bool_)
        _expect("truncated", truncated, (n,), np.bool_)
    batch.close()


def check_finite(distribution: TaskDistribution) -> None:
    """No NaN and no infinity in observations or rewards under random actions, in every split."""
    for split in _splits(distribution):
        tasks = distribution.sample(split, _NUM_TASKS, _SEED)
        trace = _rollout(distribution.make_batch(tasks))
        for what, values in (("observation", trace.observations), ("reward", trace.rewards[:, :, None])):
            bad = np.argwhere(~np.isfinite(values).all(axis=2))
            if len(bad):
                raise TaskError(f"{tasks[bad[0][1]]}: {what} is not finite at step {bad[0][0]}")


def check_determinism(distribution: TaskDistribution) -> None:
    """The same task, seed and actions give the same episode; the same task is the same world."""
    tasks = _tasks(distribution)
    first, second = (_rollout(distribution.make_batch(tasks)) for _ in range(2))
    _require(first.equals(second), "the same tasks, seed and actions gave two different episodes")


def check_reset_keeps_task(distribution: TaskDistribution) -> None:
    """After other episodes, the same seed and actions give the first episode again, and `tasks` are the same."""
    tasks = _tasks(distribution)
    batch = distribution.make_batch(tasks)
    first = _rollout(batch)
    _rollout(batch, seed=_SEED + 1)
    batch.reset()
    _require(batch.tasks == tasks, "`reset` changed the batch's tasks")
    _require(_rollout(batch).equals(first), "after `reset` the environment behaves as another task")


def check_tasks_differ(distribution: TaskDistribution) -> None:
    """Some two tasks differ in a reward or an observation under the same seed and actions."""
    tasks = tuple(dict.fromkeys(distribution.sample("train", 16, _SEED)))
    steps = min(distribution.horizon, 100)
    for attempt in range(16):
        traces = []
        for task in tasks:
            batch = distribution.make_batch([task])
            traces.append(_rollout(batch, steps=steps, seed=attempt, constant=attempt % 2 == 0))
            batch.close()
        if any(not trace.equals(traces[0]) for trace in traces[1:]):
            return
    raise TaskError(f"{len(tasks)} different tasks gave the same rewards and observations: parameters have no effect")


def check_single_equals_batch(distribution: TaskDistribution) -> None:
    """`make(task)` and `make_batch([task])` are the same environment."""
    task = _tasks(distribution)[0]
    batch, env = distribution.make_batch([task]), distribution.make(task)
    trace = _rollout(batch)
    obs, _ = env.reset(seed=_SEED)
    single = [flatten(env.observation_space, obs)]
    rewards: list[float] = []
    for action in _actions(batch, _NUM_STEPS):
        if rewards and bool(trace.ended[len(rewards) - 1, 0]):
            break
        obs, reward, *_ = env.step(action[0])
        single.append(flatten(env.observation_space, obs))
        rewards.append(float(reward))
    same = np.array_equal(np.array(single, np.float64), trace.observations[: len(single), 0], equal_nan=True)
    same = same and np.array_equal(rewards, trace.rewards[: len(rewards), 0], equal_nan=True)
    _require(same, f"{task}: `make` and `make_batch` give different episodes for the same seed and actions")
    env.close()
    batch.close()


def check_set_tasks_equals_fresh_batch(distribution: TaskDistribution) -> None:
    """A batch that held other tasks before behaves as one built anew."""
    old, new = _tasks(distribution), distribution.sample("train", _NUM_TASKS, _SEED + 1)
    batch = distribution.make_batch(old)
    _rollout(batch)
    batch.set_tasks(new)
    _require(batch.tasks == new, "`set_tasks` did not set `tasks`")
    _require(
        _rollout(batch).equals(_rollout(distribution.make_batch(new))), "tasks set before leave traces in later ones"
    )


def check_finished_stay_finished(distribution: TaskDistribution) -> None:
    """A finished sub-environment keeps observation and flags and earns 0, whatever its action, until a reset."""
    tasks = _tasks(distribution)
    batch = distribution.make_batch(tasks)
    steps = min(distribution.horizon, 100)
    trace = _rollout(batch, steps=steps)
    for i, ended in enumerate(trace.ended.T):
        if not ended.any():
            continue
        last = int(np.argmax(ended))
        _require(bool(ended[last:].all()), f"{tasks[i]}: ended at step {last}, then ran on without a reset")
        _require(not trace.rewards[last + 1 :, i].any(), f"{tasks[i]}: earned a reward after its end at step {last}")
        still = trace.observations[last + 2 :, i] == trace.observations[last + 1, i]
        _require(bool(still.all()), f"{tasks[i]}: its observation moved after its end at step {last}")
    again = _rollout(batch, steps=1)
    _require(np.array_equal(again.ended, trace.ended[:1]), "a reset after the end did not start a new episode")


CHECKS: tuple[Callable[[TaskDistribution], None], ...] = (
    check_description,
    check_pickling,
    check_sampling,
    check_disjoint_splits,
    check_ood_outside_training_range,
    check_gymnasium_api,
    check_shapes,
    check_finite,
    check_determinism,
    check_reset_keeps_task,
    check_tasks_differ,
    check_single_equals_batch,
    check_set_tasks_equals_fresh_batch,
    check_finished_stay_finished,
)


# --- helpers -----------------------------------------------------------------------------------------


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise TaskError(message)


def _expect(what: str, array: object, shape: tuple[int, ...], kind: type[np.generic]) -> None:
    got = np.asarray(array)
    _require(
        got.shape == shape and np.issubdtype(got.dtype, kind),
        f"{what} must have shape {shape} and be {kind.__name__}, got {got.shape} {got.dtype}",
    )


def _splits(distribution: TaskDistribution) -> tuple[Split, ...]:
    return tuple(split for split in SPLITS if split != "ood" or distribution.has_ood)


def _tasks(distribution: TaskDistribution) -> tuple[Task, ...]:
    return distribution.sample("train", _NUM_TASKS, _SEED)


def _actions(batch: TaskBatch, steps: int, seed: int = _SEED, constant: bool = False) -> Sequence[np.ndarray]:
    """`steps` actions for every sub-environment, the same in each; one action throughout where `constant`."""
    space = batch.single_action_space
    space.seed(seed)
    drawn = [np.asarray(space.sample())] * steps if constant else [np.asarray(space.sample()) for _ in range(steps)]
    return [np.repeat(action[None], batch.num_envs, axis=0) for action in drawn]


def _rollout(batch: TaskBatch, steps: int = _NUM_STEPS, seed: int = _SEED, constant: bool = False) -> _Trace:
    """One episode of random actions, a function of (tasks, seed); a batch of one is seeded as a single environment."""
    obs, _ = batch.reset(seed=[seed] * batch.num_envs)
    observations, rewards, ended = [np.array(obs)], [], []
    for action in _actions(batch, steps, seed, constant):
        obs, reward, terminated, truncated, _ = batch.step(action)
        observations.append(np.array(obs))
        rewards.append(np.array(reward, np.float64))
        ended.append(np.asarray(terminated) | np.asarray(truncated))
    return _Trace(np.array(observations), np.array(rewards), np.array(ended))
