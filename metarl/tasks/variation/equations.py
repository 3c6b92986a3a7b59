"""Where observation, reward and termination come from: registered equations of a Gymnasium id, or batched functions.

A function of your own sees states before and after the step, for n robots at once:

    def reward(before, action, after, task):              # -> [n]
        distance = np.linalg.norm(after.site("tip") - after.site("target"), axis=1)
        return -distance - 0.01 * np.square(action).sum(axis=1)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import mujoco
import numpy as np

from metarl.errors import TaskError, did_you_mean
from metarl.plugins import available, load_target, plugin_errors
from metarl.tasks.mujoco import MujocoEquations
from metarl.tasks.physics import Physics
from metarl.tasks.task import TaskParams
from metarl.tasks.variation.rewards import declared_reward

GROUP = "metarl.mujoco_equations"
_FIELDS = {"xpos": "nbody", "site_xpos": "nsite", "sensordata": "nsensordata"}  # what a State can show, if there is any


class State:
    """Positions and velocities of n robots, and places by name: `body("hand")` and `site("tip")` are [n, 3] metres in
    the world, `joint("elbow")` is [n, size], `sensor("touch")` is [n, size].

    After a step, places and sensors are one physics step (`timestep`) older than positions and velocities: MuJoCo
    computes them at the start of each, the last of `frame_skip` included. Gymnasium's environments read them so too.
    """

    def __init__(self, physics: Physics, is_copy: bool = False):
        self.model = physics.model
        names = [name for name in _FIELDS if getattr(self.model, _FIELDS[name])]
        live = {"qpos": physics.qpos, "qvel": physics.qvel, "ctrl": physics.ctrl}
        arrays = {**live, **{name: physics.data(name) for name in names}}
        self._arrays = {name: array.copy() for name, array in arrays.items()} if is_copy else arrays

    @property
    def qpos(self) -> np.ndarray:
        """Generalised positions [n, nq]."""
        return self._arrays["qpos"]

    @property
    def qvel(self) -> np.ndarray:
        """Generalised velocities [n, nv]."""
        return self._arrays["qvel"]

    @property
    def ctrl(self) -> np.ndarray:
        """What the actuators were last given [n, nu]; 0 after a reset."""
        return self._arrays["ctrl"]

    @property
    def sensordata(self) -> np.ndarray:
        """The readings of all sensors [n, nsensordata], in the model's order."""
        return self._arrays["sensordata"]

    def body(self, name: str) -> np.ndarray:
        return self._arrays["xpos"][:, self._index("body", name)]

    def site(self, name: str) -> np.ndarray:
        return self._arrays["site_xpos"][:, self._index("site", name)]

    def joint(self, name: str) -> np.ndarray:
        index = self._index("joint", name)
        first = int(self.model.jnt_qposadr[index])
        size = {0: 7, 1: 4}.get(int(self.model.jnt_type[index]), 1)
        return self.qpos[:, first : first + size]

    def sensor(self, name: str) -> np.ndarray:
        index = self._index("sensor", name)
        first = int(self.model.sensor_adr[index])
        return self._arrays["sensordata"][:, first : first + int(self.model.sensor_dim[index])]

    def _index(self, kind: str, name: str) -> int:
        found = mujoco.mj_name2id(self.model, getattr(mujoco.mjtObj, f"mjOBJ_{kind.upper()}"), name)
        if found < 0:
            count = getattr(self.model, {"body": "nbody", "site": "nsite", "joint": "njnt", "sensor": "nsensor"}[kind])
            known = [getattr(self.model, kind)(i).name for i in range(count)]
            hint = did_you_mean(name, known)
            raise TaskError(f"the model has no {kind} {name!r}; {hint}there are: {', '.join(known) or 'none'}")
        return int(found)


def registered_equations() -> dict[str, str]:
    """The Gymnasium ids whose equations are there in batched form, and where."""
    return available(GROUP)


