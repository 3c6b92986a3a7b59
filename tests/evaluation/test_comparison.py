"""Comparisons: the share of what knowing the task is worth that a policy recovers, and its interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from metarl.evaluation.by_task import Estimate
from metarl.evaluation.comparison import compare
from metarl.evaluation.evaluate import ORACLE, Evaluation, RoundScore, TaskScore
from metarl.report.page.compare import gap_lines
from metarl.rollout.types import Adapts
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
        adaptation_gain=Estimate(0.0, (0.0, 0.0)),
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


def test_an_oracle_that_is_not_better_leaves_no_gap_to_recover() -> None:
    rng = np.random.default_rng(2)
    noise = rng.normal(0.0, 5.0, 40)
    runs = {"blind": evaluation(noise), "oracle": evaluation(noise[::-1], is_oracle=True)}
    gap = compare({**runs, "adapts": evaluation(noise + 1, "within")}, seed=0).gap
    assert gap is not None
    assert gap.recovered == {}
    assert "there is no gap to close" in gap_lines(gap)[0]
    assert compare({"blind": runs["blind"], "adapts": evaluation(noise, "within")}, seed=0).gap is None
