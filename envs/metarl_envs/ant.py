"""Ant families: running direction (two, or any) and goal position.

Contact costs and contact forces are left out: the published results of these families come from MuJoCo 2.0,
where contact forces read zero.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from metarl.errors import TaskError
from metarl.tasks import Anchors, Choice, InDisc, Mixture, Parameter, TaskParams, Uniform
from metarl.tasks.mujoco import MujocoTaskDistribution
from metarl.tasks.physics import Physics

_TORSO = 1  # body id


class _Ant(MujocoTaskDistribution):
    """Reset noise as Gymnasium's Ant-v5. Velocities are those of the torso's `xpos`, as there."""

    xml = "ant.xml"

    def reset_state(
        self, rng: np.random.Generator, qpos0: np.ndarray, qvel0: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        qpos = qpos0 + rng.uniform(-0.1, 0.1, qpos0.shape)
        return qpos, qvel0 + 0.1 * rng.standard_normal(qvel0.shape)


class _AntRun(_Ant):
    """Reward v . (cos, sin)(angle) - 0.5 sum a^2 + 1 while healthy. Ends where not finite or z not in [0.2, 1].

    Observation 27: qpos without x and y, qvel.
    """

    data_fields = ("xpos",)

    @property
    def anchors(self) -> Anchors:
        source = "standing: 1 per step; by symmetry of the directions no task-blind policy has a higher expectation"
        return Anchors(1.0 * self.horizon, 1.0 * self.horizon, None, source)

    def observe(self, physics: Physics) -> np.ndarray:
        return np.concatenate((physics.qpos[:, 2:], physics.qvel), axis=1)

    def before(self, physics: Physics) -> np.ndarray:
        return physics.data("xpos")[:, _TORSO, :2].copy()

    def reward(self, physics: Physics, before: np.ndarray, action: np.ndarray, params: TaskParams) -> np.ndarray:
        dt = physics.model.opt.timestep * self.frame_skip
        velocity = (physics.data("xpos")[:, _TORSO, :2] - before) / dt
        angle = params["angle"]
        forward = velocity[:, 0] * np.cos(angle) + velocity[:, 1] * np.sin(angle)
        return forward - 0.5 * np.square(action).sum(axis=1) + _is_healthy(physics)

    def terminated(self, physics: Physics) -> np.ndarray:
        return ~_is_healthy(physics)


class AntDir(_AntRun):
    """Run forward (angle 0) or backward (angle pi). Train and test tasks coincide."""

    name = "AntDir"
    version = 1

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.parameters = (Parameter("angle", Choice((0.0, math.pi)), "rad"),)


class AntDir2D(_AntRun):
    """Run at any angle in [0, 2 pi)."""

    name = "AntDir2D"
    version = 1

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.parameters = (Parameter("angle", Uniform(0.0, 2 * math.pi), "rad"),)


class AntGoal(_Ant):
    """Walk to a goal in a disc of radius 3. Reward -|x - g_x| - |y - g_y| - 0.1 sum a^2. Never terminates.

    Observation 29: qpos and qvel in full; the distance is that of qpos. `protocol="interpolation"` trains on
    goals with r in [0, 1] and [2.5, 3] and tests on the ring between.
    """

    name = "AntGoal"
    version = 1

    def __init__(self, protocol: str = "standard", **kwargs: Any):
        super().__init__(**kwargs)
        ood = InDisc(4.0, inner=3.0)
        if protocol == "standard":
            goal = Parameter("goal", InDisc(3.0), "m", ood=ood)
        elif protocol == "interpolation":
            prior = Mixture(InDisc(1.0), InDisc(3.0, inner=2.5))
            goal = Parameter("goal", prior, "m", test=InDisc(2.5, inner=1.0), ood=ood)
        else:
            raise TaskError(f"{self.name}: protocol must be standard or interpolation, got {protocol!r}")
        self.protocol = protocol
        self.parameters = (goal,)

    @property
    def anchors(self) -> Anchors:
        if self.protocol != "standard":
            return Anchors()
        standing = -self.horizon * 8 * 3.0 / (3 * math.pi)
        source = (
            "closed form, reset noise left out: standing at the origin, E(|x| + |y|) = 8 R / (3 pi) in a disc; "
            "the origin is the median of the goals in each coordinate, so the best place for a task-blind policy"
        )
        return Anchors(standing, standing, None, source)

    def observe(self, physics: Physics) -> np.ndarray:
        return np.concatenate((physics.qpos, physics.qvel), axis=1)

    def reward(self, physics: Physics, before: np.ndarray, action: np.ndarray, params: TaskParams) -> np.ndarray:
        distance = np.abs(physics.qpos[:, :2] - params["goal"]).sum(axis=1)
        return -distance - 0.1 * np.square(action).sum(axis=1)


def _is_healthy(physics: Physics) -> np.ndarray:
    """Finite and torso height in [0.2, 1], [n]."""
    z = physics.qpos[:, 2]
    finite = np.isfinite(physics.qpos).all(axis=1) & np.isfinite(physics.qvel).all(axis=1)
    return finite & (z >= 0.2) & (z <= 1.0)
