"""MujocoVariation: a robot with new dynamics, described by a few lines of YAML.

    native path       batched equations (of a registered Gymnasium id, or your functions) on all simulations at once
    Gymnasium path    gymnasium.make per task, its model edited in place, its own reward and termination

Both paths give the same trajectories. Which one is taken is decided by what is known of the environment, and printed
by `metarl tasks check`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import gymnasium
import numpy as np

from metarl.errors import TaskError, did_you_mean
from metarl.plugins import describe
from metarl.tasks.batch import EnvBatch, TaskBatch
from metarl.tasks.distribution import Parameter
from metarl.tasks.model_file import find_model, load_model, no_model_file
from metarl.tasks.mujoco import MujocoBatch, MujocoEquations, MujocoTaskDistribution
from metarl.tasks.physics import Physics, make_physics, owner_of
from metarl.tasks.task import Task, TaskParams, params_of
from metarl.tasks.variation.body import Body
from metarl.tasks.variation.description import FieldEntry, entries_of, parameters_of, require_within
from metarl.tasks.variation.dm_control import require_lasting_model, with_registration
from metarl.tasks.variation.equations import FunctionEquations, equations_of, function_of, registered_equations
from metarl.tasks.variation.field_values import changed_fields, changed_live, prepare, write_fields_of
from metarl.tasks.variation.fields import FieldChange, change_of
from metarl.tasks.variation.schedules import Schedule, Scheduled, scheduled_of
from metarl.tasks.variation.servos import acts_on_controls, dead_motor_change
from metarl.tasks.variation.single import VariedBatch, VariedEnv, simulator_of
from metarl.tasks.variation.validity import require_physical, require_valid
from metarl.tasks.variation.wrapper import BodyEnv

Path_ = Literal["auto", "native", "gymnasium"]
Function = str | Mapping[str, Any] | Callable[..., np.ndarray]


class MujocoVariation(MujocoTaskDistribution):
    """Variants of one MuJoCo robot.

    env: a registered Gymnasium id, whose own reward and termination are used.
    model: an MJCF file from the current directory; alone it needs `reward`, with `env` it replaces that robot.
    vary: model fields by element name, see `metarl.tasks.variation.fields`.
    effects: what lies between policy and physics, see `metarl.tasks.variation.effects`.
    reward, terminated, observe: batched functions, as module:attr, see `metarl.tasks.variation.equations`; `reward` may
        be one of `metarl.tasks.variation.rewards`, such as {reach: {site: tip, target: target}}.
    reset_noise: half the width of the uniform noise on qpos and qvel at a reset, of a `model` alone.
    frame_skip: physics steps per action, of a `model` alone (5).
    env_options: keyword arguments of the Gymnasium environment; it then runs on the Gymnasium path.
    path: native, gymnasium, or auto, which takes the native one where there are batched equations.

    Raises TaskError naming the option, what is wrong with it and what is allowed.
    """

    name = "MujocoVariation"
    version = 1
    edits_model = True

    def __init__(
        self,
        env: str | None = None,
        model: str | None = None,
        vary: Mapping[str, Any] | None = None,
        effects: Mapping[str, Any] | None = None,
        reward: Function | None = None,
        terminated: Function | None = None,
        observe: Function | None = None,
        reset_noise: float = 0.01,
        frame_skip: int | None = None,
        env_options: Mapping[str, Any] | None = None,
        path: Path_ = "auto",
        horizon: int = 200,
        backend: str | None = None,
        unstable: str = "fault",
    ):
        super().__init__(horizon, backend, unstable)
        _require_source(env, model, reward, terminated, observe, frame_skip, path)
        self.env_id = None if env is None else with_registration(env, self.name)
        self.env_options = dict(env_options or {})
        self._functions = (reward, terminated, observe)
        if model is not None:
            self.xml = _file_of(model)
            if env is not None:
                self.env_options["xml_file"] = str(self.xml)
        self._equations = self._find_equations(path, reset_noise, frame_skip)
        self._model, self.acts_on_controls = self._base_model()
        self.body = Body.of(effects or {})
        self._resolve(entries_of(vary, FieldEntry, "vary"))
        if not self.parameters:
            raise TaskError(f"{self.name}: nothing varies; name at least one entry of `vary` or `effects`")

    def _resolve(self, entries: Mapping[str, FieldEntry]) -> None:
        """The changes and parameters of `vary` on this model, and those of the body behind them."""
        changes: list[FieldChange] = []
        parameters: list[Parameter] = []
        scheduled: list[Scheduled] = []
        for name, entry in entries.items():
            where = f"vary.{name}"
            if entry.field is None:
                self._require_plain(name, entry)
                parameters += parameters_of(name, entry, where, None, "")
                continue
            change = change_of(name, entry, self._model)
            made = parameters_of(name, entry, where, change.size, change.unit)
            require_valid(change, made[0], self._model)
            changes.append(change)
            parameters += made
            scheduled += scheduled_of(entry, made[0], change.neutral)
        prepare(self._model, changes)
        assert self.body is not None
        if self.acts_on_controls:
            dead = [dead_motor_change(declared, self._model) for declared in self.body.declared]
            changes += [change for change in dead if change is not None]
        self.changes, self._live_changes = tuple(changes), changed_live(changes)
        self.parameters = (*parameters, *self.body.parameters)
        self.body = self.body.with_scheduled(scheduled) if self.body.declared or scheduled else None
        require_within(self.parameters, self.horizon)
        if self.body is not None and self._equations is not None:
            self._require_fitting(self.body)

    def _require_fitting(self, body: Body) -> None:
        """TaskError where an effect does not fit the robot's spaces."""
        low, high = self._model.actuator_ctrlrange.T.astype(np.float32)
        physics = make_physics(self._model, 1, self.data_fields, 1, "mujoco")
        body.start(gymnasium.spaces.Box(low, high, dtype=np.float32), self.observe(physics).shape[1], 1)

    def _require_plain(self, name: str, entry: FieldEntry) -> None:
        """TaskError where a parameter without a field is seen by no reward function."""
        if self._functions[0] is None:
            raise TaskError(
                f"vary.{name}: field is missing; without one a parameter needs a `reward` function to see it"
            )
        if entry.at_step is not None or entry.redraw is not None:
            raise TaskError(f"vary.{name}: at_step and redraw need a field")

    # --- where the equations come from -----------------------------------------------------------

    def _find_equations(self, path: Path_, reset_noise: float, frame_skip: int | None) -> MujocoEquations | None:
        own_options = [key for key in self.env_options if key != "xml_file"]
        given = None if self.env_id is None or path == "gymnasium" or own_options else equations_of(self.env_id)
        reward, terminated, observe = self._functions
        if self.env_id is not None and given is None:
            if path == "native" or reward is not None:
                why = f"env_options {own_options} need the Gymnasium path" if own_options else "none are registered"
                raise TaskError(
                    f"{self.name}: path: native and reward need batched equations, and for {self.env_id} {why}; "
                    f"allowed: {', '.join(registered_equations())}, or model with reward"
                )
            return None
        if given is not None and not hasattr(self, "xml"):
            self.xml = find_model(given)
        found = given
        if reward is not None:
            own = function_of(reward, "reward")
            ends = None if terminated is None else function_of(terminated, "terminated")
            sees = None if observe is None else function_of(observe, "observe")
            found = FunctionEquations(own, ends, sees, reset_noise, load_model(self), given)
        assert found is not None
        self.frame_skip = frame_skip or found.frame_skip
        found.frame_skip = self.frame_skip
        self.data_fields = found.data_fields
        return found

    @property
    def is_native(self) -> bool:
        """Whether tasks are simulated together, on batched equations."""
        return self._equations is not None

    def _base_model(self) -> tuple[Any, bool]:
        """The model as it is, and whether actions are the controls of its actuators."""
        if self._equations is not None:
            return load_model(self), True
        env = self._gym_env()
        simulator = simulator_of(env)
        if simulator is None:
            raise TaskError(
                f"{self.name}: env = {self.env_id!r} is no MuJoCo environment (it has no `model` and `data`); "
                "GymVariation varies environments of any kind"
            )
        model = copy.copy(simulator[0])
        require_lasting_model(env, self.name)
        is_control = acts_on_controls(env.action_space, model)
        env.close()
        return model, is_control

    def model(self) -> Any:
        """A copy of the base model."""
        return copy.copy(self._model)

    def _gym_env(self, **kwargs: Any) -> gymnasium.Env:
        assert self.env_id is not None
        try:
            return gymnasium.make(
                self.env_id, max_episode_steps=self.horizon, disable_env_checker=True, **self.env_options, **kwargs
            )
        except gymnasium.error.NameNotFound as error:
            hint = did_you_mean(self.env_id, gymnasium.registry, "; ", "")
            raise TaskError(f"{self.name}: env = {self.env_id!r} is not registered with Gymnasium{hint}") from error
        except Exception as error:
            raise TaskError(f"{self.name}: gymnasium.make({self.env_id!r}) raised {describe(error)}") from error

    # --- the equations ---------------------------------------------------------------------------

    def observe(self, physics: Physics) -> np.ndarray:
        return self._batched.observe(physics)

    def before(self, physics: Physics) -> Any:
        return self._batched.before(physics)

    def reward(self, physics: Physics, before: Any, action: np.ndarray, params: TaskParams) -> np.ndarray:
        return self._batched.reward(physics, before, action, params)

    def terminated(self, physics: Physics) -> np.ndarray | None:
        return self._batched.terminated(physics)

    def reset_state(
        self, rng: np.random.Generator, qpos0: np.ndarray, qvel0: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        return self._batched.reset_state(rng, qpos0, qvel0)

    @property
    def _batched(self) -> MujocoEquations:
        assert self._equations is not None
        return self._equations

    # --- dynamics --------------------------------------------------------------------------------

    def edit(self, physics: Any, params: TaskParams) -> None:
        """Write the tasks' values of all fields into `physics`, each from the base model's."""
        write_fields_of(physics, changed_fields(self.changes, self._model, physics.num_sims, params))

    def edit_live(self, physics: Any, params: TaskParams) -> None:
        """The same for the fields that change in mid-episode, and what else concerns these."""
        live = changed_fields(self._live_changes, self._model, physics.num_sims, params, among=self.changes)
        write_fields_of(physics, live)

    # --- what checks ask -------------------------------------------------------------------------

    def advice_on(self, name: str) -> str:
        """What to change where the parameter has no effect; "" where nothing special is known."""
        fields = {address.field for change in self.changes if change.name == name for address in change.addresses}
        if "geom_friction" in fields:
            return (
                "MuJoCo takes the larger friction of two geoms in contact: vary the other one too, as in "
                "geom_friction[*], or leave it out"
            )
        return "choose a field that matters for this robot, or leave it out" if fields else ""

    @property
    def path_taken(self) -> str:
        """Which path tasks are simulated on, in words."""
        return "native path" if self._equations is not None else f"Gymnasium path: gymnasium.make({self.env_id!r})"

    def expected_fields(self, tasks: Sequence[Task]) -> dict[str, np.ndarray]:
        """The values [n, ...] that fields of the tasks' models must have at the start of an episode."""
        schedule = Schedule([] if self.body is None else self.body.schedules)
        schedule.set_tasks(tasks, params_of(tasks))
        return changed_fields(self.changes, self._model, len(tasks), schedule.values)

    def fields_in(self, batch: TaskBatch) -> dict[str, np.ndarray]:
        """The values that the models of a batch of this distribution do have, in the same layout."""
        names = changed_fields(self.changes, self._model, 1, params_of(self.sample("train", 1, 0)))
        if isinstance(batch, MujocoBatch):
            found = {name: batch.physics.field(name) for name in names}
        else:
            assert isinstance(batch, EnvBatch)
            simulators = [simulator_of(env) for env in batch.environments]
            models = [simulator[0] for simulator in simulators if simulator is not None]
            found = {name: np.stack([getattr(owner_of(model, name), name) for model in models]) for name in names}
        return {name: values.reshape(len(values), *names[name].shape[1:]) for name, values in found.items()}

    def unvaried(self) -> MujocoVariation:
        """The same tasks with nothing varied, for comparisons of speed."""
        plain = copy.copy(self)
        plain.changes, plain._live_changes, plain.body, plain.edits_model = (), (), None, False
        return plain

    # --- environments ----------------------------------------------------------------------------

    def make(self, task: Task, render_mode: str | None = None) -> gymnasium.Env:
        if self._equations is not None:
            return super().make(task, render_mode)
        env = self._gym_env(**({} if render_mode is None else {"render_mode": render_mode}))
        plain = VariedEnv(env, self, task)
        if self.body is None:
            return plain
        return BodyEnv(plain, self.body, task, plain.edit_live if self._live_changes else None)

    def make_batch(self, tasks: Sequence[Task]) -> TaskBatch:
        if self._equations is None:
            return VariedBatch(self.make, tasks)
        return _Batch(self, tasks)

    def require_physical(self, tasks: Sequence[Task], params: TaskParams) -> None:
        """TaskError where the entries together make a model unphysical."""
        require_physical(changed_fields(self.changes, self._model, len(tasks), params), self._model, tasks)


class _Batch(MujocoBatch):
    """Looks at the tasks' fields before they are simulated."""

    def set_tasks(self, tasks: Sequence[Task]) -> None:
        super().set_tasks(tasks)
        family: Any = self._family
        family.require_physical(tasks, self._params)


def _require_source(
    env: str | None,
    model: str | None,
    reward: Function | None,
    terminated: Function | None,
    observe: Function | None,
    frame_skip: int | None,
    path: str,
) -> None:
    """TaskError where the options do not say what is simulated, or what is rewarded."""
    who = MujocoVariation.name
    if path not in ("auto", "native", "gymnasium"):
        raise TaskError(f"{who}: path must be auto, native or gymnasium, got {path!r}")
    if env is None and model is None:
        raise TaskError(f"{who}: needs env (a Gymnasium id such as Hopper-v5) or model (an MJCF file) with reward")
    if env is not None and not isinstance(env, str):
        raise TaskError(f"{who}: env must be a Gymnasium id such as Hopper-v5, got {env!r}")
    if env is None and reward is None:
        raise TaskError(
            f"{who}: model = {model!r} needs a reward: reward: module:function, or env: a Gymnasium id whose reward "
            "fits this robot"
        )
    if env is None and path == "gymnasium":
        raise TaskError(f"{who}: path: gymnasium needs env, a Gymnasium id")
    if reward is None and (terminated is not None or observe is not None):
        raise TaskError(f"{who}: terminated and observe belong to a reward function: give reward too")
    if env is not None and frame_skip is not None:
        raise TaskError(
            f"{who}: frame_skip belongs to a model without env; for env write env_options: {{frame_skip: ...}}"
        )
    if frame_skip is not None and (isinstance(frame_skip, bool) or not isinstance(frame_skip, int) or frame_skip < 1):
        raise TaskError(f"{who}: frame_skip must be a number of physics steps, at least 1, got {frame_skip!r}")


def _file_of(model: str) -> Path:
    path = Path(model).expanduser().resolve()
    if path.is_file():
        return path
    raise TaskError(f"MujocoVariation: model = {model!r}: {no_model_file(path)}")
