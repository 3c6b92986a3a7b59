"""Batched environments of tasks: Gymnasium vector environments without autoreset.

A finished sub-environment ignores its action until the next reset (Gymnasium's own vector
environments assert there): its observation stays, its reward is 0 and its flags stay as they were.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces.utils import flatdim, flatten
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from metarl.errors import EnvironmentFault, TaskError
from metarl.tasks.task import Task


class TaskBatch(VectorEnv):
    """num_envs environments, one task each. Observations are flat float arrays [num_envs, O]."""

    tasks: tuple[Task, ...]
    _rng: np.random.Generator | None = None

    def _set_spaces(
        self, observation: gymnasium.Space, action: gymnasium.Space, num_envs: int, render_fps: int = 20
    ) -> None:
        self.metadata = {"autoreset_mode": AutoresetMode.DISABLED, "render_fps": render_fps}
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = observation, action
        self.observation_space = batch_space(observation, num_envs)
        self.action_space = batch_space(action, num_envs)
        self._terminated = np.zeros(num_envs, dtype=bool)
        self._truncated = np.zeros(num_envs, dtype=bool)

    @abstractmethod
    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """First observations [num_envs, O] and an info dict. `options={"reset_mask": [num_envs]}` resets only those."""

    @abstractmethod
    def set_tasks(self, tasks: Sequence[Task]) -> None:
        """Give every sub-environment a new task; as many tasks as before. The next call must be `reset`."""

    def _generator(self, seed: int | Sequence[int | None] | None) -> np.random.Generator:
        """One generator for all draws of the batch: anew from `seed` (an int, or several ints), else the one so far."""
        if seed is not None or self._rng is None:
            entropy = seed if seed is None or isinstance(seed, int | np.integer) else [s for s in seed if s is not None]
            self._rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy)))
        return self._rng

    @staticmethod
    def _reset_mask(options: dict[str, Any] | None, num_envs: int) -> np.ndarray:
        mask = (options or {}).get("reset_mask")
        return np.ones(num_envs, dtype=bool) if mask is None else np.asarray(mask, dtype=bool)


class EnvBatch(TaskBatch):
    """Any Gymnasium environments in one batch, stepped one after the other in this process.

    Observations of any space are flattened; action spaces may be Box or Discrete.
    """

    def __init__(self, make: Callable[[Task], gymnasium.Env], tasks: Sequence[Task]):
        self._make = make
        self._envs: list[gymnasium.Env] = []
        self.set_tasks(tasks)
        first = self._envs[0]
        if not isinstance(first.action_space, gymnasium.spaces.Box | gymnasium.spaces.Discrete):
            raise TaskError(f"{tasks[0]}: action space must be Box or Discrete, got {first.action_space}")
        dim = flatdim(first.observation_space)
        observation = gymnasium.spaces.Box(-np.inf, np.inf, (dim,), np.float64)
        self._set_spaces(observation, first.action_space, len(self.tasks))
        self._obs = np.zeros((self.num_envs, dim))

    def set_tasks(self, tasks: Sequence[Task]) -> None:
        if not tasks:
            raise TaskError("a batch needs at least one task")
        if self._envs and len(tasks) != len(self._envs):
            raise TaskError(f"this batch holds {len(self._envs)} tasks, got {len(tasks)}")
        self.close_extras()
        self.tasks = tuple(tasks)
        self._envs = [self._make(task) for task in self.tasks]

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        seeds = _spread(seed, self.num_envs)
        for i in np.flatnonzero(self._reset_mask(options, self.num_envs)).tolist():
            try:
                obs, _ = self._envs[i].reset(seed=seeds[i])
                self._store(i, obs)
            except Exception as error:
                raise self._fault(i, "reset", error) from error
            self._terminated[i] = self._truncated[i] = False
        return self._obs.copy(), {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        rewards = np.zeros(self.num_envs)
        for i in np.flatnonzero(~(self._terminated | self._truncated)).tolist():
            try:
                obs, reward, terminated, truncated, _ = self._envs[i].step(actions[i])
                self._store(i, obs)
                rewards[i] = float(reward)
            except Exception as error:
                raise self._fault(i, "step", error) from error
            self._terminated[i], self._truncated[i] = bool(terminated), bool(truncated)
        return self._obs.copy(), rewards, self._terminated.copy(), self._truncated.copy(), {}

    def _store(self, i: int, obs: Any) -> None:
        flat = np.asarray(flatten(self._envs[i].observation_space, obs), dtype=np.float64)
        if flat.shape != self._obs[i].shape:
            raise ValueError(f"observation has shape {flat.shape}, its space says {self._obs[i].shape}")
        self._obs[i] = flat

    def _fault(self, i: int, doing: str, error: Exception) -> EnvironmentFault:
        return EnvironmentFault(f"{self.tasks[i]}: {doing} raised {type(error).__name__}: {error}")

    def close_extras(self, **kwargs: Any) -> None:
        for env in self._envs:
            env.close()
        self._envs = []


class SingleTaskEnv(gymnasium.Env):
    """One environment seen as an ordinary Gymnasium environment: a batch of one, the same code."""

    def __init__(self, batch: TaskBatch, render: Callable[[], np.ndarray] | None = None):
        self._batch, self._render = batch, render
        render_fps = batch.metadata.get("render_fps", 20)
        self.metadata = {"render_modes": ["rgb_array"] if render else [], "render_fps": render_fps}
        self.render_mode = "rgb_array" if render else None
        self.observation_space = batch.single_observation_space
        self.action_space = batch.single_action_space
        self.task = batch.tasks[0]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is None:
            seed = int(self.np_random.integers(2**31))
        obs, info = self._batch.reset(seed=seed, options=options)
        return obs[0], info

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self._batch.step(np.asarray(action)[None])
        return obs[0], float(reward[0]), bool(terminated[0]), bool(truncated[0]), info

    def render(self) -> np.ndarray | None:
        return self._render() if self._render else None

    def close(self) -> None:
        self._batch.close()


def _spread(seed: int | Sequence[int | None] | None, n: int) -> Sequence[int | None]:
    """One seed per sub-environment, independent of each other, from one seed for the batch."""
    if seed is None:
        return [None] * n
    if isinstance(seed, int | np.integer):
        return [int(s) for s in np.random.SeedSequence(int(seed)).generate_state(n)]
    return seed
