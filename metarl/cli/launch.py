"""A training run with its progress on a console, how it ended, and what comes next."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from metarl.cli.output import print_plain, say
from metarl.launch import launch

if TYPE_CHECKING:
    from rich.console import Console

    from metarl.config import RunConfig
    from metarl.runs.warm_start import WarmStart
    from metarl.training.loop import Outcome


def train_and_tell(
    settings: RunConfig,
    run: str,
    address: str | None,
    resume: bool,
    start: WarmStart | None,
    console: Console,
    command: str,
) -> None:
    """`launch` with progress on `console`, how it ended, and what comes next; exits where a signal ended it.

    `command` continues the run.
    """
    from metarl.training.progress import ConsoleReporter

    reporter = ConsoleReporter(console)
    try:
        outcome = launch(settings, run, address, resume, start, reporter)
    finally:
        reporter.close()
    _finish(console, run, outcome, command)


def _finish(console: Console, run: str, outcome: Outcome, command: str) -> None:
    minutes = outcome.wall_s / 60
    summary = (
        f"{outcome.iteration} iterations, {outcome.env_steps:,} environment steps, {minutes:.1f} minutes of training"
    )
    if outcome.signal_number is not None:
        name = signal.Signals(outcome.signal_number).name
        say(f"stopped by {name} after {summary}; everything is saved. Continue with:\n  {command}")
        raise typer.Exit(128 + outcome.signal_number)
    from metarl.report.adaptation_curve import plot_learning_curve
    from metarl.runs.records import METRICS, read_records

    head = {"done": "done", "time limit": "the time limit is reached"}[outcome.reason]
    print_plain(console, f"{head}: {summary}")
    metrics = Path(run) / METRICS  # or on a storage or another node
    if metrics.exists() and any(record["kind"] == "train" for record in read_records(metrics)):
        plot_learning_curve(metrics, Path(run) / "learning.png")
        print_plain(console, f"learning curve: {run}/learning.png")
