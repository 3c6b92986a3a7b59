"""Point robots: a point in the plane that must go to a goal it cannot see."""

from __future__ import annotations

import functools
import math
from typing import Any

import gymnasium
import numpy as np

from metarl.tasks import Anchors, InDisc, Parameter, Task, TaskParams, Uniform
from metarl.tasks.arrays import ArrayTaskDistribution

MAX_STEP = 0.1  # per coordinate and environment step
GOAL_RADIUS = 0.2  # of SparsePointGoal: beyond it the reward is 0


class _Point(ArrayTaskDistribution):
    """Observation 2: position. Action 2: displacement, each coordinate clipped to +-0.1. Never terminates."""

    def __init__(self, horizon: int):
        super().__init__(horizon)
        self.single_observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.single_action_space = gymnasium.spaces.Box(-MAX_STEP, MAX_STEP, (2,), np.float32)

    @staticmethod
    def move(position: np.ndarray, action: np.ndarray) -> np.ndarray:
        """Positions [n, 2] after the step."""
        return position + np.clip(action, -MAX_STEP, MAX_STEP)

    def goal(self, task: Task) -> np.ndarray:
        """Where the task's goal is, [2]."""
        return np.asarray(task["goal"], np.float64)

    def picture(self, path: np.ndarray, task: Task) -> np.ndarray:
        """The plane from above: the path so far, the robot, and the goal, which the robot does not see."""
        return plane_picture(path, self.goal(task), GOAL_RADIUS)


class PointGoal(_Point):
    """Goal and start uniform in [-1, 1]^2. Reward minus the distance to the goal after the move."""

    name = "PointGoal"
    version = 1

    def __init__(self, horizon: int = 20):
        super().__init__(horizon)
        # The ring around the square: every goal of it lies farther out than the square's corners.
        self.parameters = (Parameter("goal", Uniform(-1.0, 1.0, 2), "m", ood=InDisc(2.0, inner=math.sqrt(2))),)

    @property
    def anchors(self) -> Anchors:
        source = (
            "exact: mean distance of start and goal; straight to the centre; straight to the goal "
            "(one-step means by Gauss-Legendre quadrature, 64 nodes)"
        )
        return Anchors(point_nothing(self.horizon), point_task_blind(self.horizon), point_expert(self.horizon), source)

    def initial_state(self, rng: np.random.Generator, n: int) -> np.ndarray:
        return rng.uniform(-1.0, 1.0, (n, 2))

    def transition(
        self, rng: np.random.Generator, state: np.ndarray, action: np.ndarray, params: TaskParams
    ) -> tuple[np.ndarray, np.ndarray]:
        position = self.move(state, action)
        return position, -np.hypot(*(position - params["goal"]).T)


class SparsePointGoal(_Point):
    """Goal on the unit semicircle at an angle in [0, pi], start 0. Reward 1 - d within d <= 0.2, else 0.

    The literature uses 100 steps (several episodes per trial) or 20.
    """

    name = "SparsePointGoal"
    version = 1

    def __init__(self, horizon: int = 100):
        super().__init__(horizon)
        self.parameters = (Parameter("angle", Uniform(0.0, math.pi), "rad", ood=Uniform(math.pi, 2 * math.pi)),)

    @property
    def anchors(self) -> Anchors:
        source = "exact: standing at the start earns 0; straight to the goal (midpoint rule over the angle, 4096 nodes)"
        return Anchors(0.0, None, sparse_point_expert(self.horizon), source)

    def goal(self, task: Task) -> np.ndarray:
        angle = float(task["angle"])  # type: ignore[arg-type]
        return np.array([math.cos(angle), math.sin(angle)])

    def initial_state(self, rng: np.random.Generator, n: int) -> np.ndarray:
        return np.zeros((n, 2))

    def transition(
        self, rng: np.random.Generator, state: np.ndarray, action: np.ndarray, params: TaskParams
    ) -> tuple[np.ndarray, np.ndarray]:
        position = self.move(state, action)
        angle = params["angle"]
        distance = np.hypot(position[:, 0] - np.cos(angle), position[:, 1] - np.sin(angle))
        return position, np.where(distance <= GOAL_RADIUS, 1.0 - distance, 0.0)


# --- pictures ----------------------------------------------------------------------------------------


