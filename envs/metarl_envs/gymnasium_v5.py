"""Equations of Gymnasium's v5 MuJoCo environments in batched form, with their default settings.

Registered in the entry-point group `metarl.mujoco_equations`, so that variations of these ids run on the native path.
"""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from metarl.tasks import TaskParams
from metarl.tasks.mujoco import MujocoEquations
from metarl.tasks.physics import Physics


class _Forward(MujocoEquations):
    """Reward v - c sum a^2, with v the velocity of the root along x [m/s]."""

    control_cost: float = 1e-3
    noise: float = 5e-3

    def reward(self, physics: Physics, before: np.ndarray, action: np.ndarray, params: TaskParams) -> np.ndarray:
        return self.forward_velocity(physics, before) - self.control_cost * np.square(action).sum(axis=1)

    def forward_velocity(self, physics: Physics, before: np.ndarray) -> np.ndarray:
        """(x_after - x_before) / dt, [n]."""
        return (physics.qpos[:, 0] - before) / (physics.model.opt.timestep * self.frame_skip)

    def reset_state(
        self, rng: np.random.Generator, qpos0: np.ndarray, qvel0: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        noise = self.noise
        return qpos0 + rng.uniform(-noise, noise, qpos0.shape), qvel0 + rng.uniform(-noise, noise, qvel0.shape)


class HalfCheetah(_Forward):
    """HalfCheetah-v5: observation 17, reward v - 0.1 sum a^2, never terminates."""

    xml, frame_skip, control_cost, noise = "half_cheetah.xml", 5, 0.1, 0.1

    def observe(self, physics: Physics) -> np.ndarray:
        return np.concatenate((physics.qpos[:, 1:], physics.qvel), axis=1)

    def reset_state(
        self, rng: np.random.Generator, qpos0: np.ndarray, qvel0: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        qpos = qpos0 + rng.uniform(-self.noise, self.noise, qpos0.shape)
        return qpos, qvel0 + self.noise * rng.standard_normal(qvel0.shape)


class Swimmer(_Forward):
    """Swimmer-v5: observation 8, reward v - 1e-4 sum a^2, never terminates."""

    xml, frame_skip, control_cost, noise = "swimmer.xml", 4, 1e-4, 0.1

    def observe(self, physics: Physics) -> np.ndarray:
        return np.concatenate((physics.qpos[:, 2:], physics.qvel), axis=1)


class _Walking(_Forward):
    """Adds 1 per step while healthy, and ends where not. Velocities are observed within +-10."""

    frame_skip = 4

    def observe(self, physics: Physics) -> np.ndarray:
        return np.concatenate((physics.qpos[:, 1:], np.clip(physics.qvel, -10.0, 10.0)), axis=1)

    def reward(self, physics: Physics, before: np.ndarray, action: np.ndarray, params: TaskParams) -> np.ndarray:
        velocity = self.forward_velocity(physics, before)
        return velocity + self.is_healthy(physics) - self.control_cost * np.square(action).sum(axis=1)

    def terminated(self, physics: Physics) -> np.ndarray:
        return ~self.is_healthy(physics)

    @abstractmethod
    def is_healthy(self, physics: Physics) -> np.ndarray:
        """Whether each robot stands [n], as Gymnasium's v5 defines it."""


class Walker2d(_Walking):
    """Walker2d-v5: observation 17. Healthy: height in (0.8, 2), angle in (-1, 1)."""

    xml = "walker2d_v5.xml"

    def is_healthy(self, physics: Physics) -> np.ndarray:
        z, angle = physics.qpos[:, 1], physics.qpos[:, 2]
        return (z > 0.8) & (z < 2.0) & (angle > -1.0) & (angle < 1.0)


class Hopper(_Walking):
    """Hopper-v5: observation 11. Healthy: height above 0.7, angle in (-0.2, 0.2), all else in (-100, 100)."""

    xml = "hopper.xml"

    def is_healthy(self, physics: Physics) -> np.ndarray:
        z, angle = physics.qpos[:, 1], physics.qpos[:, 2]
        in_range = (np.abs(physics.qpos[:, 2:]) < 100).all(axis=1) & (np.abs(physics.qvel) < 100).all(axis=1)
        return in_range & (z > 0.7) & (np.abs(angle) < 0.2)


class InvertedPendulum(MujocoEquations):
    """InvertedPendulum-v5: observation 4, reward 1 per step. Ends where the angle leaves (-0.2, 0.2)."""

    xml, frame_skip = "inverted_pendulum.xml", 2

    def observe(self, physics: Physics) -> np.ndarray:
        return np.concatenate((physics.qpos, physics.qvel), axis=1)

    def reward(self, physics: Physics, before: np.ndarray, action: np.ndarray, params: TaskParams) -> np.ndarray:
        return (~self.terminated(physics)).astype(np.float64)

    def terminated(self, physics: Physics) -> np.ndarray:
        is_finite = np.isfinite(physics.qpos).all(axis=1) & np.isfinite(physics.qvel).all(axis=1)
        return ~(is_finite & (np.abs(physics.qpos[:, 1]) <= 0.2))

    def reset_state(
        self, rng: np.random.Generator, qpos0: np.ndarray, qvel0: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        return qpos0 + rng.uniform(-0.01, 0.01, qpos0.shape), qvel0 + rng.uniform(-0.01, 0.01, qvel0.shape)


class Reacher(MujocoEquations):
    """Reacher-v5: observation 10, reward minus the fingertip's distance to the target minus sum a^2.

    Distances are those of `xpos` as the step leaves them, as in Gymnasium. Never terminates.
    """

    xml, frame_skip, data_fields = "reacher.xml", 2, ("xpos",)

    def _distance(self, physics: Physics) -> np.ndarray:
        """From the target to the fingertip [n, 3]."""
        model = physics.model
        places = physics.data("xpos")
        return np.asarray(places[:, model.body("fingertip").id] - places[:, model.body("target").id])

    def observe(self, physics: Physics) -> np.ndarray:
        angles = physics.qpos[:, :2]
        parts = (np.cos(angles), np.sin(angles), physics.qpos[:, 2:], physics.qvel[:, :2])
        return np.concatenate((*parts, self._distance(physics)[:, :2]), axis=1)

    def reward(self, physics: Physics, before: np.ndarray, action: np.ndarray, params: TaskParams) -> np.ndarray:
        return -np.linalg.norm(self._distance(physics), axis=1) - np.square(action).sum(axis=1)

    def reset_state(
        self, rng: np.random.Generator, qpos0: np.ndarray, qvel0: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        qpos = qpos0 + rng.uniform(-0.1, 0.1, qpos0.shape)
        radius, angle = 0.2 * np.sqrt(rng.uniform(size=len(qpos))), rng.uniform(0, 2 * np.pi, len(qpos))
        qpos[:, 2:] = np.stack((radius * np.cos(angle), radius * np.sin(angle)), axis=1)
        qvel = qvel0 + rng.uniform(-0.005, 0.005, qvel0.shape)
        qvel[:, 2:] = 0
        return qpos, qvel
