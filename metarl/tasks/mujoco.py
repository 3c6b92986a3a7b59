"""MuJoCo families: a model file, what a task changes in it, and reward / observation / termination.

A family writes its equations once, over a leading batch axis n; the single environment for rendering
and third-party tools is the same code with a batch of one.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium
import mujoco
import numpy as np

from metarl.errors import EnvironmentFault, TaskError
from metarl.tasks.batch import SingleTaskEnv, TaskBatch, seeds_of_rows
from metarl.tasks.distribution import TaskDistribution, require_horizon
from metarl.tasks.model_file import fingerprint_of, load_model
from metarl.tasks.physics import Physics, instabilities, make_physics, unstable_counts
from metarl.tasks.task import Task, TaskParams, params_of

if TYPE_CHECKING:
    from metarl.tasks.variation.body import Body, BodyState


class MujocoEquations(ABC):
    """Observation, reward, termination and reset of a robot, batched: every array has a leading axis n.

    `params[name]` holds the tasks' values, [n] or [n, size].
    """

    xml: str | Path  # a path, from the file of the class that states it; or a model that Gymnasium ships
    frame_skip: int = 5
    data_fields: tuple[str, ...] = ()  # mjData fields that the equations read through physics.data

    @abstractmethod
    def observe(self, physics: Physics) -> np.ndarray:
        """Observations [n, O] of the current state."""

    def before(self, physics: Physics) -> np.ndarray:
        """What the reward needs of the state before a step, copied (bindings return views)."""
        return physics.qpos[:, 0].copy()

    @abstractmethod
    def reward(self, physics: Physics, before: np.ndarray, action: np.ndarray, params: TaskParams) -> np.ndarray:
        """Rewards [n] of the step just made; `action` [n, A] is already clipped to its range."""

    def terminated(self, physics: Physics) -> np.ndarray | None:
        """Whether each episode ended in a terminal state [n]; None where the family never terminates."""
        return None

    @abstractmethod
    def reset_state(
        self, rng: np.random.Generator, qpos0: np.ndarray, qvel0: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Initial positions and velocities from the model's own, tiled to [n, nq] and [n, nv]."""


class MujocoTaskDistribution(MujocoEquations, TaskDistribution):
    """A family of tasks on one MJCF model. Subclasses state the class attributes and the equations.

    body: what lies between policy and physics (delays, noise, motors that fail), and changes in mid-episode. Its
        parameters must be among the family's own.
    """

    edits_model: bool = False  # whether `edit` changes model fields
    backend: str | None = None  # "mjbatch", "mujoco", or None for the faster one installed
    unstable: str = "fault"  # what a simulation that MuJoCo calls unstable is: a "fault", or the episode's end
    body: Body | None = None

    def __init__(self, horizon: int = 200, backend: str | None = None, unstable: str = "fault"):
        require_horizon(self, horizon)
        if unstable not in ("fault", "terminate"):
            raise TaskError(f"{self.name}: unstable must be fault or terminate, got {unstable!r}")
        if backend not in (None, "mjbatch", "mujoco"):
            raise TaskError(f"{self.name}: backend must be mjbatch or mujoco, got {backend!r}")
        self.horizon, self.backend, self.unstable = horizon, backend, unstable

    def edit(self, physics: Physics, params: TaskParams) -> None:
        """Write the tasks' dynamics into `physics.field(...)`; mj_setConst follows."""

    def edit_live(self, physics: Physics, params: TaskParams) -> None:
        """Write those dynamics that change in mid-episode, which need no mj_setConst; `params` holds their values
        at this step."""

    def change_step(self, task: Task) -> float | None:
        """The first step at which a value begins to hold that differs from the unvaried robot's."""
        return super().change_step(task) if self.body is None else self.body.change_step(task)

    def model(self) -> Any:
        """The compiled base model; TaskError where its file is not found or does not compile."""
        return load_model(self)

    def fingerprint(self) -> dict[str, str]:
        return fingerprint_of(self.model())

    def make(self, task: Task, render_mode: str | None = None) -> gymnasium.Env:
        batch = MujocoBatch(self, [task])
        return SingleTaskEnv(batch, render=batch.render_frame if render_mode == "rgb_array" else None)

    def make_batch(self, tasks: Sequence[Task]) -> TaskBatch:
        return MujocoBatch(self, tasks)


