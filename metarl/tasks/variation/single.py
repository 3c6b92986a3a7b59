"""Gymnasium's and DeepMind Control's environments, whose models are edited in place."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Protocol

import gymnasium
import mujoco
import numpy as np

from metarl.tasks.batch import EnvBatch
from metarl.tasks.physics import owner_of, write_fields
from metarl.tasks.task import Task, TaskParams, params_of
from metarl.tasks.variation.field_values import prepare
from metarl.tasks.variation.fields import FieldChange
from metarl.tasks.variation.wrapper import BodyEnv


def simulator_of(env: gymnasium.Env) -> tuple[Any, Any] | None:
    """The MjModel and MjData that an environment simulates: its own `model` and `data`, or those of DeepMind Control's
    `physics`. None where it simulates none."""
    inner: Any = env.unwrapped
    for owner in (inner, getattr(inner, "physics", None)):
        parts = (getattr(owner, name, None) for name in ("model", "data"))
        model, data = (getattr(part, "ptr", part) for part in parts)  # dm_control wraps both
        if isinstance(model, mujoco.MjModel) and isinstance(data, mujoco.MjData):
            return model, data
    return None


class SingleModel:
    """`Physics` as far as fields are concerned, [1, ...] of a live model. `model` is a copy of it as it was."""

    num_sims = 1

    def __init__(self, live: Any):
        self.model = copy.copy(live)
        self._live, self._scratch = live, mujoco.MjData(live)
        self._fields: dict[str, np.ndarray] = {}

    def field(self, name: str) -> np.ndarray:
        """Editable values [1, ...] of a field; `commit` or `write` make edits take effect."""
        if name not in self._fields:
            self._fields[name] = np.array(getattr(owner_of(self.model, name), name))[None]
        return self._fields[name]

    def write(self) -> None:
        """Edits of fields that no derived constant depends on take effect."""
        write_fields(self._live, {name: values[0] for name, values in self._fields.items()})

    def commit(self) -> None:
        """All edits take effect, and derived constants are computed anew. The state is not touched."""
        self.write()
        mujoco.mj_setConst(self._live, self._scratch)


class Edits(Protocol):
    """What writes tasks into models."""

    changes: tuple[FieldChange, ...]

    def require_physical(self, tasks: Sequence[Task], params: TaskParams) -> None: ...

    def edit(self, physics: Any, params: TaskParams) -> None: ...

    def edit_live(self, physics: Any, params: TaskParams) -> None: ...


class VariedEnv(gymnasium.ActionWrapper[Any, Any, Any]):
    """An environment whose model is that of its task. Actions arrive in float64, as the simulator computes."""

    def __init__(self, env: gymnasium.Env, edits: Edits, task: Task):
        super().__init__(env)
        simulator = simulator_of(env)
        assert simulator is not None
        self._edits, self._model = edits, SingleModel(simulator[0])
        prepare(simulator[0], edits.changes)
        self.set_task(task)

    def set_task(self, task: Task) -> None:
        """Give the model the values of `task`; the next call must be `reset`."""
        params = params_of([task])
        self._edits.require_physical([task], params)
        self._edits.edit(self._model, params)
        self._model.commit()

    def edit_live(self, values: TaskParams) -> None:
        """Make changes in mid-episode take effect."""
        self._edits.edit_live(self._model, values)
        self._model.write()

    def action(self, action: Any) -> np.ndarray:
        return np.asarray(action, dtype=np.float64)


class VariedBatch(EnvBatch):
    """A batch of them that sets other tasks without building the environments anew."""

    def set_tasks(self, tasks: Sequence[Task]) -> None:
        if not self._envs or len(tasks) != len(self._envs):
            super().set_tasks(tasks)
            return
        self.tasks = tuple(tasks)
        for checked, task in zip(self._envs, self.tasks, strict=True):
            checked.task = task
            env = checked.env
            if isinstance(env, BodyEnv):
                env.set_task(task)
                env = env.env
            assert isinstance(env, VariedEnv)
            env.set_task(task)
