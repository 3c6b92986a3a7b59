"""`metarl evaluate`: how a trained policy adapts to tasks that it has not seen."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metarl.cli.errors import exit_codes
from metarl.cli.options import Address, Local, Overrides, RunName, as_overrides, expanded, require_writable, split_of
from metarl.cli.output import print_plain, result_console, say
from metarl.cli.task_values import split_of_all, task_of
from metarl.errors import ConfigError
from metarl.launch import executor_of

if TYPE_CHECKING:
    from metarl.config import RunConfig
    from metarl.evaluation.evaluate import Evaluation
    from metarl.evaluation.grid import Grid
    from metarl.runs.build import TrainedRun
    from metarl.tasks import Split, Task


Tasks = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=VALUE,...", help="a task with these parameter values; again for another one"),
]
Support = Annotated[
    int | None, typer.Option(min=0, help="episodes per task adapted to before the judged ones [default: the run's]")
]
Vary = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=LOW:HIGH:N",
        help="a grid of tasks, also outside all ranges; other parameters as --task says or in the middle of theirs",
    ),
]
Threshold = Annotated[
    float | None, typer.Option(help="count episodes and steps until this return [default: close to the expert's]")
]
IterationOf = Annotated[
    int | None, typer.Option(min=0, help="the iteration of one of its checkpoints [default: the newest]")
]
Out = Annotated[str | None, typer.Option(help="where results go [default: RUN/evaluations/SPLIT-ITERATION-CHANGES]")]


def evaluate(
    run: RunName,
    overrides: Overrides = None,
    split: Annotated[str | None, typer.Option(help="test, validation, train or ood [default: test]")] = None,
    task: Tasks = None,
    tasks: Annotated[int | None, typer.Option(min=1, help="number of tasks [default: the run's]")] = None,
    episodes: Annotated[int | None, typer.Option(min=1, help="judged episodes per task [default: the run's]")] = None,
    support: Support = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="rounds, the last one judged [default: the run's]")] = None,
    vary: Vary = None,
    threshold: Threshold = None,
    checkpoint: IterationOf = None,
    seed: Annotated[int | None, typer.Option(min=0, help="of the tasks and episodes [default: the run's]")] = None,
    out: Out = None,
    local: Local = False,
    address: Address = None,
) -> None:
    """Judge RUN's newest checkpoint by how it adapts to tasks that it has not seen.

    Overrides change how it acts in this evaluation, such as evaluation.context=blank.
    """
    with exit_codes():
        from metarl.config import load_stored_config
        from metarl.runs.build import load_run
        from metarl.runs.directory import evaluation_folder
        from metarl.runs.remote import reading_copy

        _refuse_contradictions(vary, task, split, tasks, threshold)
        name = split_of(split or "test")
        options = _evaluation_keys(tasks, episodes, support, rounds, seed)
        run = expanded(run)
        with reading_copy(run) as path:
            trained = load_run(path, [*(overrides or ()), *options], checkpoint)
            stored = load_stored_config(path / "config.yaml")
            changed = _changed(stored, trained)
            chosen = [] if vary else [task_of(trained.distribution, text) for text in task or ()]
            name = split_of_all(trained.distribution, chosen) if chosen else name
            label = [*changed, *(f"task={text}" for text in task or ()), *(f"vary={text}" for text in vary or ())]
            usual = evaluation_folder(path, "grid" if vary else name, trained.checkpoint.iteration, label)
            folder = Path(expanded(out)) if out else usual
            shown_as = str(folder).replace(str(path), run)
            notes = [f"Evaluated with {', '.join(overrides)}."] if overrides else []
            with _writable(folder):
                if vary:
                    _report_grid(_evaluate_grid(trained, vary, task, local, address), notes, folder, shown_as)
                else:
                    result = _evaluate(trained, name, chosen, threshold, local, address)
                    _report(replace(result, notes=(*result.notes, *notes)), folder, shown_as)
            if not (vary or chosen) and name == stored.evaluation.split and stored.training.evaluate_every:
                say(f"Training was watched on {name} tasks: what was chosen by them looks better here than it is.")


def _changed(stored: RunConfig, trained: TrainedRun) -> list[str]:
    """What this evaluation changes of the run's configuration; ConfigError where it may not, or has no such plan."""
    from metarl.config import changes

    if trained.config.evaluation.split != stored.evaluation.split:
        raise ConfigError("evaluation.split is what training was watched on: choose what is judged with --split")
    trained.algorithm.evaluation_plan(trained.distribution.horizon, trained.config.evaluation.settings)  # or refused
    return changes(stored, trained.config)