class MujocoBatch(TaskBatch):
    """All tasks' simulations stepped together on one `Physics`."""

    def __init__(self, family: MujocoTaskDistribution, tasks: Sequence[Task]):
        if not tasks:
            raise TaskError("a batch needs at least one task")
        self._family = family
        self._renderers: dict[tuple[int, int, int], Any] = {}
        model = family.model()
        _require_actuators(family, model)
        threads = int(os.environ.get("METARL_PHYSICS_THREADS", "0"))
        self._physics = make_physics(model, len(tasks), family.data_fields, threads, family.backend)
        n = len(tasks)
        self._qpos0, self._qvel0 = np.tile(model.qpos0, (n, 1)), np.zeros((n, model.nv))
        low, high = model.actuator_ctrlrange.T
        action = gymnasium.spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)
        dim = family.observe(self._physics).shape[1]
        self._body: BodyState | None = family.body.start(action, dim, n) if family.body else None
        self.set_tasks(tasks)
        observation = gymnasium.spaces.Box(-np.inf, np.inf, (dim,), np.float64)
        self._set_spaces(observation, action, n, render_fps=round(1 / (model.opt.timestep * family.frame_skip)))
        self._low, self._high = low.copy(), high.copy()
        self._all_running = True
        self._unstable_counts = unstable_counts(self._physics)
        self._was_unstable = np.zeros(n, bool)
        self._steps = np.zeros(n, np.int64)
        self._obs = np.zeros((n, dim))

    @property
    def physics(self) -> Physics:
        return self._physics

    def set_tasks(self, tasks: Sequence[Task]) -> None:
        if len(tasks) != self._physics.num_sims:
            raise TaskError(f"this batch holds {self._physics.num_sims} tasks, got {len(tasks)}")
        self._close_renderers()
        self.tasks = tuple(tasks)
        self._params = params_of(tasks)
        if self._body is not None:
            self._body.set_tasks(tasks, self._params)
        if self._family.edits_model:
            self._family.edit(self._physics, self._params if self._body is None else self._body.values)
            self._physics.commit()

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Reset (the masked) simulations; all draws come from one generator seeded by `seed`."""
        mask = self._reset_mask(options, self.num_envs)
        qpos, qvel = self._family.reset_state(self._generator(seed), self._qpos0.copy(), self._qvel0.copy())
        if self._body is not None:
            self._edit_where(self._body.reset(mask, seeds_of_rows(seed, self.num_envs)))
        self._physics.reset(None if mask.all() else mask, qpos, qvel)
        self._terminated[mask] = self._truncated[mask] = False
        self._all_running = not self._terminated.any()
        self._was_unstable[mask], self._steps[mask] = False, 0
        self._obs = self._observe()
        return self._obs if self._body is None else self._body.observe(self._obs, mask), {}

    def _edit_where(self, changed: bool) -> None:
        """Make changes in mid-episode take effect, where there are any."""
        if changed and self._body is not None:
            self._family.edit_live(self._physics, self._body.values)
            self._physics.write()

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        physics, family = self._physics, self._family
        running = None if self._all_running else ~self._terminated
        clipped = np.clip(actions, self._low, self._high)
        if self._body is not None:
            self._edit_where(self._body.advance(running))
            clipped = self._body.act(clipped, running)
        before = family.before(physics)  # with the action of the step before still in `ctrl`
        physics.ctrl[:] = clipped
        physics.step(running, family.frame_skip)
        obs = self._observe()
        rewards = family.reward(physics, before, clipped, self._params)
        terminated = family.terminated(physics)
        if running is not None:
            rewards = np.where(running, rewards, 0.0)
        self._steps += 1
        if self._unstable_counts.any() or family.unstable == "terminate":
            obs, rewards, terminated = self._end_unstable(obs, rewards, terminated)
        if self._body is not None:
            obs = self._body.observe(obs, running)
        if terminated is not None:
            self._terminated = self._terminated | terminated
            self._all_running = not self._terminated.any()
        return obs, rewards, self._terminated.copy(), self._truncated.copy(), {}

    def _observe(self) -> np.ndarray:
        """The family's observations, as an array that no later step writes."""
        obs = self._family.observe(self._physics)
        return obs if obs.base is None else obs.copy()

    def _end_unstable(
        self, obs: np.ndarray, rewards: np.ndarray, terminated: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """End the episodes of unstable simulations where the family says so: terminated, with the last observation
        from before and reward 0. Otherwise EnvironmentFault naming task and step."""
        unstable = self._unstable_counts.any(axis=1)
        if self._family.unstable == "fault":
            i = int(np.argmax(unstable))
            raise EnvironmentFault(
                f"{self.tasks[i]}: the simulation became unstable at step {self._steps[i] - 1}: MuJoCo warns of a bad "
                f"{instabilities(self._physics.warnings[i])}; use a smaller timestep or milder parameters, or end such "
                "episodes with the option unstable=terminate"
            )
        self._was_unstable |= unstable | ~np.isfinite(obs).all(axis=1) | ~np.isfinite(rewards)
        ended = self._was_unstable
        self._obs = np.where(ended[:, None], self._obs, obs)
        return self._obs, np.where(ended, 0.0, rewards), ended if terminated is None else terminated | ended

    def render_frame(
        self, index: int = 0, width: int = 320, height: int = 240, camera: str | int | None = None
    ) -> np.ndarray:
        """An RGB picture [height, width, 3] of one simulation as it stands, the task's own model fields and targets
        included; EnvironmentFault where no OpenGL is found."""
        model, data = self._physics.simulation(index)
        if camera is None:
            camera = 0 if model.ncam else -1
        try:
            renderer = self._renderer(index, model, height, width)
            renderer.update_scene(data, camera)
            return renderer.render().copy()
        except Exception as error:
            hint = "set MUJOCO_GL to egl or osmesa"
            raise EnvironmentFault(f"cannot render {self.tasks[index]}: {error} ({hint})") from error

    def _renderer(self, index: int, model: Any, height: int, width: int) -> Any:
        """A renderer of one simulation: kept, because making one takes as long as many pictures, until its task
        changes and with it what the model shows."""
        key = (index, height, width)
        if key not in self._renderers:
            self._renderers[key] = mujoco.Renderer(model, height, width)
        return self._renderers[key]

    def _close_renderers(self) -> None:
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers = {}

    def close_extras(self, **kwargs: Any) -> None:
        self._close_renderers()


def _require_actuators(family: MujocoTaskDistribution, model: Any) -> None:
    """TaskError where there is no actuator, or one without a control range: all of its actions would become 0."""
    if not model.nu:
        raise TaskError(f"{family.name}: {family.xml} has no actuator, so there is nothing to act with")
    for i, (low, high) in enumerate(model.actuator_ctrlrange):
        if not low < high:
            raise TaskError(
                f"{family.name}: actuator {model.actuator(i).name or f'number {i}'} of {family.xml} has no ctrlrange, "
                'so every action would become 0: write ctrlrange="LOW HIGH" for it'
            )
