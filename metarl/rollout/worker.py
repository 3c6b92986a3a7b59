"""What every worker does with a unit, whichever process it is in."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import gymnasium
import numpy as np
from threadpoolctl import threadpool_limits

from metarl.errors import EnvironmentFault, MetarlError, TaskError
from metarl.kernels.parallel import torch_threads
from metarl.plugins import describe
from metarl.rollout import seeds
from metarl.rollout.collect import collect_trials
from metarl.rollout.policy import AdaptivePolicy
from metarl.rollout.spaces import Spaces
from metarl.rollout.types import TrialBatch, Unit, Weights
from metarl.tasks import Task, TaskDistribution
from metarl.tasks.batch import TaskBatch


class UnitRunner:
    """Runs units of one task distribution with one policy; keeps built environments for the next unit."""

    def __init__(self, distribution: TaskDistribution, policy: AdaptivePolicy[Any]):
        self._distribution, self._policy = distribution, policy
        self._batches: dict[int, TaskBatch] = {}
        self._spaces = None if distribution.spaces is None else Spaces.of(*distribution.spaces)

    def run(self, unit: Unit, weights: Weights, version: int) -> TrialBatch:
        """Collect the unit's trials. What its environments raise comes as EnvironmentFault with the task's name."""
        env_rng, policy_rng = seeds.generators(unit.seed)
        try:
            with single_threaded():
                rounds = collect_trials(
                    self._policy,
                    weights,
                    GuardedBatch(self._batch(unit)),
                    unit.plan,
                    env_rng,
                    policy_rng,
                )
        except BaseException:
            with contextlib.suppress(Exception):
                self.close()
            self._batches = {}  # a half-run environment is in no known state
            raise
        return TrialBatch(unit.index, unit.tasks, rounds, version)

    def _batch(self, unit: Unit) -> TaskBatch:
        tasks = [task for task in unit.tasks for _ in range(unit.plan.num_streams)]
        if len(tasks) not in self._batches:
            if len(self._batches) == 2:  # whole units, and the last one of what remained
                self.close()
            self._batches[len(tasks)] = self._build(tasks)
        else:  # also where the tasks are the same: nothing of the unit before may remain
            with environment_faults(tasks, "setting the task"):
                self._batches[len(tasks)].set_tasks(tasks)
            self._check_spaces(self._batches[len(tasks)])
        return self._batches[len(tasks)]

    def _build(self, tasks: Sequence[Task]) -> TaskBatch:
        try:
            with environment_faults(tasks, "building the environment"):
                batch = self._distribution.make_batch(tasks)
            self._check_spaces(batch)
            return batch
        except EnvironmentFault:
            distinct = tuple(dict.fromkeys(tasks))
            for task in distinct if len(distinct) > 1 else ():  # which of them is it?
                with environment_faults([task], "building the environment"):
                    self._distribution.make_batch([task]).close()
            raise

    def _check_spaces(self, batch: TaskBatch) -> None:
        """One policy serves all units: TaskError where a batch's spaces are not those stated, or those before."""
        found = Spaces.of(batch.single_observation_space, batch.single_action_space)
        if self._spaces is None:
            self._spaces = found
        if self._spaces != found:
            before = "states spaces of" if self._distribution.spaces is not None else "built before"
            raise TaskError(f"{self._distribution.name} {before} {self._spaces}, but builds {found}: {batch.tasks[0]}")

    def close(self) -> None:
        for batch in self._batches.values():
            batch.close()
        self._batches = {}


class GuardedBatch(TaskBatch):
    """A batch whose exceptions and wrong shapes come as EnvironmentFault naming its task, or its tasks."""

    def __init__(self, batch: TaskBatch):
        self._batch, self.tasks, self.num_envs = batch, batch.tasks, batch.num_envs
        self.metadata = batch.metadata
        self.single_observation_space = batch.single_observation_space
        self.single_action_space = batch.single_action_space
        self._obs_shape = (batch.num_envs, *(batch.single_observation_space.shape or ()))

    @property
    def action_spaces(self) -> tuple[gymnasium.Space, ...]:
        return self._batch.action_spaces

    def set_tasks(self, tasks: Sequence[Task]) -> None:
        with environment_faults(tasks, "setting the task"):
            self._batch.set_tasks(tasks)
        self.tasks = self._batch.tasks

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        with environment_faults(self.tasks, "reset"):
            obs, info = self._batch.reset(seed=seed, options=options)
            self._check("observations", obs, self._obs_shape)
        return obs, info

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        with environment_faults(self.tasks, "step"):
            obs, rewards, terminated, truncated, info = self._batch.step(actions)
            self._check("observations", obs, self._obs_shape)
            for what, array in (("rewards", rewards), ("terminated", terminated), ("truncated", truncated)):
                self._check(what, array, (self.num_envs,))
        return obs, rewards, terminated, truncated, info

    def render_frame(self, index: int = 0) -> np.ndarray | None:
        with environment_faults([self.tasks[index]], "render"):
            return self._batch.render_frame(index)

    @staticmethod
    def _check(what: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
        if array.shape != shape:
            raise ValueError(f"{what} have shape {array.shape}, must be {shape}")

    def close_extras(self, **kwargs: Any) -> None:
        self._batch.close_extras(**kwargs)


class environment_faults:  # noqa: N801  (a class, because a generator costs more than the physics of a small step)
    """Context manager: what is raised inside comes as EnvironmentFault, `doing` failed on these tasks.

    The message keeps the file and line in the user's code. Errors of this platform and Ctrl-C pass unchanged.
    """

    __slots__ = ("doing", "tasks")

    def __init__(self, tasks: Sequence[Task], doing: str):
        self.tasks, self.doing = tasks, doing

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if error is None or isinstance(error, MetarlError | EnvironmentFault):
            return
        if not isinstance(error, Exception | SystemExit):
            return
        distinct = list(dict.fromkeys(map(str, self.tasks)))
        who = distinct[0] if len(distinct) == 1 else f"one of {len(distinct)} tasks ({'; '.join(distinct[:4])}; ...)"
        raise EnvironmentFault(f"{who}: {self.doing} raised {describe(error)}") from error


@contextmanager
def time_limit(seconds: float, tasks: Sequence[Task], doing: str) -> Iterator[None]:
    """What takes longer inside is interrupted: EnvironmentFault, `doing` hung on these tasks.

    By SIGALRM, so only in the main thread, and only while Python or a system call runs: without effect elsewhere.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getitimer(signal.ITIMER_REAL)[0]:
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise EnvironmentFault(f"{tasks[0]}: {doing} did not end within {seconds:g} s")

    former = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


@contextmanager
def single_threaded() -> Iterator[None]:
    """One BLAS and one torch thread inside: results then do not depend on the worker's processor count.

    The physics thread pool is not touched; its result never depends on its size.
    """
    with torch_threads(1), threadpool_limits(1):
        yield
