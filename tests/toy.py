"""A small adaptive policy and a small task distribution, for tests of whatever runs them. Pure NumPy."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gymnasium
import numpy as np

from metarl.rollout.spaces import Spaces
from metarl.rollout.types import Episodes, Extras, RoundPlan, Transition, TrialPlan, Unit, Weights
from metarl.tasks import Parameter, Task, TaskDistribution, Uniform

Fault = Literal[
    "none",
    "raise",
    "exit",
    "nan",
    "hang_step",
    "hang_hard",
    "hang_make",
    "raise_make",
    "exit_make",
    "shape",
    "terminated",
    "die",
    "die_once",
    "hang_once",
    "slow",
]


@dataclass(frozen=True)
class LinearPolicy:
    """a = obs W + b + noise. Adapts: each round moves b [K, A] along the covariance of noise and return."""

    spaces: Spaces
    step_size: float = 0.1

    def initial_weights(self, seed: int = 0) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(seed)
        gain = 0.1 * rng.standard_normal((self.spaces.obs_dim, self.spaces.action_dim))
        return {"gain": gain.astype(np.float32), "bias": np.zeros(self.spaces.action_dim, np.float32)}

    def begin_trial(
        self, weights: Weights, num_tasks: int, num_streams: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        return weights["gain"], np.tile(weights["bias"], (num_tasks, 1))

    def act(
        self,
        state: tuple[np.ndarray, np.ndarray],
        observations: np.ndarray,
        rng: np.random.Generator,
        deterministic: bool,
    ) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray], Extras]:
        gain, bias = state
        mean = observations @ gain + bias[:, None]
        noise = rng.standard_normal(mean.shape).astype(np.float32) * (0.0 if deterministic else 0.3)
        return (mean + noise).astype(np.float32), state, {"noise": noise.astype(np.float32)}

    def observe(self, state: tuple[np.ndarray, np.ndarray], transition: Transition) -> tuple[np.ndarray, np.ndarray]:
        return state

    def end_round(
        self, state: tuple[np.ndarray, np.ndarray], episodes: Episodes, adapt: bool
    ) -> tuple[tuple[np.ndarray, np.ndarray], Extras]:
        gain, bias = state
        if adapt:
            centred = episodes.rewards - episodes.rewards.mean(axis=(1, 2), keepdims=True)
            move = np.einsum("knt,knta->ka", centred, episodes.extras["noise"]) / centred[0].size
            bias = (bias + self.step_size * move).astype(np.float32)
        return (gain, bias), {"bias": bias}


class PointEnv(gymnasium.Env):
    """A point that is to reach the goal: obs [x, v], reward -(x - goal)^2; episodes end beyond |x| > 2."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, goal: float, fault: Fault, flag: str):
        self._goal, self._fault, self._flag = goal, fault, flag
        self._state, self._t = np.zeros(2), 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self._state, self._t = self.np_random.normal(0, 0.3, 2), 0
        return self._state.copy(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self._t += 1
        if self._t == 3:
            _misbehave(self._fault, self._flag)
        x, v = self._state
        v = 0.9 * v + 0.2 * float(action[0])
        self._state = np.array([x + 0.2 * v, v])
        reward = float("nan") if self._fault == "nan" and self._t == 3 else -((x - self._goal) ** 2)
        obs = np.zeros(3) if self._fault == "shape" and self._t == 3 else self._state.copy()
        return obs, reward, bool(abs(x) > 2), False, {}


def _misbehave(fault: Fault, flag: str) -> None:
    if fault == "raise":
        raise ZeroDivisionError("the motor came off")
    if fault == "exit":
        raise SystemExit("the simulator wants to quit")
    if fault == "hang_step":
        time.sleep(3600)
    if fault == "hang_hard":
        ctypes.PyDLL(None).sleep(3600)  # native code that never lets go of the interpreter
    if fault == "die_once" and not Path(flag).exists():
        Path(flag).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "hang_once" and not Path(flag).exists():
        Path(flag).touch()
        time.sleep(3600)
    if fault == "slow" and not Path(flag or "-").exists():
        time.sleep(0.3)
    if fault == "terminated":
        signal.raise_signal(signal.SIGTERM)
    if fault == "die":
        os.kill(os.getpid(), signal.SIGKILL)


class Point(TaskDistribution):
    """Goals in [-1, 1]. `fault` strikes the environments of tasks whose goal exceeds `above`."""

    name = "Point"

    def __init__(self, fault: Fault = "none", above: float = 0.9, flag: str = "", horizon: int = 10):
        self.horizon, self._fault, self._above, self._flag = horizon, fault, above, flag
        self.parameters = (Parameter("goal", Uniform(-1.0, 1.0), "m"),)

    def make(self, task: Task) -> gymnasium.Env:
        goal = number(task["goal"])
        fault: Fault = self._fault if goal > self._above else "none"
        if fault == "raise_make":
            raise FileNotFoundError("robot.xml")
        if fault == "exit_make":
            raise SystemExit(0)
        if fault == "hang_make":
            time.sleep(3600)
        return PointEnv(goal, fault, self._flag)


def number(value: float | tuple[float, ...]) -> float:
    """A task's value that is one number."""
    assert not isinstance(value, tuple)
    return float(value)


def point_policy() -> LinearPolicy:
    return LinearPolicy(Spaces(2, 1))


def make_units(
    distribution: TaskDistribution, num_units: int, tasks_per_unit: int = 2, num_streams: int = 2, seed: int = 0
) -> list[Unit]:
    """Units of two rounds, one adapted on and one judged, on tasks of the training split."""
    plan = TrialPlan(num_streams, distribution.horizon, (RoundPlan("support"), RoundPlan("query", adapt=False)))
    tasks = distribution.sample("train", num_units * tasks_per_unit, seed)
    groups = [tasks[i * tasks_per_unit : (i + 1) * tasks_per_unit] for i in range(num_units)]
    return [Unit(i, group, plan, (seed, i)) for i, group in enumerate(groups)]
