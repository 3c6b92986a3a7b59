"""What changes in mid-episode do to the reward, and how long it takes to recover."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box

from metarl.evaluation.change import WINDOW, of_episode
from metarl.evaluation.evaluate import Evaluation, evaluate
from metarl.report.table import table
from metarl.rollout.local import LocalExecutor
from metarl.rollout.types import RoundPlan, TrialPlan
from metarl.tasks import Choice, Parameter, Task, TaskDistribution, Uniform
from tests.toy import number


def test_the_time_to_recover_is_counted_from_the_change() -> None:
    rewards = np.concatenate((np.full(30, 1.0), np.full(15, 0.2), np.full(20, 0.95)))
    assert of_episode(rewards, 30, False) == (1.0, pytest.approx((15 * 0.2 + 20 * 0.95) / 35), 15)


def test_a_loss_within_a_tenth_is_no_loss_and_negative_rewards_count_by_their_size() -> None:
    assert of_episode(np.repeat([2.0, 1.9], 20), 20, False) == (2.0, pytest.approx(1.9), 0)
    negative = of_episode(np.repeat([-2.0, -4.0, -2.1], [20, 10, 20]), 20, False)
    assert negative is not None
    assert (negative[0], negative[2]) == (-2.0, 10)


def test_an_episode_that_terminates_soon_after_the_change_or_stays_bad_never_recovers() -> None:
    assert of_episode(np.ones(20 + WINDOW - 1), 20, True) == (1.0, 1.0, None)
    assert of_episode(np.repeat([1.0, 0.0], [20, 60]), 20, False) == (1.0, 0.0, None)


def test_an_episode_that_time_cuts_off_soon_after_the_change_does_not_count() -> None:
    assert of_episode(np.ones(20 + WINDOW - 1), 20, False) is None
    assert of_episode(np.ones(20 + WINDOW), 20, False) == (1.0, 1.0, 0)


@pytest.mark.parametrize("step", [0, 20, 25])
def test_an_episode_without_steps_before_or_after_the_change_does_not_count(step: int) -> None:
    assert of_episode(np.ones(20), step, True) is None


class Breaking(gymnasium.Env):
    """Reward 1 until the change, then 0 for `down` steps, then 1 again."""

    observation_space = Box(-1.0, 1.0, (1,), np.float64)
    action_space = Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, step: float, down: float):
        self.at, self.down, self.t = step, down, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(1), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        is_down = self.at <= self.t < self.at + self.down
        self.t += 1
        return np.zeros(1), 0.0 if is_down else 1.0, False, False, {}


class Breakings(TaskDistribution):
    name, version, horizon = "Breakings", 1, 60
    parameters = (Parameter("down", Choice((5.0, 100.0))), Parameter("down.at_step", Uniform(20.0, 20.5)))

    def make(self, task: Task) -> gymnasium.Env:
        return Breaking(number(task["down.at_step"]), number(task["down"]))


class Still:
    """A policy that does nothing."""

    def begin_trial(self, weights: Any, num_tasks: int, num_streams: int, rng: Any) -> None:
        return None

    def act(self, state: None, observations: np.ndarray, rng: Any, deterministic: bool) -> Any:
        return np.zeros((*observations.shape[:2], 1), np.float32), None, {}

    def observe(self, state: None, transition: Any) -> None:
        return None

    def end_round(self, state: None, episodes: Any, adapt: bool) -> Any:
        return None, {}


def score(distribution: TaskDistribution) -> Evaluation:
    plan = TrialPlan(2, distribution.horizon, (RoundPlan("query"),))
    executor = LocalExecutor(distribution, Still())
    return evaluate(executor, distribution, plan, {}, split="train", num_tasks=8, seed=0)


def test_an_evaluation_says_what_a_change_costs_and_how_many_never_recover(tmp_path: Path) -> None:
    evaluation = score(Breakings())
    change = evaluation.change
    assert change is not None
    times = [score.task["down"] for score in evaluation.per_task]
    share = times.count(100.0) / len(times)
    assert (change.episodes, change.reward_before) == (16, 1.0)
    assert change.share_never == pytest.approx(share)
    assert change.recovery_steps == 4.0  # of the ten steps from there on, nine are good
    evaluation.write(tmp_path / "evaluation.json")
    assert Evaluation.load(tmp_path / "evaluation.json").change == change
    caption = str(table(evaluation).renderables[-1])
    assert "Change in mid-episode (16 episodes): reward 1.00 per step before" in caption
    assert "90 % recovered after 4 steps" in caption


class Whole(Breakings):
    def change_step(self, task: Task) -> None:
        return None


def test_nothing_is_said_where_nothing_changes() -> None:
    evaluation = score(Whole())
    assert evaluation.change is None
    assert "change" not in evaluation.to_json()
    assert "Change" not in str(table(evaluation).renderables[-1])
