"""Families whose dynamics are a few array operations: one state array for the whole batch, no loop over environments.

A family writes its equations once, over a leading batch axis n; the single environment is a batch of one.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np

from metarl.errors import TaskError
from metarl.tasks.batch import SingleTaskEnv, TaskBatch
from metarl.tasks.distribution import TaskDistribution, require_horizon
from metarl.tasks.task import Task, TaskParams, params_of


class ArrayTaskDistribution(TaskDistribution):
    """A family on a state array [n, S]. Subclasses set the spaces and `parameters`, and state the equations.

    `params[name]` holds the tasks' values, [n] or [n, size]. Episodes end at the horizon alone.
    """

    single_observation_space: gymnasium.spaces.Box
    single_action_space: gymnasium.Space

    def __init__(self, horizon: int):
        require_horizon(self, horizon)
        self.horizon = horizon

    @abstractmethod
    def initial_state(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """States [n, S] at the start of an episode."""

    @abstractmethod
    def transition(
        self, rng: np.random.Generator, state: np.ndarray, action: np.ndarray, params: TaskParams
    ) -> tuple[np.ndarray, np.ndarray]:
        """Next states [n, S] as a new array and rewards [n]; `action` is [n, A], or [n] where discrete."""

    def observe(self, state: np.ndarray) -> np.ndarray:
        """Observations [n, O] as a new array; the state itself unless overridden."""
        return state.copy()

    def picture(self, path: np.ndarray, task: Task) -> np.ndarray | None:
        """An RGB picture [height, width, 3] uint8 of an episode so far: its states `path` [steps + 1, S]; None where
        the family has none."""
        return None

    def make(self, task: Task, render_mode: str | None = None) -> gymnasium.Env:
        batch = ArrayBatch(self, [task])
        draws = render_mode == "rgb_array" and batch.render_frame() is not None
        return SingleTaskEnv(batch, render=batch.render_frame if draws else None)

    def make_batch(self, tasks: Sequence[Task]) -> TaskBatch:
        return ArrayBatch(self, tasks)


class ArrayBatch(TaskBatch):
    """All tasks' states in one array."""

    def __init__(self, family: ArrayTaskDistribution, tasks: Sequence[Task]):
        if not tasks:
            raise TaskError("a batch needs at least one task")
        self._family = family
        self._set_spaces(family.single_observation_space, family.single_action_space, len(tasks))
        self.set_tasks(tasks)
        self._state = family.initial_state(np.random.Generator(np.random.Philox(0)), self.num_envs)
        self._path: list[np.ndarray] | None = None  # kept from the first picture on

    def set_tasks(self, tasks: Sequence[Task]) -> None:
        if len(tasks) != self.num_envs:
            raise TaskError(f"this batch holds {self.num_envs} tasks, got {len(tasks)}")
        self.tasks = tuple(tasks)
        self._params = params_of(tasks)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Reset (the masked) states; all draws, of later steps too, come from one generator seeded by `seed`."""
        mask = self._reset_mask(options, self.num_envs)
        fresh = self._family.initial_state(self._generator(seed), self.num_envs)
        self._state = np.where(mask[:, None], fresh, self._state)
        if self._path is not None:
            self._path = [self._state]
        return self._family.observe(self._state), {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        rng = self._generator(None)
        self._state, rewards = self._family.transition(rng, self._state, np.asarray(actions), self._params)
        if self._path is not None:
            self._path.append(self._state)
        return self._family.observe(self._state), rewards, self._terminated.copy(), self._truncated.copy(), {}

    def render_frame(self, index: int = 0) -> np.ndarray | None:
        """The family's picture of an episode: of all its states since the last reset, where one was asked for before
        that reset, else of the present state alone."""
        if self._path is None:
            self._path = [self._state]
        return self._family.picture(np.stack([state[index] for state in self._path]), self.tasks[index])
