"""`metarl train CONFIG --sweep key=a,b --seeds N`: many runs side by side, and what they say about the settings.

check every combination -> connect to Ray -> Tune starts runs as there is room -> table, sweep.json, sweep.png
                                               Ctrl-C: each saves; the same command with --resume goes on
"""

from __future__ import annotations

import shlex
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from metarl.cli.errors import console as result_console
from metarl.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from metarl.distributed.actor import Failure
    from metarl.distributed.sweep.grid import Plan, PlannedRun
    from metarl.distributed.tune import Halving, Work
    from metarl.training.stop import StopRequest

_LINE_EVERY_S = 30.0  # of each run; evaluations are always shown
_FACTOR = 3  # of successive halving: a third goes on
_NUM_CUTS = 2


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line."""

    config: Path
    overrides: tuple[str, ...]
    sweeps: tuple[str, ...]
    seeds: int | None
    run_dir: Path | None
    resume: bool
    is_local: bool
    address: str | None
    asha: bool
    cpus_per_run: int

    @property
    def root(self) -> Path:
        """The sweep's directory; a single run of the same configuration has another one."""
        return self.run_dir or Path("runs") / f"{self.config.stem}-sweep"

    def command(self) -> str:
        """The command that goes on with this sweep."""
        words = ["metarl", "train", str(self.config), *self.overrides]
        for text in self.sweeps:
            words += ["--sweep", text]
        words += ["--seeds", str(self.seeds or 1), "--run-dir", str(self.root), "--resume"]
        words += ["--asha"] if self.asha else []
        words += ["--cpus-per-run", str(self.cpus_per_run)] if self.cpus_per_run > 1 else []
        return shlex.join(words + (["--address", self.address] if self.address else []))


def train_sweep(request: Request) -> None:
    """Train all runs, show the comparison. Exits with 1 where a run failed, with 128 + n where signal n stopped it.

    Raises ConfigError or TaskError before anything has started where the input is wrong.
    """
    if not request.sweeps and request.seeds is None:
        raise ConfigError("--asha and --cpus-per-run belong to a sweep: add --sweep key=a,b or --seeds N")
    if request.is_local:
        raise ConfigError(
            "--local and a sweep exclude each other: its runs are trials of Ray Tune, each in one process"
        )
    from metarl.distributed import tune  # says so where Ray Tune is not installed
    from metarl.distributed.sweep.grid import plan_runs
    from metarl.distributed.sweep.results import read_results
    from metarl.distributed.sweep.work import check_directory, check_settings, has_ended
    from metarl.runs.directory import locked

    plan = plan_runs(request.config, request.overrides, request.sweeps, request.seeds or 1)
    if request.asha:
        _require_evaluations(plan)
    check_settings(plan)
    root = request.root.absolute()
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the sweep directory {root}: {error.strerror}") from error
    with locked(root, by="sweep"):
        check_directory(root, plan, request.resume)
        console = result_console()
        _write_summary(request, plan, {})
        left = [run for run in plan.runs if not has_ended(root / run.name, run.config, may_cut=request.asha)]
        _say(console, f"sweep directory: {request.root}: {_counted(plan)}, {len(plan.runs) - len(left)} ended already")
        results, stop = _run(request, root, plan, left, console) if left else ({}, None)
        errors = {
            name: _reason(root / name, result) for name, result in results.items() if isinstance(result, tune.Failure)
        }
        _write_summary(request, plan, errors)
        is_stopped = any(result is None for result in results.values()) or len(results) < len(left)
        if is_stopped and stop is not None and stop.signal_number is not None:
            _end_stopped(request, root, plan, stop.signal_number, errors)
        errors |= {run.name: "it has not ended" for run in left if results.get(run.name) is None}
        _show(request, read_results(root, plan, errors), console)
        if errors:
            raise typer.Exit(1)


def _run(
    request: Request, root: Path, plan: Plan, left: Sequence[PlannedRun], console: Console
) -> tuple[dict[str, Any], StopRequest]:
    """Train what is left, in Ray; by name what came of each run, and whether it was stopped."""
    from metarl.distributed import connect
    from metarl.distributed.sweep.work import OUTCOME, TrainOne
    from metarl.distributed.tune import Work, run_side_by_side
    from metarl.training.stop import StopRequest, stop_signals

    works: list[Work] = []
    for run in left:
        (root / run.name / OUTCOME).unlink(missing_ok=True)  # of an end that is none any more
        num_gpus = int(run.config.device == "cuda")
        works.append(Work(run.name, TrainOne(run.config, root / run.name), request.cpus_per_run, num_gpus))
    halving = _halving(root, plan) if request.asha else None
    lines, stop = _Lines(console, len(plan.runs), len(plan.runs) - len(left)), StopRequest()
    num_cpus = left[0].config.executor.num_workers
    with connect(request.address, num_cpus), stop_signals(stop):  # Ray sets handlers of its own before
        return run_side_by_side(works, lines.show, stop, halving, may_grow=request.address is not None), stop


