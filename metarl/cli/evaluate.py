"""`metarl evaluate`: how a trained policy adapts to tasks that it has not seen."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metarl.cli.errors import console as result_console
from metarl.cli.errors import exit_codes, say
from metarl.cli.executors import executors
from metarl.cli.options import Address, Local, Overrides, RunName, expanded, split_of
from metarl.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from metarl.config import RunConfig
    from metarl.evaluation.evaluate import Evaluation
    from metarl.runs.build import TrainedRun
    from metarl.tasks import Split, Task, TaskDistribution


def evaluate(
    run: RunName,
    overrides: Overrides = None,
    split: Annotated[str | None, typer.Option(help="test, validation, train or ood [default: test]")] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE,...", help="a task with these parameter values; again for another one"),
    ] = None,
    tasks: Annotated[int | None, typer.Option(min=1, help="number of tasks [default: the run's]")] = None,
    episodes: Annotated[int | None, typer.Option(min=1, help="judged episodes per task [default: the run's]")] = None,
    support: Annotated[
        int | None, typer.Option(min=0, help="episodes per task adapted to before the judged ones [default: the run's]")
    ] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="rounds, the last one judged [default: the run's]")] = None,
    checkpoint: Annotated[
        int | None, typer.Option(min=0, help="the iteration of one of its checkpoints [default: the newest]")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="of the tasks and episodes [default: the run's]")] = None,
    out: Annotated[
        str | None, typer.Option(help="where results go [default: RUN/evaluations/SPLIT-ITERATION-CHANGES]")
    ] = None,
    local: Local = False,
    address: Address = None,
) -> None:
    """Judge RUN's newest checkpoint by how it adapts to tasks that it has not seen.

    Overrides change how it acts in this evaluation, such as evaluation.context=blank.
    """
    with exit_codes():
        from metarl.config import changes, load_stored_config
        from metarl.runs.build import load_run
        from metarl.runs.directory import evaluation_folder
        from metarl.runs.remote import reading_copy

        if task and (split or tasks):
            raise ConfigError(f"--task and {'--split' if split else '--tasks'} exclude each other")
        name = split_of(split or "test")
        options = _evaluation_keys(tasks, episodes, support, rounds, seed)
        console, run = result_console(), expanded(run)
        with reading_copy(run) as path:
            trained = load_run(path, [*(overrides or ()), *options], checkpoint)
            chosen = [_task(trained.distribution, text) for text in task or ()]
            if chosen:
                name = _split_of_all(trained.distribution, chosen)
            stored = load_stored_config(path / "config.yaml")
            changed = changes(stored, trained.config)
            label = [*changed, *(f"task={text}" for text in task or ())]
            folder = Path(expanded(out)) if out else evaluation_folder(path, name, trained.checkpoint.iteration, label)
            _refuse_what_does_not_apply(trained, stored)
            with _writable(folder):
                result = _evaluate(trained, name, chosen, local, address)
                notes = [f"Evaluated with {', '.join(overrides)}."] if overrides else []
                result = replace(result, notes=(*result.notes, *notes))
                _report(console, result, folder, str(folder).replace(str(path), run))
                if not chosen:
                    _say_what_training_was_watched_on(stored, name)


def _refuse_what_does_not_apply(trained: TrainedRun, stored: RunConfig) -> None:
    """ConfigError where the algorithm has no such evaluation, or an override a split; before anything is written."""
    if trained.config.evaluation.split != stored.evaluation.split:
        raise ConfigError("evaluation.split is what training was watched on: choose what is judged with --split")
    trained.algorithm.evaluation_plan(trained.distribution.horizon, trained.config.evaluation.settings)


def _say_what_training_was_watched_on(stored: RunConfig, split: Split) -> None:
    """Only where these are the tasks that are judged: those of `split`."""
    if stored.training.evaluate_every and stored.evaluation.split == split:
        say(f"Training was watched on {split} tasks: what was chosen by them looks better here than it is.")


def _evaluate(trained: TrainedRun, split: Split, chosen: list[Task], is_local: bool, address: str | None) -> Evaluation:
    from metarl.runs.evaluation import evaluate_run

    config = trained.config
    if is_local:
        config = config.model_copy(update={"executor": config.executor.model_copy(update={"backend": "local"})})
    with executors(config, address) as make_executor:
        executor = make_executor(trained.distribution, trained.algorithm.policy)
        try:
            return evaluate_run(trained, executor, split, chosen)
        finally:
            executor.close()


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


def _task(distribution: TaskDistribution, text: str) -> Task:
    """The task of `mass=1.5,goal=[0.3, 0.4]`; ConfigError or TaskError where it is none of this distribution."""
    from metarl.config.overrides import parse_override

    example = ",".join(f"{parameter.name}=..." for parameter in distribution.parameters)
    values = {}
    for part in split_at_commas(text):
        name, value = parse_override(part, "--task", "name=value,...", example)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number and not (isinstance(value, list) and value):
            raise ConfigError(f"--task {text}: {name} = {value!r}: allowed is a number or a list of numbers")
        values[name] = tuple(value) if isinstance(value, list) else value
    return distribution.task(**values)


def split_at_commas(text: str) -> list[str]:
    """The parts between commas that stand in no brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character == "[") - (character == "]")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def _split_of_all(distribution: TaskDistribution, tasks: list[Task]) -> Split:
    """The split that chosen tasks are judged as: the first of ood, train and validation that any of them belongs to,
    and test where all are test tasks."""
    splits = [distribution.split_of(task) for task in tasks]
    if any("ood" in found for found in splits):
        return "ood"
    if all("test" in found for found in splits):
        return "test"
    return "train" if any("train" in found for found in splits) else "validation"


@contextmanager
def _writable(folder: Path) -> Iterator[None]:
    """`folder` exists and takes files, which is found out before anything is computed; an empty one is removed."""
    probe = folder / ".metarl"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"cannot write into {folder}: {error.strerror}: choose another place with --out") from error
    try:
        yield
    finally:
        with suppress(OSError):
            os.rmdir(folder)


def _report(console: Console, result: Evaluation, folder: Path, shown_as: str) -> None:
    """Print an evaluation's table, write it and its picture into `folder`, and say where they are."""
    from metarl.report.adaptation_curve import plot_adaptation
    from metarl.report.table import table

    console.print(table(result))  # first: writing may fail
    result.write(folder / "evaluation.json")
    plot_adaptation(result, folder / "adaptation.png")
    for name in ("evaluation.json", "adaptation.png"):
        console.print(f"{shown_as}/{name}", markup=False, highlight=False, soft_wrap=True)
