"""`metarl compare`: runs against each other on equal tasks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metarl.cli.errors import exit_codes
from metarl.cli.options import Address, Local, expanded, require_writable, split_of
from metarl.cli.output import print_plain, result_console
from metarl.cli.report import RunNames, load_alike, run_labels, split_runs
from metarl.errors import ConfigError
from metarl.launch import executor_of

if TYPE_CHECKING:
    from metarl.evaluation.comparison import Comparison
    from metarl.evaluation.evaluate import Evaluation
    from metarl.tasks import Split

ComparedSplit = Annotated[str, typer.Option(help="test, validation or ood")]
ComparedTasks = Annotated[int | None, typer.Option(min=1, help="tasks [default: the first run's]")]
ComparedSeed = Annotated[int | None, typer.Option(min=0, help="of tasks and episodes [default: the first run's]")]


@dataclass(frozen=True)
class Entry:
    """A policy to compare: a run's directory or URL, and what is changed in its configuration for this."""

    run: str
    overrides: tuple[str, ...] = ()


def compare(
    runs: RunNames,
    out: Annotated[Path, typer.Option(help="the folder for comparison.json and comparison.png")] = Path("comparison"),
    split: ComparedSplit = "test",
    tasks: ComparedTasks = None,
    seed: ComparedSeed = None,
    local: Local = False,
    address: Address = None,
) -> None:
    """Judge runs on the same tasks: task-blind, oracle, robust and adaptive policies beside each other.

    All are given the first run's tasks. `metarl baselines` trains what an adaptive run is to be compared with.
    """
    with exit_codes():
        names, overrides = split_runs(runs)
        if len(names) < 2:
            raise ConfigError("give at least two run directories to compare")
        which, out = compared_split(split), Path(expanded(str(out)))
        require_writable(out)
        entries = {label: Entry(name, tuple(overrides)) for name, label in zip(names, run_labels(names), strict=True)}
        show(judged(entries, which, tasks, seed, local, address), out)


def compared_split(name: str) -> Split:
    """A split that all runs can be judged on."""
    split = split_of(name)
    if split == "train":
        raise ConfigError("--split train: runs are trained on different tasks; allowed: test, validation, ood")
    return split


def judged(
    entries: Mapping[str, Entry], split: Split, tasks: int | None, seed: int | None, local: bool, address: str | None
) -> Comparison:
    """Evaluations of all on the first one's tasks, compared."""
    from metarl.evaluation.comparison import compare as compare_evaluations
    from metarl.runs.evaluation import evaluate_run
    from metarl.runs.remote import reading_copy

    found: dict[str, Evaluation] = {}
    common: list[str] = []
    for label, entry in entries.items():
        with ExitStack() as stack:
            path = stack.enter_context(reading_copy(entry.run))
            trained, common = load_alike(path, list(entry.overrides), tasks, seed, common)
            found[label] = evaluate_run(trained, stack.enter_context(executor_of(trained, local, address)), split)
    return compare_evaluations(found, next(iter(found.values())).seed)


def show(comparison: Comparison, out: Path) -> None:
    """The table; comparison.json and comparison.png in `out`."""
    from metarl.files import write_text
    from metarl.report.page.compare import comparison_figure, comparison_table
    from metarl.report.style import save

    console = result_console()
    console.print(comparison_table(comparison))
    write_text(out / "comparison.json", json.dumps(comparison.to_json(), indent=2) + "\n")
    save(comparison_figure(comparison.evaluations, (8.4, 5.2)), out / "comparison.png")
    for file in ("comparison.json", "comparison.png"):
        print_plain(console, f"{out}/{file}")
