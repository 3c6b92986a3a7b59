"""Small robots for the tests of this folder: one environment whose spaces and answers each test bends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from metarl.rollout.collect import collect_trials
from metarl.rollout.types import Extras, Round, RoundPlan, Transition, TrialPlan
from metarl.tasks import Parameter, Task, TaskDistribution, Uniform
from metarl.tasks.check import check_distribution
from tests.toy import number

FLAT = Box(-np.inf, np.inf, (2,), np.float64)
UNIT = Box(-1.0, 1.0, (1,), np.float32)


class Cart(gymnasium.Env):
    """A position that moves by the sum of the action; reward minus the distance to the goal. Keeps its actions."""

    observation_space: gymnasium.Space = FLAT

    def __init__(self, goal: float, action_space: gymnasium.Space = UNIT):
        self.goal, self.action_space = goal, action_space
        self.actions: list[Any] = []
        self.x, self.t = 0.0, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.x, self.t = float(self.np_random.uniform(-1, 1)), 0
        return self.observe(), {}

    def observe(self) -> Any:
        return np.array([self.x, self.t / 10])

    def step(self, action: Any) -> Any:
        self.actions.append(action)
        self.x, self.t = self.x + 0.1 * float(np.sum(np.asarray(action, np.float64))), self.t + 1
        return self.observe(), -abs(self.x - self.goal), False, False, {}


class Carts(TaskDistribution):
    """Carts built by `make_env`, by default plain ones. `made` holds them in the order in which they were built."""

    name, version, horizon = "Carts", 1, 10
    parameters: tuple[Parameter, ...] = (Parameter("goal", Uniform(-1.0, 1.0), "m"),)

    def __init__(self, make_env: Callable[[Task], Any] | None = None, *parameters: Parameter):
        self.make_env = make_env or (lambda task: Cart(number(task["goal"])))
        self.parameters = parameters or self.parameters
        self.made: list[Any] = []

    def make(self, task: Task) -> Any:
        self.made.append(self.make_env(task))
        return self.made[-1]

    def __reduce__(self) -> Any:
        return Carts, (None, *self.parameters)


class Constant:
    """A policy that gives one action, whatever it sees."""

    def __init__(self, action: Any, **logged: Any):
        self.action, self.logged = action, logged

    def begin_trial(self, weights: Any, num_tasks: int, num_streams: int, rng: Any) -> None:
        return None

    def act(self, state: None, observations: np.ndarray, rng: Any, deterministic: bool) -> tuple[Any, None, Extras]:
        assert np.isfinite(observations).all(), "the policy must not see this"
        shape = observations.shape[:2]

        def tiled(value: Any) -> np.ndarray:
            return np.broadcast_to(np.asarray(value), (*shape, *np.shape(value))).copy()

        return tiled(self.action), None, {name: tiled(value) for name, value in self.logged.items()}

    def observe(self, state: None, transition: Transition) -> None:
        return None

    def end_round(self, state: None, episodes: Any, adapt: bool) -> tuple[None, Extras]:
        return None, {}


def collect(
    distribution: TaskDistribution, policy: Any, tasks: list[Task] | None = None, streams: int = 1, horizon: int = 10
) -> tuple[Round, ...]:
    """One round on every task (three of the training split unless given)."""
    chosen = tasks or list(distribution.sample("train", 3, 0))
    batch = distribution.make_batch([task for task in chosen for _ in range(streams)])
    plan = TrialPlan(streams, horizon, (RoundPlan("query", adapt=False),))
    return collect_trials(policy, {}, batch, plan, np.random.default_rng(0), np.random.default_rng(1))


def failed_checks(distribution: TaskDistribution) -> dict[str, str]:
    """Names and messages of the checks that fail."""
    return {r.name: r.message for r in check_distribution(distribution) if not r.passed}


def warnings_of(distribution: TaskDistribution) -> list[str]:
    """What the checks warn of."""
    return [m.text for r in check_distribution(distribution) for m in r.remarks if m.is_warning]
