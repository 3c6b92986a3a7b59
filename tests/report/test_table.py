"""The table shows every number a reader needs, and the notes."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import pytest
from rich.console import Console

from metarl.evaluation.by_task import Estimate
from metarl.evaluation.evaluate import Evaluation
from metarl.report.table import headline, number, table
from metarl.rollout.types import RoundPlan
from tests.guess import PLAN, GuessPair

Run = Callable[..., Evaluation]


def rendered(evaluation: Evaluation) -> str:
    console = Console(width=140, file=io.StringIO(), record=True)
    console.print(table(evaluation))
    return console.export_text()


def test_table_shows_rounds_gain_anchors_and_source(run: Run) -> None:
    evaluation = run()
    text = rendered(evaluation)
    assert evaluation.last_minus_first is not None
    for expected in (
        "Guess v1, test split: 12 tasks, 4 episodes per task and round",
        "round 0 (before adaptation)",
        "round 1 (after adaptation)",
        "IQM",
        "95 % interval",
        "CVaR 5 %",
        f"{evaluation.rounds[1].mean:.2f}",
        "last - first round",
        f"{evaluation.last_minus_first.mean:+.2f}",
        "reference return: zero actions",
        "reference return: best non-adaptive policy",
        "reference return: expert that knows the task",
        "integrals of |goal|",
        "288 environment steps; judged actions: samples",
    ):
        assert expected in text
    assert "task goal=" not in text  # twelve tasks: too many to list


def test_table_lists_few_tasks_one_by_one_and_prints_the_notes(run: Run) -> None:
    evaluation = run(GuessPair())
    text = rendered(evaluation)
    assert "12 trials on 2 tasks, 4 episodes per trial and round" in headline(evaluation)
    assert "task goal=-0.5" in text
    assert "task goal=0.5" in text
    assert "reference returns: none known" in text
    assert "anchor" not in text.lower()
    for note in evaluation.notes:
        assert note in text


def test_how_judged_actions_are_taken_stands_under_every_table(run: Run) -> None:
    plan = replace(PLAN, rounds=(RoundPlan("support"), RoundPlan("query", deterministic=True)))
    assert "judged actions: means" in rendered(run(plan=plan))
    assert "judged actions: not recorded" in rendered(replace(run(), deterministic=None))


def test_success_rates_are_shown_where_tasks_report_success(run: Run) -> None:
    assert "success" not in rendered(run())
    assert "25% → 100%" in rendered(replace(run(), success_rates=(0.25, 1.0)))


@pytest.mark.parametrize(
    ("value", "sign", "shown"),
    [
        (-1234.56, "", "-1234.6"),
        (-9.876, "", "-9.88"),
        (0.5, "+", "+0.50"),
        (-1.234e-5, "", "-1.23e-05"),
        (-0.004, "", "-0.004"),
        (0.0123, "+", "+0.0123"),
        (0.0, "", "0.00"),
        (-0.0, "+", "+0.00"),
    ],
)
def test_small_returns_keep_their_significant_digits(value: float, sign: str, shown: str) -> None:
    assert number(value, sign) == shown


@pytest.mark.parametrize("width", [60, 80])
def test_no_word_of_the_notes_is_lost_on_a_narrow_terminal(run: Run, width: int) -> None:
    """Below a table that was wider than the terminal every line once lost its end."""
    evaluation = replace(run(), notes=("A sentence with many words " * 20,))
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(table(evaluation))
    assert evaluation.notes[0].split() == " ".join(console.export_text().split())[-len(evaluation.notes[0]) :].split()


def test_a_table_of_tiny_returns_shows_no_zero(run: Run) -> None:
    evaluation = run()
    tiny = [replace(s, mean=-1e-5, iqm=-2e-5, ci95=(-3e-5, -1e-6), cvar5=-4e-5) for s in evaluation.rounds]
    gain = Estimate(1e-6, (-1e-6, 2e-6))
    text = rendered(replace(evaluation, rounds=tuple(tiny), last_minus_first=gain))
    assert "-0.00" not in text
    for expected in ("-1e-05", "[-3e-05, -1e-06]", "+1e-06"):
        assert expected in text
