"""N MuJoCo simulations of one model, with per-simulation model fields: on mjbatch, or on plain mujoco.

Both back ends give bitwise the same trajectories. mjbatch steps on a C++ thread pool and is about
the speed of the physics itself; plain mujoco needs no extra package.
"""

from __future__ import annotations

import copy
import functools
import importlib.util
from typing import Any, Protocol

import mujoco
import numpy as np

from metarl.errors import TaskError

# MuJoCo's warnings after which it has put the state back to its start by itself (a bad control: to 0) and continues.
_INSTABILITIES = {
    name: int(getattr(mujoco.mjtWarning, f"mjWARN_BAD{name}")) for name in ("QPOS", "QVEL", "QACC", "CTRL")
}


_FIRST, _LAST = min(_INSTABILITIES.values()), max(_INSTABILITIES.values())
assert len(_INSTABILITIES) - 1 == _LAST - _FIRST  # neighbours, so that a slice holds them


def unstable_counts(physics: Physics) -> np.ndarray:
    """The counters of those warnings, a view [num_sims, 4]: where one is not 0, the simulation was put back."""
    return physics.warnings[:, _FIRST : _LAST + 1]


def instabilities(counts: np.ndarray) -> str:
    """What mjData's warning counters [num_warnings] say is not finite or huge, such as "QACC"; "" where nothing is."""
    return ", ".join(name for name, index in _INSTABILITIES.items() if counts[index])


class Physics(Protocol):
    """State arrays are live: writing `ctrl` (or `qpos`, `qvel` before `reset`) is what the next call reads."""

    model: Any
    num_sims: int
    qpos: np.ndarray  # [num_sims, nq]
    qvel: np.ndarray  # [num_sims, nv]
    ctrl: np.ndarray  # [num_sims, nu]
    warnings: np.ndarray  # [num_sims, number of MuJoCo's warnings] how often each was given since the reset

    def data(self, name: str) -> np.ndarray:
        """[num_sims, ...] values of an mjData field, as the last call left them."""
        ...

    def field(self, name: str) -> np.ndarray:
        """[num_sims, ...] editable values of an mjModel or mjOption field; `commit` makes edits take effect."""
        ...

    def commit(self) -> None:
        """Recompute the derived constants (mj_setConst) of every simulation after editing fields."""
        ...

    def write(self) -> None:
        """Make edits of fields that no derived constant depends on take effect, in mid-episode too."""
        ...

    def reset(self, ids: np.ndarray | None, qpos: np.ndarray, qvel: np.ndarray) -> None:
        """mj_resetData, then the given state for the selected rows, then mj_forward."""
        ...

    def step(self, ids: np.ndarray | None, nstep: int) -> None:
        """`nstep` mj_step calls for the selected simulations (a boolean mask; None = all)."""
        ...

    def simulation(self, index: int) -> tuple[Any, Any]:
        """MjModel and MjData of one simulation as it stands: copies, its edited fields and all of its state (mocap,
        activations, controls) included, and mj_forward called."""
        ...


class MjBatchPhysics:
    """Physics on mjbatch. `num_threads=0` uses every processor."""

    def __init__(self, model: Any, num_sims: int, data_fields: tuple[str, ...] = (), num_threads: int = 0):
        from mjbatch import Batch

        self.model, self.num_sims = model, num_sims
        self._batch = Batch(model, num_sims=num_sims, num_threads=num_threads)
        self.qpos, self.qvel, self.ctrl = (self._batch.bind(name) for name in ("qpos", "qvel", "ctrl"))
        self.warnings = self._batch.bind("warning")[:, :, 1]
        self._state = self._batch.bind("state")
        self._fields: dict[str, np.ndarray] = {}
        self._data = {name: self._batch.bind(name) for name in data_fields}

    def data(self, name: str) -> np.ndarray:
        return self._data[name]

    def field(self, name: str) -> np.ndarray:
        if name not in self._fields:
            self._fields[name] = self._batch.expand(name)
        return self._fields[name]

    def commit(self) -> None:
        self._batch.set_const()

    def write(self) -> None:
        """Edits are live."""

    def reset(self, ids: np.ndarray | None, qpos: np.ndarray, qvel: np.ndarray) -> None:
        rows = slice(None) if ids is None else ids
        self.ctrl[rows] = 0  # a control written for a simulation that did not step would outlive the reset
        self._batch.reset(ids)
        self.qpos[rows], self.qvel[rows] = qpos[rows], qvel[rows]
        self._batch.forward(ids)

    def step(self, ids: np.ndarray | None, nstep: int) -> None:
        self._batch.step(ids, nstep=nstep)

    def simulation(self, index: int) -> tuple[Any, Any]:
        model = copy.copy(self.model)
        data = mujoco.MjData(model)
        write_fields(model, {name: values[index] for name, values in self._fields.items()})
        mujoco.mj_setConst(model, data)
        mujoco.mj_setState(model, data, self._state[index], mujoco.mjtState.mjSTATE_INTEGRATION)
        mujoco.mj_forward(model, data)
        return model, data


