"""`metarl train`: meta-train what a configuration describes."""

from __future__ import annotations

import shlex
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metarl.cli.errors import console as result_console
from metarl.cli.errors import exit_codes, say
from metarl.cli.launch import launch, warm_start_of
from metarl.cli.options import Address, ConfigName, Local, Overrides, expanded

if TYPE_CHECKING:
    from rich.console import Console

    from metarl.config import RunConfig
    from metarl.training.loop import Outcome


def train(
    config: ConfigName,
    overrides: Overrides = None,
    run_dir: Annotated[
        str | None,
        typer.Option(help="where the run goes, a path or a URL such as s3://... (default: runs/CONFIG's name)"),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="continue the run there; start one if there is none")
    ] = False,
    start_from: Annotated[
        str | None,
        typer.Option("--from", metavar="RUN", help="begin with the weights of another run's newest checkpoint"),
    ] = None,
    local: Local = False,
    address: Address = None,
) -> None:
    """Meta-train what a configuration describes."""
    with exit_codes():
        from metarl.config import load_config
        from metarl.training.progress import ConsoleReporter

        given = list(overrides or ())
        run = expanded(run_dir) if run_dir else f"runs/{Path(config).stem}"
        settings = load_config(config, [*given, *(["executor.backend=local"] if local else [])])
        start = warm_start_of(expanded(start_from)) if start_from else None
        console = result_console()
        console.print(f"run directory: {run}", markup=False, highlight=False, soft_wrap=True)
        console.print(algorithm_line(config, given, settings), markup=False, highlight=False, soft_wrap=True)
        reporter = ConsoleReporter(console)
        try:
            outcome = launch(settings, run, address, resume, start, reporter)
        finally:
            reporter.close()
        again = ["metarl", "train", config, *given, "--run-dir", run, "--resume"]
        again += ["--local"] if local else ["--address", address] if address else []
        _finish(console, run, outcome, shlex.join(again))


def algorithm_line(config: str, overrides: list[str], settings: RunConfig) -> str:
    """`algorithm promp: maml, outer ppo`: what was asked for, and what it stands for."""
    from metarl.config import chosen_names

    asked_for, name, choices = chosen_names(config, overrides, settings)
    return ", ".join((f"algorithm {asked_for}" + (f": {name}" if name != asked_for else ""), *choices))


def _finish(console: Console, run: str, outcome: Outcome, command: str) -> None:
    """Say how it ended and what comes next; exits where a signal ended it."""
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
