"""A training run as `metarl train` and `metarl.train` start it: in this process, or as an actor of a cluster."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from metarl.cli.errors import say
from metarl.cli.executors import executors

if TYPE_CHECKING:
    from rich.console import Console

    from metarl.config import RunConfig
    from metarl.runs.warm_start import WarmStart
    from metarl.training.loop import Outcome
    from metarl.training.progress import ProgressReporter


def warm_start_of(run: str) -> WarmStart:
    """The weights of another run, a directory or a URL, for one that begins with them."""
    from metarl.runs.remote import reading_copy
    from metarl.runs.warm_start import read_warm_start

    with reading_copy(run) as path:
        return read_warm_start(path, run if "://" in run else str(Path(run).resolve()))


def launch(
    settings: RunConfig,
    run: str,
    address: str | None,
    resume: bool,
    start: WarmStart | None,
    reporter: ProgressReporter,
) -> Outcome:
    """Train in `run`, a directory or a URL: on the cluster at `address` where one is given and units are Ray's."""
    if address is None or settings.executor.backend == "local":
        from metarl.runs.remote import local_copy
        from metarl.training.loop import train

        with executors(settings, address) as make_executor, local_copy(run) as (path, saved):
            return train(settings, path, make_executor, resume=resume, start=start, reporter=reporter, saved=saved)
    from metarl.distributed.learner import train_on_cluster

    return train_on_cluster(settings, run, address, resume, reporter, start)


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
    console.print(f"{head}: {summary}", markup=False, highlight=False, soft_wrap=True)
    metrics = Path(run) / METRICS  # or on a storage or another node
    if metrics.exists() and any(record["kind"] == "train" for record in read_records(metrics)):
        plot_learning_curve(metrics, Path(run) / "learning.png")
        console.print(f"learning curve: {run}/learning.png", markup=False, highlight=False, soft_wrap=True)
