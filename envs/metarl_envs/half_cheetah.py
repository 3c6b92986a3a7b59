"""HalfCheetah families: target velocity, direction, dynamics."""

from __future__ import annotations

from typing import Any

import numpy as np

from metarl.errors import TaskError
from metarl.tasks import Anchors, Choice, LogUniform, Mixture, Parameter, Prior, TaskParams, Uniform
from metarl.tasks.mujoco import MujocoTaskDistribution
from metarl.tasks.physics import Physics


class _HalfCheetah(MujocoTaskDistribution):
    """Observation 17: qpos without x, qvel. Never terminates. Reset noise as Gymnasium's HalfCheetah-v5."""

    xml = "half_cheetah.xml"

    def observe(self, physics: Physics) -> np.ndarray:
        return np.concatenate((physics.qpos[:, 1:], physics.qvel), axis=1)

    def reset_state(
        self, rng: np.random.Generator, qpos0: np.ndarray, qvel0: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        qpos = qpos0 + rng.uniform(-0.1, 0.1, qpos0.shape)
        return qpos, qvel0 + 0.1 * rng.standard_normal(qvel0.shape)

    def forward_velocity(self, physics: Physics, before: np.ndarray) -> np.ndarray:
        """(x_after - x_before) / dt, [n], metres per second."""
        dt = physics.model.opt.timestep * self.frame_skip
        return (physics.qpos[:, 0] - before) / dt

    @staticmethod
    def control_cost(action: np.ndarray) -> np.ndarray:
        return 0.05 * np.einsum("na,na->n", action, action)


class HalfCheetahVel(_HalfCheetah):
    """Run at a target velocity v*. Reward -|v - v*| - 0.05 sum a^2.

    `protocol="interpolation"` trains on v* in [0, 0.5] and [3, 3.5] and tests between, on [0.75, 2.75].
    """

    name = "HalfCheetahVel"
    version = 1

    def __init__(self, protocol: str = "standard", **kwargs: Any):
        super().__init__(**kwargs)
        if protocol == "standard":
            velocity = Parameter("velocity", Uniform(0.0, 3.0), "m/s", ood=Uniform(3.0, 4.0))
        elif protocol == "interpolation":
            prior = Mixture(Uniform(0.0, 0.5), Uniform(3.0, 3.5))
            velocity = Parameter("velocity", prior, "m/s", test=Uniform(0.75, 2.75), ood=Uniform(3.5, 4.5))
        else:
            raise TaskError(f"{self.name}: protocol must be standard or interpolation, got {protocol!r}")
        self.protocol = protocol
        self.parameters = (velocity,)

    @property
    def anchors(self) -> Anchors:
        scale = self.horizon / 200
        if self.protocol != "standard":
            return Anchors()
        source = "closed form, control cost left out: mean |v - v*| standing still / at 1.5 m/s, v* ~ U[0, 3]"
        return Anchors(-300 * scale, -150 * scale, None, source)

    def reward(self, physics: Physics, before: np.ndarray, action: np.ndarray, params: TaskParams) -> np.ndarray:
        return -np.abs(self.forward_velocity(physics, before) - params["velocity"]) - self.control_cost(action)


class HalfCheetahDir(_HalfCheetah):
    """Run forward (+1) or backward (-1). Reward d v - 0.05 sum a^2. Train and test tasks coincide."""

    name = "HalfCheetahDir"
    version = 1

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.parameters = (Parameter("direction", Choice((-1.0, 1.0))),)

    @property
    def anchors(self) -> Anchors:
        return Anchors(0.0, 0.0, None, "symmetry: a task-blind policy earns as much forward as it loses backward")

    def reward(self, physics: Physics, before: np.ndarray, action: np.ndarray, params: TaskParams) -> np.ndarray:
        return params["direction"] * self.forward_velocity(physics, before) - self.control_cost(action)


class HalfCheetahDynamics(_HalfCheetah):
    """Run forward with a changed body or world. Reward v - 0.05 sum a^2.

    Multipliers of the model's own masses (and inertias), frictions, joint dampings, gravity and motor gears,
    one each for the whole robot; `failed_motor` is the index of a motor without force, or -1. The ood split
    takes every multiplier from outside its training range, below or above it.
    """

    name = "HalfCheetahDynamics"
    version = 1
    edits_model = True
    num_motors = 6

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        motors = Choice(tuple(float(i) for i in range(-1, self.num_motors)))
        self.parameters = (
            _multiplier("mass", 2.0, 3.0),
            _multiplier("friction", 2.0, 3.0),
            _multiplier("damping", 2.0, 3.0),
            _multiplier("gravity", 1.25, 1.75),
            _multiplier("strength", 1.5, 2.0),
            Parameter("failed_motor", motors),
        )

    @property
    def anchors(self) -> Anchors:
        return Anchors(
            0.0, None, None, "standing still: no velocity, no control cost; reset noise and settling left out"
        )

    def edit(self, physics: Physics, params: TaskParams) -> None:
        model = physics.model
        mass, friction, damping = params["mass"], params["friction"], params["damping"]
        physics.field("body_mass")[:] = model.body_mass * mass[:, None]
        physics.field("body_inertia")[:] = model.body_inertia * mass[:, None, None]
        physics.field("geom_friction")[:] = model.geom_friction * friction[:, None, None]
        physics.field("dof_damping")[:] = model.dof_damping * damping[:, None]
        physics.field("gravity")[:] = model.opt.gravity * params["gravity"][:, None]
        works = params["failed_motor"][:, None] != np.arange(self.num_motors)
        physics.field("actuator_gear")[:] = model.actuator_gear * (params["strength"][:, None] * works)[:, :, None]

    def reward(self, physics: Physics, before: np.ndarray, action: np.ndarray, params: TaskParams) -> np.ndarray:
        return self.forward_velocity(physics, before) - self.control_cost(action)


def _multiplier(name: str, factor: float, ood_factor: float) -> Parameter:
    """A multiplier in [1/factor, factor]; out of distribution up to `ood_factor` on either side."""
    ood: Prior = Mixture(LogUniform(1 / ood_factor, 1 / factor), LogUniform(factor, ood_factor))
    return Parameter(name, LogUniform(1 / factor, factor), "x", ood=ood)
