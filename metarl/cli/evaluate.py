"""`metarl evaluate`: how a trained policy adapts to tasks that it has not seen."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metarl.cli.errors import console as result_console
from metarl.cli.errors import exit_codes
from metarl.cli.executors import executors
from metarl.cli.options import Address, Local, Overrides, RunName, SplitName, split_of

if TYPE_CHECKING:
    from rich.console import Console

    from metarl.evaluation.evaluate import Evaluation


def evaluate(
    run: RunName,
    overrides: Overrides = None,
    split: SplitName = "test",
    tasks: Annotated[int | None, typer.Option(min=1, help="number of tasks [default: the run's]")] = None,
    episodes: Annotated[int | None, typer.Option(min=1, help="judged episodes per task [default: the run's]")] = None,
    support: Annotated[
        int | None, typer.Option(min=0, help="episodes per task adapted to before the judged ones [default: the run's]")
    ] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="rounds, the last one judged [default: the run's]")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="of the tasks and episodes [default: the run's]")] = None,
    out: Annotated[
        Path | None, typer.Option(help="where results go [default: RUN/evaluations/SPLIT-ITERATION, and the overrides]")
    ] = None,
    local: Local = False,
    address: Address = None,
) -> None:
    """Judge the newest checkpoint of RUN by how it adapts to tasks that it has not seen; with --split train, to some
    that it was trained on.

    Overrides change how it acts in this evaluation, such as evaluation.context=blank.
    """
    with exit_codes(), ExitStack() as stack:
        from metarl.runs.build import load_run
        from metarl.runs.directory import evaluation_folder
        from metarl.runs.evaluation import evaluate_run
        from metarl.runs.remote import reading_copy

        console, name = result_console(), split_of(split)
        given = [*(overrides or ()), *_evaluation_keys(tasks, episodes, support, rounds, seed)]
        path = stack.enter_context(reading_copy(run))
        trained = load_run(path, given)
        config, iteration = trained.config, trained.checkpoint.iteration
        if local:
            config = config.model_copy(update={"executor": config.executor.model_copy(update={"backend": "local"})})
        with executors(config, address) as make_executor:
            executor = make_executor(trained.distribution, trained.algorithm.policy)
            try:
                result = evaluate_run(trained, executor, name)
            finally:
                executor.close()
        if overrides:
            result = replace(result, notes=(*result.notes, f"Evaluated with {', '.join(overrides)}."))
        folder = out or evaluation_folder(path, name, iteration, overrides or ())
        _report(console, result, folder, str(folder).replace(str(path), run))


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
    return [f"{key}={value}" for key, value in keys.items() if value is not None]


def _report(console: Console, result: Evaluation, folder: Path, shown_as: str) -> None:
    """Write an evaluation and its picture into `folder`, print the table and where they are."""
    from metarl.report.adaptation_curve import plot_adaptation
    from metarl.report.table import table

    result.write(folder / "evaluation.json")
    plot_adaptation(result, folder / "adaptation.png")
    console.print(table(result))
    for name in ("evaluation.json", "adaptation.png"):
        console.print(f"{shown_as}/{name}", markup=False, highlight=False, soft_wrap=True)