def equations_of(env_id: str) -> MujocoEquations | None:
    """The batched equations of a Gymnasium id; None where none are registered."""
    if env_id not in registered_equations():
        return None
    found = load_target(GROUP, env_id, "batched equations", TaskError)
    made = found() if isinstance(found, type) else found
    if not isinstance(made, MujocoEquations):
        raise TaskError(f"the equations registered for {env_id} are no MujocoEquations: {found!r}")
    return made


def function_of(target: object, where: str) -> Callable[..., np.ndarray]:
    """The function that `module:attr` names, or a declared reward; TaskError where it is none."""
    if isinstance(target, Mapping):
        if where != "reward":
            raise TaskError(f"{where} = {dict(target)}: must be a function, as module:attr")
        return cast("Callable[..., np.ndarray]", declared_reward(target))
    if not isinstance(target, str):
        if callable(target):
            return target
        raise TaskError(f"{where} = {target!r}: must be a function, as module:attr")
    found = load_target(GROUP, target, where, TaskError)
    if not callable(found):
        raise TaskError(f"{where} = {target!r}: {type(found).__name__} is no function")
    return found


class FunctionEquations(MujocoEquations):
    """The equations of functions: `reward(before, action, after, task)`, `terminated(state)`, `observe(state)`.

    What is left out comes from `given`, or, without it: observation qpos and qvel, no termination, and a reset to
    qpos0 and no velocity with uniform noise of `reset_noise` on both.
    """

    def __init__(
        self,
        reward: Callable[..., np.ndarray],
        terminated: Callable[..., np.ndarray] | None,
        observe: Callable[..., np.ndarray] | None,
        reset_noise: float,
        model: Any,
        given: MujocoEquations | None = None,
    ):
        self._reward, self._terminated, self._observe = reward, terminated, observe
        self._noise, self._given = reset_noise, given
        fields = [name for name, count in _FIELDS.items() if getattr(model, count)]
        self.data_fields = tuple(dict.fromkeys([*fields, *(given.data_fields if given else ())]))
        if given is not None:
            self.frame_skip = given.frame_skip

    def observe(self, physics: Physics) -> np.ndarray:
        if self._observe is not None:
            return self._called("observe", self._observe, (physics.num_sims, -1), State(physics))
        if self._given is not None:
            return self._given.observe(physics)
        return np.concatenate((physics.qpos, physics.qvel), axis=1)

    def before(self, physics: Physics) -> Any:
        return State(physics, is_copy=True)

    def reward(self, physics: Physics, before: Any, action: np.ndarray, params: TaskParams) -> np.ndarray:
        return self._called("reward", self._reward, (physics.num_sims,), before, action, State(physics), params)

    def terminated(self, physics: Physics) -> np.ndarray | None:
        if self._terminated is not None:
            return self._called("terminated", self._terminated, (physics.num_sims,), State(physics)).astype(bool)
        return None if self._given is None else self._given.terminated(physics)

    def reset_state(
        self, rng: np.random.Generator, qpos0: np.ndarray, qvel0: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        if self._given is not None:
            return self._given.reset_state(rng, qpos0, qvel0)
        noise = self._noise
        return qpos0 + rng.uniform(-noise, noise, qpos0.shape), qvel0 + rng.uniform(-noise, noise, qvel0.shape)

    @staticmethod
    def _called(what: str, function: Callable[..., Any], shape: tuple[int, ...], *arguments: Any) -> np.ndarray:
        """The function's answer; TaskError where it raises, or has not one row (one number) per robot."""
        label = getattr(function, "__qualname__", type(function).__name__)
        name = f"{what} = {getattr(function, '__module__', '')}:{label}"
        with plugin_errors(name, TaskError):
            answer = np.asarray(function(*arguments))
        is_right = answer.ndim == len(shape) and answer.shape[0] == shape[0]
        if not is_right:
            wanted = f"[{shape[0]}]" if len(shape) == 1 else f"[{shape[0]}, O]"
            raise TaskError(f"{name} gave an array of shape {answer.shape} for {shape[0]} robots, wanted is {wanted}")
        return answer
