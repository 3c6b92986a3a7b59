"""Humanoid family: running direction."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from metarl.tasks import Anchors, Parameter, TaskParams, Uniform
from metarl.tasks.mujoco import MujocoTaskDistribution
from metarl.tasks.physics import Physics


class HumanoidDir(MujocoTaskDistribution):
    """Run at any angle in [0, 2 pi). Reward 1.25 v . (cos, sin)(angle) - 0.1 sum a^2 + 5 while healthy.

    v is the velocity of the centre of mass. Ends where the torso's height is not in (1, 2). Observation 270:
    Humanoid-v5's without contact forces; no contact cost (the published results come from MuJoCo 2.0, where
    contact forces read zero).
    """

    name = "HumanoidDir"
    version = 1
    xml = "humanoid.xml"
    data_fields = ("xipos", "cinert", "cvel", "qfrc_actuator")

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.parameters = (Parameter("angle", Uniform(0.0, 2 * math.pi), "rad"),)

    @property
    def anchors(self) -> Anchors:
        source = (
            "nothing: measured, 500 test tasks of seed 0: 196.8, standard error 0.2, all fallen by step 41; "
            "task-blind: standing, 5 per step, by symmetry of the directions a bound for all task-blind policies"
        )
        return Anchors(196.8 if self.horizon >= 41 else None, 5.0 * self.horizon, None, source)

    def observe(self, physics: Physics) -> np.ndarray:
        n = physics.num_sims
        return np.concatenate(
            (
                physics.qpos[:, 2:],
                physics.qvel,
                physics.data("cinert")[:, 1:].reshape(n, -1),
                physics.data("cvel")[:, 1:].reshape(n, -1),
                physics.data("qfrc_actuator")[:, 6:],
            ),
            axis=1,
        )

    def before(self, physics: Physics) -> np.ndarray:
        """Centre of mass [n, 2] on the ground plane: sum of m_b x_b over sum of m_b."""
        mass = physics.model.body_mass
        return np.einsum("b,nbj->nj", mass, physics.data("xipos")[:, :, :2]) / mass.sum()

    def reward(self, physics: Physics, before: np.ndarray, action: np.ndarray, params: TaskParams) -> np.ndarray:
        dt = physics.model.opt.timestep * self.frame_skip
        velocity = (self.before(physics) - before) / dt
        angle = params["angle"]
        forward = velocity[:, 0] * np.cos(angle) + velocity[:, 1] * np.sin(angle)
        return 1.25 * forward - 0.1 * np.square(action).sum(axis=1) + 5.0 * _is_healthy(physics)

    def terminated(self, physics: Physics) -> np.ndarray:
        return ~_is_healthy(physics)

    def reset_state(
        self, rng: np.random.Generator, qpos0: np.ndarray, qvel0: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        return qpos0 + rng.uniform(-0.01, 0.01, qpos0.shape), qvel0 + rng.uniform(-0.01, 0.01, qvel0.shape)


def _is_healthy(physics: Physics) -> np.ndarray:
    z = physics.qpos[:, 2]
    return (z > 1.0) & (z < 2.0)
