"""Measures of whole trials, worked out by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import pytest

from metarl.evaluation.by_task import ByTask
from metarl.evaluation.evaluate import Evaluation, against_blank, evaluate, paired
from metarl.evaluation.measures import CLOSE, Measures, area, reward_over_time, to_threshold
from metarl.rollout.types import RoundPlan, TrialPlan
from metarl.tasks import Task
from tests.guess import PLAN, Guess

Run = Callable[..., Evaluation]
TASKS = tuple(Task.of("T", {"x": float(k)}) for k in range(3))


def test_the_area_is_that_of_trapezoids_above_the_first_round() -> None:
    returns = np.array([1.0, 3.0, 5.0])[:, None, None]  # (0 + 2) / 2 = 1 and (2 + 4) / 2 = 3
    assert area(returns) == pytest.approx(2.0)


def test_a_return_that_never_changes_has_no_area() -> None:
    assert area(np.full((4, 2, 2), 7.0)) == pytest.approx(0.0)


def test_steps_and_episodes_until_the_threshold_are_those_adapted_on_before() -> None:
    returns = np.array([[0.0, 9.0, 0.0], [5.0, 9.0, 1.0], [9.0, 9.0, 2.0]])  # reached in round 2, 0 and never
    steps = np.array([[10.0, 10.0, 10.0], [25.0, 25.0, 25.0], [45.0, 45.0, 45.0]])
    found = to_threshold(returns, steps, (2, 3, 4), 8.0)
    assert found.reached == pytest.approx(2 / 3)
    assert found.episodes == pytest.approx((5 + 0) / 2)
    assert found.steps == pytest.approx((25 + 0) / 2)


def test_a_threshold_that_no_task_reaches() -> None:
    found = to_threshold(np.zeros((2, 3)), np.ones((2, 3)), (1, 1), 8.0)
    assert (found.reached, found.episodes, found.steps) == (0.0, None, None)


def test_reward_over_time_leaves_out_the_steps_after_an_episode_s_end() -> None:
    rewards = np.array([[[1.0, 3.0, 0.0], [5.0, 5.0, 7.0]]] * 3)  # the first episode ends after two steps
    lengths = np.array([[2, 3]] * 3)
    found = reward_over_time(rewards, lengths, ByTask(TASKS, False, 0))
    assert found.mean == pytest.approx((3.0, 4.0, 7.0))
    assert found.steps == (1.0, 2.0, 3.0)


def test_reward_over_time_stops_where_some_task_has_no_episode_left() -> None:
    rewards = np.ones((3, 1, 4))
    lengths = np.array([[4], [2], [4]])
    assert reward_over_time(rewards, lengths, ByTask(TASKS, False, 0)).steps == (1.0, 2.0)


def test_long_episodes_are_averaged_in_parts() -> None:
    rewards = np.arange(120.0)[None, None].repeat(3, axis=0)
    found = reward_over_time(rewards, np.full((3, 1), 120), ByTask(TASKS, False, 0))
    assert found.width == 2
    assert found.mean[:2] == pytest.approx((0.5, 2.5))
    assert found.steps[:2] == (1.5, 3.5)


def test_an_evaluation_holds_its_measures(run: Run) -> None:
    evaluation = run()
    measures = evaluation.measures
    assert measures is not None
    first, last = (score.mean for score in evaluation.rounds)
    assert measures.online.mean == pytest.approx((first + last) / 2)
    assert measures.exploration_cost.mean == pytest.approx(last - (first + last) / 2)
    assert measures.area is not None
    assert measures.area.mean == pytest.approx((last - first) / 2)
    assert measures.regret is not None  # the expert's return is 0
    assert measures.regret.mean == pytest.approx(-(first + last) / 2)
    assert measures.to_threshold is not None
    assert measures.to_threshold.threshold == pytest.approx(-0.75 + CLOSE * 0.75)
    assert (measures.episodes_adapted_on, measures.steps_adapted_on) == (4, 12)
    for part, score in zip(measures.over_time, evaluation.rounds, strict=True):
        assert sum(part.mean) * part.width == pytest.approx(score.mean)


def test_reference_returns_are_not_for_tasks_out_of_distribution(run: Run) -> None:
    measures = run(split="ood").measures
    assert measures is not None
    assert measures.regret is None
    assert measures.to_threshold is None


def test_measures_survive_json(run: Run) -> None:
    measures = run().measures
    assert measures is not None
    assert Measures.from_json(json.loads(json.dumps(asdict(measures)))) == measures


def test_one_round_has_neither_area_nor_experience(run: Run) -> None:
    measures = run(plan=TrialPlan(4, PLAN.horizon, (RoundPlan("query"),))).measures
    assert measures is not None
    assert measures.area is None
    assert measures.steps_adapted_on == 0


def test_the_gain_over_a_blank_context_is_paired_per_task(run: Run) -> None:
    own, blank = run(), run(noise=0.0)
    gain = against_blank(own, blank, 0).gain_over_blank
    assert gain is not None
    expected = np.mean([a.returns[-1] - b.returns[-1] for a, b in zip(own.per_task, blank.per_task, strict=True)])
    assert gain.mean == pytest.approx(expected)
    assert paired(own, own, 0).ci95 == (0.0, 0.0)


def test_a_given_threshold_is_taken(run: Run) -> None:
    from metarl.rollout.local import LocalExecutor
    from tests.guess import GuessPolicy, weights

    distribution = Guess()
    executor = LocalExecutor(distribution, GuessPolicy())
    given = {"split": "test", "num_tasks": 4, "seed": 3, "threshold": -100.0}
    evaluation = evaluate(executor, distribution, PLAN, weights(noise=0.3), **given)  # type: ignore[arg-type]
    assert evaluation.measures is not None
    found = evaluation.measures.to_threshold
    assert found is not None
    assert (found.threshold, found.is_default, found.reached, found.episodes) == (-100.0, False, 1.0, 0.0)
