"""Comparisons: the share of what knowing the task is worth that a policy recovers, and its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from metarl.evaluation.by_task import Estimate
from metarl.evaluation.comparison import compare
from metarl.evaluation.evaluate import Evaluation, RoundScore, TaskScore, last_repeats, paired, summarise
from metarl.evaluation.notes import ORACLE
from metarl.report.page.compare import gap_lines
from metarl.rollout.types import Adapts, RoundPlan, TrialPlan
from metarl.tasks import load_distribution
from metarl.tasks.distribution import Anchors


def evaluation(returns: Sequence[float] | np.ndarray, adapts: Adapts = "never", is_oracle: bool = False) -> Evaluation:
    """One round with one return per task."""
    mean = float(np.mean(returns))
    return Evaluation(
        distribution="Guess",
        version=1,
        horizon=5,
        split="test",
        num_tasks=len(returns),
        episodes_per_round=1,
        rounds=(RoundScore(mean, mean, (mean, mean), mean, None),),
        per_task=tuple(TaskScore({"goal": i}, f"Guess(goal={i})", (float(r),), 1) for i, r in enumerate(returns)),
        last_minus_first=Estimate(0.0, (0.0, 0.0)),
        anchors=Anchors(),
        seed=0,
        iteration=1,
        env_steps=1,
        splits_coincide=False,
        notes=(ORACLE,) if is_oracle else (),
        adapts=adapts,
    )


def test_the_recovered_share_is_the_part_of_the_gap_between_blind_and_oracle() -> None:
    rng = np.random.default_rng(0)
    blind = rng.normal(0.0, 3.0, 60)
    gap = rng.uniform(5.0, 15.0, 60)
    found = compare(
        {
            "blind": evaluation(blind),
            "worse": evaluation(blind - 2),
            "adapts": evaluation(blind + 0.8 * gap, "within"),
            "oracle": evaluation(blind + gap, is_oracle=True),
        },
        seed=0,
    )
    assert found.gap is not None
    assert (found.gap.oracle, found.gap.task_blind) == ("oracle", "blind")
    assert found.gap.width.mean == pytest.approx(gap.mean())
    share = found.gap.recovered["adapts"]
    assert share.mean == pytest.approx(0.8)
    assert share.ci95 == pytest.approx((0.8, 0.8))  # of every task: no spread, however the tasks differ
    assert found.gap.recovered["worse"].mean == pytest.approx(-2 / gap.mean())
    assert any("adapts: 80% [80%, 80%]" in line for line in gap_lines(found.gap))


def test_the_interval_of_the_share_covers() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for repeat in range(200):
        gap = rng.normal(10.0, 3.0, 40)
        part = 0.6 * gap + rng.normal(0.0, 3.0, 40)
        runs = {"b": evaluation(0 * gap), "a": evaluation(part, "within"), "o": evaluation(gap, is_oracle=True)}
        found = compare(runs, seed=repeat)
        assert found.gap is not None
        low, high = found.gap.recovered["a"].ci95
        covered += low <= 0.6 <= high
    assert 0.89 <= covered / 200 <= 0.99


@pytest.mark.parametrize(("number", "end"), [(6, 0.541), (16, 0.794)])
def test_winning_on_every_task_is_no_certainty(number: int, end: float) -> None:
    """The exact bounds of Clopper and Pearson: 0.025^(1/6) = 0.541. Resampled wins are all wins."""
    returns = np.arange(float(number))
    (pair,) = compare({"better": evaluation(returns + 1), "worse": evaluation(returns)}, seed=0).pairs
    assert pair.improvement.mean == 1.0
    assert pair.improvement.ci95 == (pytest.approx(end, abs=1e-3), 1.0)


def test_an_oracle_that_is_not_better_leaves_no_gap_to_recover() -> None:
    rng = np.random.default_rng(2)
    noise = rng.normal(0.0, 5.0, 40)
    runs = {"blind": evaluation(noise), "oracle": evaluation(noise[::-1], is_oracle=True)}
    gap = compare({**runs, "adapts": evaluation(noise + 1, "within")}, seed=0).gap
    assert gap is not None
    assert gap.recovered == {}
    assert "there is no gap to close" in gap_lines(gap)[0]
    assert compare({"blind": runs["blind"], "adapts": evaluation(noise, "within")}, seed=0).gap is None


@pytest.mark.parametrize("num_trials", [1, 10])
def test_equal_policies_on_a_family_of_few_tasks_are_seldom_told_apart(num_trials: int) -> None:
    """Two tasks, all there are: the noise of their episodes alone decides, and intervals must hold it."""
    family = load_distribution("HalfCheetahDir")
    tasks = [task for task in family.finite_tasks() or () for _ in range(num_trials)]
    plan = TrialPlan(40 // num_trials, family.horizon, (RoundPlan("query"),))
    rng = np.random.default_rng(0)
    told_apart = []
    for _ in range(200):
        one, other = (
            summarise(
                family, plan, "test", tasks, rng.normal(100, 30, (1, len(tasks), plan.num_streams)), env_steps=1, seed=0
            )
            for _ in range(2)
        )
        (pair,) = compare({"one": one, "other": other}, seed=0).pairs
        told_apart.append(
            [
                e.ci95[0] > centre or e.ci95[1] < centre
                for e, centre in ((pair.difference, 0.0), (pair.improvement, 0.5))
            ]
        )
    assert (np.mean(told_apart, axis=0) < 0.12).all()  # 0.05 in the limit of many repeats


def test_repeats_of_few_tasks_that_are_unequal_in_number_keep_each_evaluations_mean() -> None:
    one, other = evaluation([1.0, 2.0]), evaluation([0.0, 0.0])
    one = replace(
        one,
        per_task=tuple(replace(s, repeats=(s.returns[0] - 1, s.returns[0], s.returns[0] + 1)) for s in one.per_task),
    )
    other = replace(other, per_task=tuple(replace(s, repeats=(-2.0, 2.0)) for s in other.per_task))
    assert [scores.tolist() for scores in last_repeats(one, other)] == [
        [[0.5, -2.0], [1.5, 2.0]],
        [[1.5, -2.0], [2.5, 2.0]],
    ]
    assert paired(one, other, 0).mean == 1.5


def test_the_share_of_the_gap_on_few_tasks_holds_the_noise_of_their_episodes() -> None:
    rng = np.random.default_rng(1)
    family = load_distribution("HalfCheetahDir")
    tasks, plan = family.finite_tasks() or (), TrialPlan(50, family.horizon, (RoundPlan("query"),))
    found = {}
    for name, level in (("blind", 0.0), ("adapts", 80.0), ("oracle", 100.0)):
        returns = rng.normal(level, 30, (1, 2, 50))
        found[name] = replace(
            summarise(family, plan, "test", tasks, returns, env_steps=1, seed=0),
            adapts="within" if name == "adapts" else "never",
            notes=(ORACLE,) if name == "oracle" else (),
        )
    gap = compare(found, seed=0).gap
    assert gap is not None
    low, high = gap.recovered["adapts"].ci95
    assert low < 0.8 < high
    assert 0.1 < high - low < 0.4  # 2 x 1.96 x 30 / sqrt(100) x about 1.3, of a gap of 100
