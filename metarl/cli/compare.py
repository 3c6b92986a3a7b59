"""`metarl compare`: runs against each other on equal tasks."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metarl.cli.errors import console as result_console
from metarl.cli.errors import exit_codes
from metarl.cli.executors import executor_of
from metarl.cli.options import Address, Local, require_writable, split_of
from metarl.cli.report import RunNames, load_alike, run_labels, split_runs
from metarl.errors import ConfigError

if TYPE_CHECKING:
    from metarl.evaluation.evaluate import Evaluation


def compare(
    runs: RunNames,
    out: Annotated[Path, typer.Option(help="the folder for comparison.json and comparison.png")] = Path("comparison"),
    split: Annotated[str, typer.Option(help="test, validation or ood")] = "test",
    tasks: Annotated[int | None, typer.Option(min=1, help="tasks [default: the first run's]")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="of tasks and episodes [default: the first run's]")] = None,
    local: Local = False,
    address: Address = None,
) -> None:
    """Judge runs on the same tasks: task-blind, oracle, robust and adaptive policies beside each other.

    All are given the first run's tasks; the oracle is a run with task_distribution.reveal_task=true.
    """
    with exit_codes():
        from metarl.evaluation.comparison import compare as compare_evaluations
        from metarl.report.page.compare import comparison_figure, comparison_table
        from metarl.report.style import save
        from metarl.runs.evaluation import evaluate_run
        from metarl.runs.remote import reading_copy

        names, overrides = split_runs(runs)
        if len(names) < 2:
            raise ConfigError("give at least two run directories to compare")
        which = split_of(split)
        if which == "train":
            raise ConfigError("--split train: runs are trained on different tasks; allowed: test, validation, ood")
        require_writable(out)
        found: dict[str, Evaluation] = {}
        common: list[str] = []
        for name, label in zip(names, run_labels(names), strict=True):
            with ExitStack() as stack:
                trained, common = load_alike(stack.enter_context(reading_copy(name)), overrides, tasks, seed, common)
                executor = stack.enter_context(executor_of(trained, local, address))
                found[label] = evaluate_run(trained, executor, which)
        comparison = compare_evaluations(found, next(iter(found.values())).seed)
        console = result_console()
        console.print(comparison_table(comparison))
        (out / "comparison.json").write_text(json.dumps(comparison.to_json(), indent=2) + "\n", encoding="utf-8")
        save(comparison_figure(comparison.evaluations, (8.4, 5.2)), out / "comparison.png")
        for file in ("comparison.json", "comparison.png"):
            console.print(f"{out}/{file}", markup=False, highlight=False, soft_wrap=True)