def _reason(run_dir: Path, failure: Failure) -> str:
    """Why a run failed; a bug's traceback goes to its folder."""
    if failure.kind != "program":
        return failure.message
    (run_dir / "failure.txt").write_text(failure.traceback)
    return f"{failure.error_type}: {failure.message} ({run_dir / 'failure.txt'})"


def _require_evaluations(plan: Plan) -> None:
    for run in plan.runs:
        every, iterations = run.config.training.evaluate_every, run.config.training.iterations
        if not 0 < every < iterations:
            raise ConfigError(
                f"--asha: {run.setting.name}: training.evaluate_every = {every}: runs are compared by their "
                f"evaluations; allowed: 1 to {iterations - 1}, below training.iterations"
            )


def _halving(root: Path, plan: Plan) -> Halving:
    """Cuts at about a ninth and a third of the longest run, where all have an evaluation; the evaluations so far."""
    from metarl.distributed.sweep.results import read_run
    from metarl.distributed.tune import Halving

    last = max(run.config.training.iterations for run in plan.runs)
    every = max(run.config.training.evaluate_every for run in plan.runs)
    first = max(1, round(last / _FACTOR**_NUM_CUTS / every)) * every
    curves = {run.name: read_run(root / run.name, run, None).curve for run in plan.runs}
    earlier = {
        name: [(p.iteration, p.after) for p in curve if 0 < p.iteration < last] for name, curve in curves.items()
    }
    return Halving(first, last, _FACTOR, earlier)


class _Lines:
    """Plain lines: every evaluation, now and then the training of each run, and each end."""

    def __init__(self, console: Console, num_runs: int, num_ended: int):
        self._console, self._num_runs, self._num_ended = console, num_runs, num_ended
        self._shown_s: dict[str, float] = {}

    def show(self, name: str, event: tuple[str, tuple[Any, ...]]) -> None:
        from metarl.training.progress import train_line

        kind, arguments = event
        now = time.monotonic()
        if kind == "train":
            if now - self._shown_s.setdefault(name, now) < _LINE_EVERY_S:
                return
            text = train_line(*arguments)
        elif kind == "evaluation":
            text = _evaluation_line(arguments[0])
        else:
            text = str(arguments[0])
        self._shown_s[name] = now
        _say(self._console, f"{name}: {text}")


def _evaluation_line(record: Mapping[str, Any]) -> str:
    from metarl.distributed.sweep.work import returns_of
    from metarl.report.table import number

    returns = returns_of(record)
    ends = " -> ".join(number(value) for value in (returns[0], returns[-1])[: len(returns)])
    return f"iteration {record['iteration']}: {record['num_tasks']} {record['split']} tasks, return {ends}"


def _write_summary(request: Request, plan: Plan, errors: Mapping[str, str]) -> None:
    from metarl.distributed.sweep.results import read_results, write_summary

    about = {
        "config": str(request.config),
        "overrides": request.overrides,
        "sweep": request.sweeps,
        "seeds": plan.seeds,
        "asha": request.asha,
    }
    write_summary(request.root, about, read_results(request.root, plan, errors))


def _show(request: Request, results: Sequence[Any], console: Console) -> None:
    """The table, the picture, and what failed."""
    from metarl.distributed.sweep.work import SUMMARY
    from metarl.report.sweep_figure import plot_sweep
    from metarl.report.sweep_table import failures, table

    plot_sweep(results, request.config.stem, request.root / "sweep.png")
    console.print(table(results, request.config.stem))
    for name in (SUMMARY, "sweep.png"):
        _say(console, str(request.root / name))
    failed = failures(results)
    for run in failed:
        typer.echo(f"error: {run.name} failed: {run.error}", err=True)
    if failed:
        typer.echo(f"try the failed ones again with:\n  {request.command()}", err=True)


def _end_stopped(request: Request, root: Path, plan: Plan, number: int, errors: Mapping[str, str]) -> None:
    from metarl.distributed.sweep.work import outcome_of

    ended = sum(outcome_of(root / run.name) is not None for run in plan.runs)
    for name, error in errors.items():
        typer.echo(f"error: {name} failed: {error}", err=True)
    typer.echo(
        f"stopped by {signal.Signals(number).name}: {ended} of {len(plan.runs)} runs have ended, the others are saved. "
        f"Go on with:\n  {request.command()}",
        err=True,
    )
    raise typer.Exit(128 + number)


def _counted(plan: Plan) -> str:
    settings, seeds = len(plan.settings), len(plan.seeds)
    return f"{settings} setting{'s' * (settings != 1)} x {seeds} seed{'s' * (seeds != 1)}"


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
