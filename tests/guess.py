"""A task distribution and an adaptive policy small enough to work out by hand.

The task is a goal; the action is a guess of it; each step costs the distance. The policy guesses `bias`
plus what it has learnt of the task, and after a round moves to its best action.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np

from metarl.rollout.types import Episodes, Extras, RoundPlan, Transition, TrialPlan, Weights
from metarl.tasks import Anchors, Choice, Parameter, Task, TaskDistribution, Uniform

HORIZON = 3
PLAN = TrialPlan(num_streams=4, horizon=HORIZON, rounds=(RoundPlan("support"), RoundPlan("query", adapt=False)))


class GuessEnv(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float64)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float64)

    def __init__(self, goal: float):
        self._goal = goal

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        return np.zeros(1), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        return np.zeros(1), -abs(float(action[0]) - self._goal), False, False, {}


class Guess(TaskDistribution):
    """Goals in [-0.5, 0.5], outside up to 0.9."""

    name = "Guess"
    parameters: tuple[Parameter, ...] = (Parameter("goal", Uniform(-0.5, 0.5), ood=Uniform(0.6, 0.9)),)
    horizon = HORIZON

    @property
    def anchors(self) -> Anchors:
        return Anchors(nothing=-0.75, task_blind=-0.75, expert=0.0, source="integrals of |goal| over the range")

    def make(self, task: Task) -> gymnasium.Env:
        goal = task["goal"]
        assert isinstance(goal, float)
        return GuessEnv(goal)


class GuessPair(Guess):
    """Two goals: train and test tasks coincide, nothing is out of range."""

    name = "GuessPair"
    parameters = (Parameter("goal", Choice((-0.5, 0.5))),)

    @property
    def anchors(self) -> Anchors:
        return Anchors()


@dataclass(frozen=True)
class GuessState:
    guess: np.ndarray  # [K, 1, 1]
    noise: float


class GuessPolicy:
    """`bias` plus noise; after a round the best action of the task's streams."""

    def begin_trial(self, weights: Weights, num_tasks: int, num_streams: int, rng: np.random.Generator) -> GuessState:
        return GuessState(np.full((num_tasks, 1, 1), float(weights["bias"][0])), float(weights["noise"][0]))

    def act(
        self, state: GuessState, observations: np.ndarray, rng: np.random.Generator, deterministic: bool
    ) -> tuple[np.ndarray, GuessState, Extras]:
        K, N, _ = observations.shape
        noise = 0.0 if deterministic else state.noise * rng.standard_normal((K, N, 1))
        return np.clip(state.guess + noise + np.zeros((K, N, 1)), -1, 1).astype(np.float32), state, {}

    def observe(self, state: GuessState, transition: Transition) -> GuessState:
        return state

    def end_round(self, state: GuessState, episodes: Episodes, adapt: bool) -> tuple[GuessState, Extras]:
        if not adapt:
            return state, {}
        K = len(episodes.rewards)
        best = episodes.rewards.reshape(K, -1).argmax(axis=1)
        guess = episodes.actions.reshape(K, -1)[np.arange(K), best]
        return GuessState(guess.reshape(K, 1, 1).astype(np.float64), state.noise), {}


def weights(bias: float = 0.0, noise: float = 0.3) -> dict[str, np.ndarray]:
    return {"bias": np.array([bias], np.float32), "noise": np.array([noise], np.float32)}


def tasks_of(distribution: TaskDistribution, goals: Sequence[float]) -> tuple[Task, ...]:
    return tuple(distribution.task(goal=goal) for goal in goals)