def plane_picture(path: np.ndarray, goal: np.ndarray, radius: float, width: int = 320, height: int = 240) -> np.ndarray:
    """A path [n, 2] in the plane, its last point and a goal with a radius, [height, width, 3] uint8.

    The square [-1.5, 1.5] x [-1.5, 1.5], or as much more as the path and the goal need.
    """
    from PIL import Image, ImageDraw

    reach = max(1.5, 1.1 * float(np.abs(np.vstack((path, goal))).max()))
    scale = 2 * min(width, height) / (2 * reach)  # drawn at twice the size, so that edges come out smooth

    def at(point: np.ndarray) -> tuple[float, float]:
        return width + scale * float(point[0]), height - scale * float(point[1])

    def disc(centre: np.ndarray, size: float) -> tuple[float, float, float, float]:
        x, y = at(centre)
        return x - size, y - size, x + size, y + size

    image = Image.new("RGB", (2 * width, 2 * height), "white")
    draw = ImageDraw.Draw(image)
    for line in (((-reach, 0.0), (reach, 0.0)), ((0.0, -reach), (0.0, reach))):
        draw.line([at(np.array(end)) for end in line], fill="#e6e6e6", width=2)
    draw.ellipse(disc(goal, radius * scale), fill="#f5cdb2")
    draw.ellipse(disc(goal, 5), fill="#D55E00")
    draw.line([at(point) for point in path], fill="#0072B2", width=5, joint="curve")
    draw.ellipse(disc(path[0], 5), outline="#0072B2", width=2)
    draw.ellipse(disc(path[-1], 9), fill="#1a1a1a")
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))


# --- anchors: the returns of policies known in closed form -------------------------------------------


def point_nothing(horizon: int) -> float:
    """-H E|s - g|, start s and goal g uniform in a square of side 2: side (2 + sqrt 2 + 5 asinh 1) / 15."""
    return -horizon * 2 * (2 + math.sqrt(2) + 5 * math.asinh(1)) / 15


@functools.lru_cache
def point_task_blind(horizon: int) -> float:
    """The best return without knowing the goal: each coordinate straight to 0.

    E|x - g| over the goals is convex and even in each coordinate, so it grows with |x_1| and with |x_2|,
    and going to 0 at full speed makes both the smallest that any policy can, at every step.
    """
    nodes, weights = _quadrature(0.0, 1.0)  # |start| per coordinate
    total = 0.0
    for t in range(1, horizon + 1):
        x = np.maximum(nodes - MAX_STEP * t, 0.0)
        total += weights @ _mean_distance_to_square(x[:, None], x[None, :]) @ weights
    return -float(total)


@functools.lru_cache
def point_expert(horizon: int) -> float:
    """The best return with the goal known: each coordinate straight to it.

    u = |s - g| has the density (2 - u) / 2 on [0, 2] in each coordinate; step t leaves max(u - 0.1 t, 0).
    """
    total = 0.0
    for t in range(1, horizon + 1):
        reach = min(MAX_STEP * t, 2.0)
        left, weights = _quadrature(0.0, 2.0 - reach)
        density = (2.0 - reach - left) / 2.0
        arrived = 1.0 - (2.0 - reach) ** 2 / 4.0  # the probability that a coordinate has arrived
        p = weights * density
        total += p @ np.hypot(left[:, None], left[None, :]) @ p + 2 * arrived * float(p @ left)
    return -float(total)


@functools.lru_cache
def sparse_point_expert(horizon: int) -> float:
    """The best return of SparsePointGoal with the goal known: each coordinate straight to it."""
    angle = (np.arange(4096) + 0.5) * math.pi / 4096
    goal = np.abs(np.stack((np.cos(angle), np.sin(angle))))
    total = 0.0
    for t in range(1, horizon + 1):
        distance = np.hypot(*np.maximum(goal - MAX_STEP * t, 0.0))
        total += float(np.where(distance <= GOAL_RADIUS, 1.0 - distance, 0.0).mean())
    return total


def _quadrature(low: float, high: float, nodes: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre nodes and weights on [low, high]."""
    x, w = np.polynomial.legendre.leggauss(nodes)
    return low + (x + 1) * (high - low) / 2, w * (high - low) / 2


def _mean_distance_to_square(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """E|(x, y) - g|, g uniform in [-1, 1]^2: the integral over the four rectangles that meet in (x, y), over 4."""
    total: Any = 0.0
    for a in (1 - x, 1 + x):
        for b in (1 - y, 1 + y):
            diagonal = np.hypot(a, b)
            total = total + 2 * a * b * diagonal + a**3 * np.arcsinh(b / a) + b**3 * np.arcsinh(a / b)
    return total / 24.0
