"""The table shows every number a reader needs, and the notes."""

from __future__ import annotations

import io
from collections.abc import Callable

from guess import GuessPair
from rich.console import Console

from metarl.evaluation.evaluate import Evaluation
from metarl.report.table import headline, table

Run = Callable[..., Evaluation]


def rendered(evaluation: Evaluation) -> str:
    console = Console(width=140, file=io.StringIO(), record=True)
    console.print(table(evaluation))
    return console.export_text()


def test_table_shows_rounds_gain_anchors_and_source(run: Run) -> None:
    evaluation = run()
    text = rendered(evaluation)
    for expected in (
        "Guess v1, test split: 12 tasks, 4 episodes per task and round",
        "round 0 (before adaptation)",
        "round 1 (after adaptation)",
        "IQM",
        "95 % interval",
        "CVaR 5 %",
        f"{evaluation.rounds[1].mean:.2f}",
        "adaptation gain",
        f"{evaluation.adaptation_gain.mean:+.2f}",
        "anchor: standing still",
        "anchor: best task-blind policy",
        "anchor: expert",
        "integrals of |goal|",
        "288 environment steps",
    ):
        assert expected in text
    assert "task goal=" not in text  # twelve tasks: too many to list


def test_table_lists_few_tasks_one_by_one_and_prints_the_notes(run: Run) -> None:
    evaluation = run(GuessPair())
    text = rendered(evaluation)
    assert "12 trials on 2 tasks, 4 episodes per trial and round" in headline(evaluation)
    assert "task goal=-0.5" in text
    assert "task goal=0.5" in text
    assert "anchors: none known" in text
    for note in evaluation.notes:
        assert note in text
