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
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from metarl.errors import EnvironmentFault, TaskError
from metarl.plugins import describe
from metarl.tasks.action_space import require_same_kind
from metarl.tasks.environment import CheckedEnv
from metarl.tasks.success import successes_of_step
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

    @property
    def action_spaces(self) -> tuple[gymnasium.Space, ...]:
        """The action space of every sub-environment; their bounds may differ. `single_action_space` is the first's."""
        return (self.single_action_space,) * self.num_envs

    def render_frame(self, index: int = 0) -> np.ndarray | None:
        """An RGB picture [height, width, 3] uint8 of one sub-environment as it stands; None where there is none."""
        return None

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

    Observations of any space are flattened; action spaces may be Box or Discrete, each environment's with its own
    bounds. What environments report as info["success"], or else as info["is_success"], is kept as info["success"], bool
    [num_envs]. TaskError where `make` gives one environment twice, or environments that one policy cannot serve.
    """

    def __init__(self, make: Callable[[Task], gymnasium.Env], tasks: Sequence[Task]):
        self._make = make
        self._envs: list[CheckedEnv] = []
        self.set_tasks(tasks)

    def set_tasks(self, tasks: Sequence[Task]) -> None:
        if not tasks:
            raise TaskError("a batch needs at least one task")
        if self._envs and len(tasks) != len(self._envs):
            raise TaskError(f"this batch holds {len(self._envs)} tasks, got {len(tasks)}")
        self.close_extras()
        self.tasks = tuple(tasks)
        self._envs = [CheckedEnv(self._make(task), task) for task in self.tasks]
        self._require_different_environments()
        spaces = [env.action_space for env in self._envs]
        require_same_kind(spaces, self.tasks)
        dims = [env.obs_dim for env in self._envs]
        for i, dim in enumerate(dims):
            if dim != dims[0]:
                raise TaskError(f"{tasks[0]} has observations of {dims[0]} numbers, {tasks[i]} of {dim}")
        observation = gymnasium.spaces.Box(-np.inf, np.inf, (dims[0],), np.float64)
        self._set_spaces(observation, spaces[0], len(tasks))
        self._action_spaces = _interned(spaces)
        if isinstance(spaces[0], gymnasium.spaces.Box):
            low, high = (np.stack([getattr(space, end) for space in spaces]) for end in ("low", "high"))
            self.action_space = gymnasium.spaces.Box(low, high, dtype=spaces[0].dtype)
        self._obs = np.zeros((len(tasks), dims[0]))

    @property
    def action_spaces(self) -> tuple[gymnasium.Space, ...]:
        return self._action_spaces

    @property
    def environments(self) -> tuple[gymnasium.Env, ...]:
        """The environments, as they were made."""
        return tuple(env.env for env in self._envs)

    def _require_different_environments(self) -> None:
        holders: dict[int, Task] = {}
        for env in self._envs:
            key = id(env.env.unwrapped)
            if key in holders:
                raise TaskError(
                    f"`make` returned one and the same environment for {holders[key]} and {env.task}: every call must "
                    "build its own, because they are stepped side by side"
                )
            holders[key] = env.task

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        seeds = seeds_of_rows(seed, self.num_envs)
        for i in np.flatnonzero(self._reset_mask(options, self.num_envs)).tolist():
            self._obs[i] = self._envs[i].reset(seeds[i])
            self._terminated[i] = self._truncated[i] = False
        return self._obs.copy(), {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        rewards = np.zeros(self.num_envs)
        for i in np.flatnonzero(~(self._terminated | self._truncated)).tolist():
            self._obs[i], rewards[i], self._terminated[i], self._truncated[i] = self._envs[i].step(actions[i])
        reported = [env.success for env in self._envs]
        info = {"success": np.array([bool(s) for s in reported])} if any(s is not None for s in reported) else {}
        return self._obs.copy(), rewards, self._terminated.copy(), self._truncated.copy(), info

    def render_frame(self, index: int = 0) -> np.ndarray | None:
        """What the environment renders as `rgb_array`; None where it was not made to. EnvironmentFault where it
        raises or gives something else."""
        env = self._envs[index].env
        if env.render_mode != "rgb_array":
            return None
        try:
            frame = env.render()
        except Exception as error:
            raise EnvironmentFault(f"{self.tasks[index]}: render raised {describe(error)}") from error
        if not (isinstance(frame, np.ndarray) and frame.ndim == 3 and frame.shape[2] == 3):
            raise EnvironmentFault(
                f"{self.tasks[index]}: render with render_mode='rgb_array' returned {type(frame).__name__} of shape "
                f"{np.shape(frame)}, Gymnasium wants an array [height, width, 3]"
            )
        return frame.astype(np.uint8, copy=False)

    def close_extras(self, **kwargs: Any) -> None:
        for env in self._envs:
            env.close()
        self._envs = []


class SingleTaskEnv(gymnasium.Env):
    """One environment seen as an ordinary Gymnasium environment: a batch of one, the same code."""

    def __init__(self, batch: TaskBatch, render: Callable[[], np.ndarray | None] | None = None):
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
        obs, info = self._batch.reset(seed=[seed], options=options)  # the row's own, not one spread over rows
        return obs[0], info

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self._batch.step(np.asarray(action)[None])
        success = successes_of_step(info, self._batch.tasks)
        if success is not None:
            info = {**info, "success": bool(success[0])}
        return obs[0], float(reward[0]), bool(terminated[0]), bool(truncated[0]), info

    def render(self) -> np.ndarray | None:
        return self._render() if self._render else None

    def close(self) -> None:
        self._batch.close()


def seeds_of_rows(seed: int | Sequence[int | None] | None, n: int) -> Sequence[int | None]:
    """One seed per sub-environment, independent of each other, from one seed for the batch."""
    if seed is None:
        return [None] * n
    if isinstance(seed, int | np.integer):
        return [int(s) for s in np.random.SeedSequence(int(seed)).generate_state(n)]
    return seed


def _interned(spaces: Sequence[gymnasium.Space]) -> tuple[gymnasium.Space, ...]:
    """The same spaces, those with exactly the same bounds as one object, so that comparing them is quick."""
    known: dict[Any, gymnasium.Space] = {}

    def key(space: gymnasium.Space) -> Any:
        return (space.low.tobytes(), space.high.tobytes()) if isinstance(space, gymnasium.spaces.Box) else str(space)

    return tuple(known.setdefault(key(space), space) for space in spaces)
