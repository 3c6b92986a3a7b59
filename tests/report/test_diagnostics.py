"""Diagnoses give the right verdict on policies of which it is known: adapting, task-blind, oracle, over-fitted."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from metarl.cli.app import app
from metarl.evaluation.by_task import Estimate
from metarl.evaluation.evaluate import Evaluation, against_blank, evaluate
from metarl.evaluation.grid import Axis, Grid, Point
from metarl.report.diagnostics import (
    Finding,
    adaptation,
    calibration,
    context_use,
    exploration,
    meta_overfitting,
    out_of_range,
    unpaired,
    verdict,
)
from metarl.report.study import posterior_coverage, study
from metarl.rollout.local import LocalExecutor
from metarl.rollout.types import Episodes, Extras, TrialPlan
from metarl.runs.build import load_run
from metarl.tasks import RevealedTask, Split, Task, TaskDistribution
from tests.guess import PLAN, Guess, GuessPolicy, GuessState, weights
from tests.toy import number

NUM_TASKS = 24
PEARL_RUN = Path(__file__).parents[2] / "experiments" / "pretrained" / "point_goal_pearl"


@dataclass(frozen=True)
class Deaf(GuessPolicy):
    """Guesses, and learns nothing from it."""

    def end_round(self, state: GuessState, episodes: Episodes, adapt: bool) -> tuple[GuessState, Extras]:
        return state, {}


@dataclass(frozen=True)
class Memoriser(GuessPolicy):
    """Knows the goals of its training tasks alone: after a round it moves to the one nearest to its best action."""

    goals: tuple[float, ...]

    def end_round(self, state: GuessState, episodes: Episodes, adapt: bool) -> tuple[GuessState, Extras]:
        moved, derived = super().end_round(state, episodes, adapt)
        known = np.array(self.goals)
        nearest = known[np.abs(moved.guess - known).argmin(axis=2)]
        return (GuessState(nearest[..., None], state.noise), derived) if adapt else (state, derived)


def judged(
    policy: GuessPolicy,
    split: Split = "test",
    *,
    plan: TrialPlan = PLAN,
    distribution: TaskDistribution | None = None,
    trained_on: Sequence[Task] | None = None,
    noise: float = 0.5,
) -> Evaluation:
    family = distribution or Guess()
    return evaluate(
        LocalExecutor(family, policy),
        family,
        plan,
        weights(noise=noise),
        split=split,
        num_tasks=NUM_TASKS if trained_on is None else len(trained_on),
        seed=3,
        trained_on=trained_on,
    )


# --- a policy that adapts ----------------------------------------------------------------------------


def test_a_policy_that_adapts_is_said_to_adapt() -> None:
    finding = adaptation(judged(GuessPolicy()))
    assert finding.verdict == "good"
    assert finding.estimate is not None
    assert finding.estimate.is_above_zero
    assert "over the same policy before adaptation" in finding.sentence
    assert meta_overfitting(judged(GuessPolicy(), "train"), judged(GuessPolicy()), 0).verdict == "good"


def test_a_policy_that_adapts_at_every_step_is_compared_with_its_blank_context() -> None:
    own = replace(judged(GuessPolicy()), adapts="within")
    assert adaptation(own).estimate is None  # its rounds tell nothing
    finding = adaptation(against_blank(own, judged(Deaf()), 0))
    assert finding.verdict == "good"
    assert "with its context kept blank" in finding.sentence


# --- a task-blind one --------------------------------------------------------------------------------


def test_a_policy_that_learns_nothing_is_said_not_to_adapt() -> None:
    finding = adaptation(judged(Deaf()))
    assert finding.verdict == "bad"
    assert "No adaptation is shown" in finding.sentence


def test_a_policy_that_cannot_adapt_is_called_so() -> None:
    finding = adaptation(judged(Deaf(), plan=replace(PLAN, adapts="never")))
    assert finding.verdict == "bad"
    assert "cannot adapt" in finding.sentence


def test_a_policy_that_does_as_well_with_another_task_s_context_takes_a_shortcut() -> None:
    same = judged(Deaf())
    finding = context_use(same, same, 0)
    assert finding.verdict == "bad"
    assert "A shortcut" in finding.sentence
    assert context_use(judged(GuessPolicy()), same, 0).verdict == "good"
    assert context_use(same, None, 0).verdict == "open"


# --- an oracle ---------------------------------------------------------------------------------------


def test_an_oracle_shows_no_adaptation_however_well_it_does() -> None:
    evaluation = judged(GuessPolicy(), distribution=RevealedTask(Guess()))
    finding = adaptation(evaluation)
    assert (finding.verdict, finding.estimate) == ("open", None)
    assert "an oracle" in finding.sentence
    assert "an oracle" in verdict([finding], evaluation)
    assert context_use(evaluation, evaluation, 0).verdict == "open"


# --- one that is over-fitted -------------------------------------------------------------------------


def test_a_policy_that_knows_its_training_tasks_alone_is_over_fitted() -> None:
    tasks = Guess().sample("train", 3, 1)
    policy = Memoriser(tuple(number(task["goal"]) for task in tasks))
    plan = replace(PLAN, num_streams=16)  # so that it finds out which of them it is
    train = judged(policy, "train", plan=plan, trained_on=tasks * 8)
    finding = meta_overfitting(train, judged(policy, plan=plan), 0)
    assert finding.verdict == "bad"
    assert "Over-fitted to its training tasks" in finding.sentence


def test_families_whose_tasks_coincide_cannot_be_over_fitted_to_some() -> None:
    test = replace(judged(GuessPolicy()), splits_coincide=True)
    assert meta_overfitting(test, test, 0).verdict == "open"


# --- the rest ----------------------------------------------------------------------------------------


def line(returns: Sequence[float], where: Sequence[str]) -> Grid:
    values = tuple(float(i) for i in range(len(returns)))
    points = tuple(Point((x,), "t", w, (r,), None) for x, w, r in zip(values, where, returns, strict=True))
    return Grid("T", (Axis("mass", values),), {}, points, 1, 0, 0, 0)


def test_a_fall_outside_the_range_is_found_and_sized() -> None:
    inside, outside = "training range", "outside all ranges"
    finding = out_of_range(line([0.0, 1.0, 0.0, -9.0, -10.0, -11.0], [inside] * 3 + [outside] * 3), 0)
    assert finding.verdict == "bad"
    assert finding.estimate is not None
    assert finding.estimate.mean == pytest.approx(-10 - 1 / 3)
    assert out_of_range(line([0.0, 1.0, 0.5, 0.4], [inside, inside, outside, outside]), 0).verdict == "good"
    assert out_of_range(line([0.0, 1.0], [inside] * 2), 0).verdict == "open"


def test_exploration_costs_what_the_judged_round_has_over_the_whole_trial() -> None:
    evaluation = judged(GuessPolicy())
    finding = exploration(evaluation)
    first, last = (score.mean for score in evaluation.rounds)
    assert finding.estimate is not None
    assert finding.estimate.mean == pytest.approx((last - first) / 2)
    assert "4 episodes (12 steps) are explored per task" in finding.sentence


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(0.3, 0.6, "bad"), (0.8, 0.95, "good"), (0.97, 1.0, "open"), (0.9, 0.9, "good")]
)
def test_intervals_that_hold_the_value_too_rarely_are_too_sure(low: float, high: float, expected: str) -> None:
    finding = calibration([("mass", Estimate((low + high) / 2, (low, high)))])
    assert finding.verdict == expected
    assert "mass" in finding.sentence


def test_without_a_posterior_there_is_no_calibration() -> None:
    assert calibration([]).verdict == "open"


def test_a_difference_of_unlike_tasks_resamples_both() -> None:
    found = unpaired([1.0] * 5, [0.0] * 9, 0)
    assert (found.mean, found.ci95) == (1.0, (1.0, 1.0))
    wide = unpaired([0.0, 2.0] * 10, [0.0, 2.0] * 10, 0)
    assert wide.ci95[0] < 0 < wide.ci95[1]
    half = 1.96 * np.sqrt(2 / 20)  # variance 1, twenty each
    assert wide.ci95[1] == pytest.approx(half, rel=0.15)


def test_the_verdict_names_what_stands_against_it() -> None:
    good = Finding("Adaptation", "good", None, "It adapts.")
    bad = [
        Finding("Meta-overfitting", "bad", None, "", objection="it is over-fitted to its training tasks"),
        Finding("Outside the range of mass", "bad", None, ""),
        Finding("Outside the range of goal", "bad", None, ""),
    ]
    evaluation = judged(GuessPolicy())
    assert verdict([good], evaluation) == "It adapts."
    for count, found in itertools.zip_longest(
        (1, 3), ("it is over-fitted to its training tasks.", "and it does worse outside the range of mass, goal.")
    ):
        assert verdict([good, *bad[:count]], evaluation).endswith(found)
    coinciding = verdict([good], replace(evaluation, splits_coincide=True))
    assert "no generalisation" in coinciding


# --- trained runs ------------------------------------------------------------------------------------


def test_the_posterior_of_a_trained_run_is_read_for_each_parameter() -> None:
    run = load_run(PEARL_RUN, ["evaluation.num_tasks=10"])
    coverage = posterior_coverage(run, LocalExecutor(run.distribution, run.algorithm.policy))
    assert [name for name, _ in coverage] == ["goal[0]", "goal[1]"]
    assert all(0 <= share.mean <= 1 for _, share in coverage)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "overrides", "finding", "expected", "sentence"),
    [
        ("point_goal_rl2", ["task_distribution.reveal_task=true"], "Adaptation", "open", "an oracle"),
        ("point_goal_rl2", ["algorithm.memory=none"], "Adaptation", "bad", "cannot adapt"),
        ("point_goal_pearl", ["algorithm.num_train_tasks=3"], "Meta-overfitting", "bad", "Over-fitted"),
    ],
)
def test_short_trainings_get_the_verdict_that_they_should(
    tmp_path: Path, name: str, overrides: list[str], finding: str, expected: str, sentence: str
) -> None:
    small = {
        "point_goal_rl2": ["algorithm.tasks_per_iteration=16", "training.iterations=3"],
        "point_goal_pearl": ["algorithm.tasks_per_iteration=3", "training.iterations=15"],
    }[name]
    options = [*overrides, *small, "training.evaluate_every=0", "training.time_limit_minutes=60"]
    run_dir = tmp_path / "run"
    done = CliRunner().invoke(app, ["train", name, "--local", "--run-dir", str(run_dir), *options])
    assert done.exit_code == 0, done.output
    run = load_run(run_dir, ["evaluation.num_tasks=20"])
    found = study(run, LocalExecutor(run.distribution, run.algorithm.policy), run_dir, "run", has_grids=False)
    (one,) = [one for one in found.findings if one.name == finding]
    assert (one.verdict, sentence in one.sentence) == (expected, True), one.sentence
