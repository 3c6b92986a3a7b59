"""HalfCheetah families: target velocity, direction, dynamics."""

from __future__ import annotations

from typing import Any

import numpy as np

from metarl.tasks import Anchors, Choice, Mixture, Parameter, Uniform
from metarl.tasks.mujoco import MujocoTaskDistribution, Params
from metarl.tasks.physics import Physics


class _HalfCheetah(MujocoTaskDistribution):
    """Observation 17: qpos without x, qvel. Never terminates. Reset noise as Gymnasium's HalfCheetah-v5."""

    xml = "half_cheetah.xml"

    def observe(self, physics: Physics) -> np.ndarray:
        return np.concatenate((physics.qpos[:, 1:], physics.qvel), axis=1)

    def reset_state(self, rng: np.random.Generator, qpos0: np.ndarray, qvel0: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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
    """Run at a target velocity v*. Reward -|v - v*| - 0.05 sum a^2."""

    name = "HalfCheetahVel"

    def __init__(self, protocol: str = "standard", **kwargs: Any):
        super().__init__(**kwargs)
        if protocol == "standard":
            prior, test = Uniform(0.0, 3.0), None
        elif protocol == "interpolation":
            prior, test = Mixture(Uniform(0.0, 0.5), Uniform(3.0, 3.5)), Uniform(0.75, 2.75)
        else:
            from metarl.errors import TaskError

            raise TaskError(f"HalfCheetahVel: protocol must be standard or interpolation, got {protocol!r}")
        self.protocol = protocol
        ood = Uniform(3.0, 4.0) if protocol == "standard" else Uniform(3.5, 4.5)
        self.parameters = (Parameter("velocity", prior, "m/s", test, ood),)

    @property
    def anchors(self) -> Anchors:
        scale = self.horizon / 200
        if self.protocol != "standard":
            return Anchors()
        return Anchors(-300 * scale, -150 * scale, None, "closed form: mean |v - v*| standing still / at 1.5 m/s, v* ~ U[0, 3]")

    def reward(self, physics: Physics, before: np.ndarray, action: np.ndarray, params: Params) -> np.ndarray:
        return -np.abs(self.forward_velocity(physics, before) - params["velocity"]) - self.control_cost(action)


class HalfCheetahDir(_HalfCheetah):
    """Run forward (+1) or backward (-1). Reward d v - 0.05 sum a^2. Train and test tasks coincide."""

    name = "HalfCheetahDir"

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.parameters = (Parameter("direction", Choice((-1.0, 1.0))),)

    @property
    def anchors(self) -> Anchors:
        return Anchors(0.0, 0.0, None, "symmetry: a task-blind policy earns as much forward as it loses backward")

    def reward(self, physics: Physics, before: np.ndarray, action: np.ndarray, params: Params) -> np.ndarray:
        return params["direction"] * self.forward_velocity(physics, before) - self.control_cost(action)