class PlainPhysics:
    """Physics on plain mujoco, one simulation after the other; one model copy each once a field is edited."""

    def __init__(self, model: Any, num_sims: int, data_fields: tuple[str, ...] = ()):
        self.model, self.num_sims = model, num_sims
        self._models = [model] * num_sims
        self._datas = [mujoco.MjData(model) for _ in range(num_sims)]
        self._fields: dict[str, np.ndarray] = {}
        self.qpos = np.tile(self._datas[0].qpos, (num_sims, 1))
        self.qvel = np.tile(self._datas[0].qvel, (num_sims, 1))
        self.ctrl = np.zeros((num_sims, model.nu))
        self._counters = [data.warning.number for data in self._datas]  # views
        self.warnings = np.stack(self._counters)
        self._data = {n: np.stack([np.array(getattr(d, n)) for d in self._datas]) for n in data_fields}

    def data(self, name: str) -> np.ndarray:
        return self._data[name]

    def field(self, name: str) -> np.ndarray:
        if not self._fields:
            self._models = [copy.copy(self.model) for _ in range(self.num_sims)]
        if name not in self._fields:
            value = np.array(getattr(owner_of(self.model, name), name))
            self._fields[name] = np.repeat(value[None], self.num_sims, axis=0)
        return self._fields[name]

    def commit(self) -> None:
        for i, (model, data) in enumerate(zip(self._models, self._datas, strict=True)):
            write_fields(model, {name: values[i] for name, values in self._fields.items()})
            mujoco.mj_setConst(model, data)

    def write(self) -> None:
        for i, model in enumerate(self._models):
            write_fields(model, {name: values[i] for name, values in self._fields.items()})

    def reset(self, ids: np.ndarray | None, qpos: np.ndarray, qvel: np.ndarray) -> None:
        for i in range(self.num_sims) if ids is None else np.flatnonzero(ids).tolist():
            model, data = self._models[i], self._datas[i]
            mujoco.mj_resetData(model, data)
            data.qpos[:], data.qvel[:] = qpos[i], qvel[i]
            mujoco.mj_forward(model, data)
            self.ctrl[i] = 0
            self._read(i)

    def step(self, ids: np.ndarray | None, nstep: int) -> None:
        for i in range(self.num_sims) if ids is None else np.flatnonzero(ids).tolist():
            data = self._datas[i]
            data.ctrl[:] = self.ctrl[i]
            mujoco.mj_step(self._models[i], data, nstep)
            self._read(i)

    def simulation(self, index: int) -> tuple[Any, Any]:
        model, data = self._models[index], copy.copy(self._datas[index])
        mujoco.mj_forward(model, data)
        return model, data

    def _read(self, i: int) -> None:
        data = self._datas[i]
        self.qpos[i], self.qvel[i], self.warnings[i] = data.qpos, data.qvel, self._counters[i]
        for name, values in self._data.items():
            values[i] = getattr(data, name)


@functools.cache
def mjbatch_is_available() -> bool:
    """Whether the optional extra `batch` is installed."""
    return importlib.util.find_spec("mjbatch") is not None


def make_physics(
    model: Any, num_sims: int, data_fields: tuple[str, ...], num_threads: int = 0, backend: str | None = None
) -> Physics:
    """Physics on `backend` ("mjbatch" or "mujoco"; None takes mjbatch where installed, else mujoco)."""
    if backend == "mjbatch" and not mjbatch_is_available():
        raise TaskError("backend mjbatch is not installed: pip install metarl[batch], or choose backend mujoco")
    if backend == "mjbatch" or (backend is None and mjbatch_is_available()):
        return MjBatchPhysics(model, num_sims, data_fields, num_threads)
    return PlainPhysics(model, num_sims, data_fields)


def write_fields(model: Any, fields: dict[str, np.ndarray]) -> None:
    """Write fields of mjModel or mjOption into `model`; mj_setConst must follow."""
    for name, value in fields.items():
        owner = owner_of(model, name)
        if np.ndim(value) == 0:
            setattr(owner, name, value)
        else:
            getattr(owner, name)[:] = value


def owner_of(model: Any, name: str) -> Any:
    """What holds the field: the model, or its options."""
    return model if hasattr(model, name) else model.opt
