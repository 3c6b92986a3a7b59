"""`metarl report`: one page about a run, or about several beside each other."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metarl.cli.errors import exit_codes
from metarl.cli.options import Address, Local, as_overrides, expanded, require_writable
from metarl.cli.output import print_plain, result_console
from metarl.errors import ConfigError
from metarl.launch import executor_of

if TYPE_CHECKING:
    from metarl.report.study import Study
    from metarl.runs.build import TrainedRun

RunNames = Annotated[
    list[str],
    typer.Argument(metavar="RUN... [KEY=VALUE]...", help="run directories or URLs; overrides for all of them"),
]


def report(
    runs: RunNames,
    out: Annotated[Path, typer.Option(help="the folder that report.html goes to")] = Path("report"),
    tasks: Annotated[int | None, typer.Option(min=1, help="tasks per split [default: the first run's]")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="of tasks and episodes [default: the first run's]")] = None,
    grids: Annotated[bool, typer.Option(help="vary each parameter, also outside its range")] = True,
    local: Local = False,
    address: Address = None,
) -> None:
    """Measure runs on the same tasks and write what was found as one page, report.html, that needs no network."""
    with exit_codes():
        from metarl.report.page.page import write
        from metarl.report.study import study
        from metarl.runs.remote import reading_copy

        names, overrides = split_runs(runs)
        out = Path(expanded(str(out)))
        require_writable(out)
        studies: list[Study] = []
        common: list[str] = []
        with ExitStack() as copies:  # kept to the end: the page reads their videos
            for name, label in zip(names, run_labels(names), strict=True):
                path = copies.enter_context(reading_copy(name))
                trained, common = load_alike(path, overrides, tasks, seed, common)
                with executor_of(trained, local, address) as executor:
                    studies.append(study(trained, executor, path, label, grids))
            page = write(studies, out)
        for one in studies:
            result_console().print(f"{one.name}: {one.verdict}", markup=False, highlight=False)
        print_plain(result_console(), str(page))


def split_runs(words: list[str]) -> tuple[list[str], list[str]]:
    """Run directories, and overrides: what holds a `=` and is no directory. ConfigError where there is no run."""
    runs = [word for word in words if "=" not in word or Path(expanded(word)).is_dir()]
    if not runs:
        raise ConfigError("give at least one run directory")
    return [expanded(run) for run in runs], [word for word in words if word not in runs]


def run_labels(names: list[str]) -> list[str]:
    """The folders' names, with a number behind it where several have the same."""
    from metarl.report.page.compare import unique_names

    return unique_names([Path(name.rstrip("/")).resolve().name for name in names])


def load_alike(
    path: Path, overrides: list[str], tasks: int | None, seed: int | None, common: list[str]
) -> tuple[TrainedRun, list[str]]:
    """A run, and what all runs take over from the first one so that their tasks are equal: `common`, if there is any
    yet, else this run's own."""
    from metarl.runs.build import load_run

    options = as_overrides({"evaluation.num_tasks": tasks, "seed": seed})
    trained = load_run(path, [*common, *overrides, *options])
    own = [f"evaluation.num_tasks={trained.config.evaluation.num_tasks}", f"seed={trained.config.seed}"]
    return trained, common or own