def _refuse_contradictions(
    vary: list[str] | None, task: list[str] | None, split: str | None, tasks: int | None, threshold: float | None
) -> None:
    """ConfigError where options are given that have no meaning beside each other."""
    given = {"--split": split, "--tasks": tasks, "--threshold": threshold if vary else None}
    for option, value in given.items():
        if value is not None and (task or vary):
            raise ConfigError(f"{'--vary' if vary else '--task'} and {option} exclude each other")
    if threshold is not None and not math.isfinite(threshold):
        raise ConfigError(f"--threshold {threshold}: allowed is a finite return")
    if vary and task and len(task) > 1:
        raise ConfigError("--vary: --task says what the other parameters are held at, and may be given once")


def _evaluate_grid(
    trained: TrainedRun, vary: list[str], task: list[str] | None, is_local: bool, address: str | None
) -> Grid:
    """The grid that --vary describes; --task, or the middle of the ranges, gives all other parameters."""
    from metarl.evaluation.grid import axis_of, grid_tasks
    from metarl.runs.evaluation import evaluate_grid_of
    from metarl.tasks.middle import middle_task

    distribution = trained.distribution
    axes = [axis_of(distribution, text) for text in vary]
    base = task_of(distribution, task[0], fill=True) if task else middle_task(distribution)
    grid_tasks(distribution, axes, base)  # or refused, before workers start
    with executor_of(trained, is_local, address) as executor:
        return evaluate_grid_of(trained, executor, axes, base)


def _evaluate(
    trained: TrainedRun,
    split: Split,
    chosen: list[Task],
    threshold: float | None,
    is_local: bool,
    address: str | None,
) -> Evaluation:
    from metarl.runs.evaluation import judge_run

    with executor_of(trained, is_local, address) as executor:
        return judge_run(trained, executor, split, chosen, threshold=threshold)


def _evaluation_keys(
    tasks: int | None, episodes: int | None, support: int | None, rounds: int | None, seed: int | None
) -> list[str]:
    """The command's options as keys of the configuration."""
    keys = {
        "evaluation.num_tasks": tasks,
        "evaluation.episodes": episodes,
        "evaluation.support_episodes": support,
        "evaluation.rounds": rounds,
        "seed": seed,
    }
    return as_overrides(keys)


@contextmanager
def _writable(folder: Path) -> Iterator[None]:
    """`folder` exists and takes files, which is found out before anything is computed; an empty one is removed."""
    require_writable(folder)
    try:
        yield
    finally:
        with suppress(OSError):
            os.rmdir(folder)


def _report(result: Evaluation, folder: Path, shown_as: str) -> None:
    """Print an evaluation's table, write it and its picture into `folder`, and say where they are."""
    from metarl.report.adaptation_curve import plot_adaptation
    from metarl.report.table import table

    console = result_console()
    console.print(table(result))  # first: writing may fail
    result.write(folder / "evaluation.json")
    plot_adaptation(result, folder / "adaptation.png")
    for name in ("evaluation.json", "adaptation.png"):
        print_plain(console, f"{shown_as}/{name}")


def _report_grid(grid: Grid, notes: list[str], folder: Path, shown_as: str) -> None:
    """Print a grid's table, write it and its picture into `folder`, and say where they are."""
    from metarl.report.grid import grid_table, plot_grid

    console = result_console()
    console.print(grid_table(grid, notes))
    grid.write(folder / "grid.json")
    plot_grid(grid, folder / "grid.png")
    for name in ("grid.json", "grid.png"):
        print_plain(console, f"{shown_as}/{name}")
