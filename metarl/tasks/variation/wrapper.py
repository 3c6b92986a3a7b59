"""The body around one Gymnasium environment: the same code as in batches, with one row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from gymnasium.spaces.utils import flatdim, flatten

from metarl.tasks.indexed_actions import indexed_actions_of
from metarl.tasks.task import Task, TaskParams, params_of
from metarl.tasks.variation.body import Body


class BodyEnv(gymnasium.Wrapper[np.ndarray, Any, Any, Any]):
    """`env` of `task` behind a body. Observations are flattened, float64 [O].

    edit: writes the current values of what changes in mid-episode into the environment.
    """

    flattens_observations = True  # for `metarl.tasks.nested`: a robot's observations may still be nested

    def __init__(self, env: gymnasium.Env, body: Body, task: Task, edit: Callable[[TaskParams], None] | None = None):
        super().__init__(env)
        size = flatdim(env.observation_space)
        self.observation_space = Box(-np.inf, np.inf, (size,), np.float64)
        self._edit, self._state = edit, body.start(env.action_space, size, 1)
        self._indexed = indexed_actions_of(env)
        self.set_task(task)

    def set_task(self, task: Task) -> None:
        """Give the body the values of `task`; the next call must be `reset`."""
        self.task = task
        self._state.set_tasks([task], params_of([task]))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        self._edit_where(self._state.reset(np.ones(1, bool), [seed]))
        observation, info = self.env.reset(seed=seed, options=options)
        return self._seen(observation), info

    def step(self, action: Any) -> tuple[np.ndarray, Any, bool, bool, dict[str, Any]]:
        self._edit_where(self._state.advance(None))
        chosen = action if self._indexed is None else self._indexed.index(action)
        arrived = self._state.act(np.asarray(chosen)[None], None)[0]
        observation, reward, terminated, truncated, info = self.env.step(arrived)
        return self._seen(observation), reward, terminated, truncated, info

    def _edit_where(self, changed: bool) -> None:
        if changed and self._edit is not None:
            self._edit(self._state.values)

    def _seen(self, observation: Any) -> np.ndarray:
        flat = np.asarray(flatten(self.env.observation_space, observation), dtype=np.float64)
        return self._state.observe(flat[None], None)[0]
