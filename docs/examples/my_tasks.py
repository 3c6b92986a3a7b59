"""A pendulum whose length and damping vary, to be held upright by a torque too weak to lift it at once."""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import numpy as np

from metarl.tasks import LogUniform, Parameter, Task, TaskDistribution, Uniform


class PendulumEnv(gymnasium.Env):
    """Observation: cosine and sine of the angle, its velocity. Reward: minus the squared angle from upright."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float64)
    action_space = gymnasium.spaces.Box(-2.0, 2.0, (1,), np.float32)
    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}

    def __init__(self, length: float, damping: float, render_mode: str | None = None):
        self.length, self.damping, self.render_mode = length, damping, render_mode

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.angle, self.velocity = self.np_random.uniform(-math.pi, math.pi), 0.0
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        torque = float(np.clip(action[0], -2.0, 2.0))
        pull = 9.81 / self.length * math.sin(self.angle)
        self.velocity += 0.05 * (pull + torque / self.length**2 - self.damping * self.velocity)
        self.velocity = float(np.clip(self.velocity, -8.0, 8.0))
        self.angle = (self.angle + 0.05 * self.velocity + math.pi) % (2 * math.pi) - math.pi
        reward = -(self.angle**2) - 0.1 * self.velocity**2 - 0.001 * torque**2
        return self._observation(), reward, False, False, {}

    def render(self) -> np.ndarray:
        from PIL import Image, ImageDraw

        image = Image.new("RGB", (320, 240), "white")
        tip = (160 + 50 * self.length * math.sin(self.angle), 120 - 50 * self.length * math.cos(self.angle))
        ImageDraw.Draw(image).line([(160, 120), tip], fill="#0072B2", width=9)
        return np.asarray(image)

    def _observation(self) -> np.ndarray:
        return np.array([math.cos(self.angle), math.sin(self.angle), self.velocity])


class Pendulum(TaskDistribution):
    name, version, horizon = "MyPendulum", 1, 100
    parameters = (
        Parameter("length", LogUniform(0.7, 1.4), "m", ood=LogUniform(1.4, 2.0)),
        Parameter("damping", Uniform(0.0, 0.4), "1/s"),
    )

    def make(self, task: Task, render_mode: str | None = None) -> gymnasium.Env:
        return PendulumEnv(task["length"], task["damping"], render_mode)
