"""The command line. Exit codes: 0 done, 1 the run failed, 2 the user's input is wrong, 128 + n stopped by signal n.

Nothing heavy is imported before a command runs: `metarl --help` must answer at once.
"""

from __future__ import annotations

import shlex
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metarl.cli.errors import console as _console
from metarl.cli.errors import exit_codes as _exit_codes
from metarl.cli.jobs import jobs_app, submit
from metarl.errors import ConfigError, TaskError

if TYPE_CHECKING:
    from rich.console import Console

    from metarl.config import RunConfig
    from metarl.evaluation.evaluate import Evaluation
    from metarl.rollout.executor import Executor
    from metarl.rollout.policy import AdaptivePolicy
    from metarl.tasks import Split, TaskDistribution
    from metarl.training.loop import MakeExecutor, Outcome

app = typer.Typer(
    name="metarl",
    help="Train policies that adapt, and measure how fast they do.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
tasks_app = typer.Typer(help="Look at task distributions.", no_args_is_help=True)
app.add_typer(tasks_app, name="tasks")
app.command()(submit)
app.add_typer(jobs_app, name="jobs")

Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="overrides, such as seed=3")]
Options = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="options of the distribution")]
Local = Annotated[bool, typer.Option("--local", help="run in this process, without Ray")]
Address = Annotated[str | None, typer.Option(help="a running Ray cluster; without it one is started here")]
SplitName = Annotated[str, typer.Option(help="train, test or ood")]


def main() -> None:
    """The console script."""
    app()


# --- runs --------------------------------------------------------------------------------------------


@app.command()
def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="a YAML file, see experiments/")],
    overrides: Overrides = None,
    run_dir: Annotated[
        str | None,
        typer.Option(help="where the run goes, a path or a URL such as s3://... (default: runs/CONFIG's name)"),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="go on with the run there; starts one if there is none")
    ] = False,
    local: Local = False,
    address: Address = None,
    sweep: Annotated[
        list[str] | None, typer.Option(metavar="KEY=A,B,...", help="compare these values; again for another key")
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="runs of each setting, from seed= on")] = None,
    asha: Annotated[bool, typer.Option("--asha", help="of a sweep: stop what does worst early")] = False,
    cpus_per_run: Annotated[int, typer.Option(min=1, help="of a sweep: processors of each run")] = 1,
) -> None:
    """Meta-train what CONFIG describes; with --sweep or --seeds many runs of it side by side, and compare them."""
    with _exit_codes():
        if sweep or seeds or asha or cpus_per_run > 1:
            from metarl.cli.sweep import Request, train_sweep

            if run_dir and "://" in run_dir:
                raise ConfigError(f"--run-dir {run_dir}: a sweep's is a path")
            lists, folder = (tuple(overrides or ()), tuple(sweep or ())), Path(run_dir) if run_dir else None
            train_sweep(Request(config, *lists, seeds, folder, resume, local, address, asha, cpus_per_run))
            return
        from metarl.config import load_config
        from metarl.runs.remote import local_copy
        from metarl.training.loop import train as run_training
        from metarl.training.progress import ConsoleReporter

        given = list(overrides or ())
        run = run_dir or f"runs/{config.stem}"
        settings = load_config(config, [*given, *(["executor.backend=local"] if local else [])])
        console = _console()
        console.print(f"run directory: {run}", markup=False, highlight=False, soft_wrap=True)
        reporter = ConsoleReporter(console)
        try:
            if address is None or settings.executor.backend == "local":
                with _executors(settings, address) as make_executor, local_copy(run) as (path, saved):
                    outcome = run_training(settings, path, make_executor, resume=resume, reporter=reporter, saved=saved)
            else:
                from metarl.distributed.learner import train_on_cluster

                outcome = train_on_cluster(settings, run, address, resume, reporter)
        finally:
            reporter.close()
        again = ["metarl", "train", str(config), *given, "--run-dir", run, "--resume"]
        again += ["--local"] if local else ["--address", address] if address else []
        _finish(console, run, outcome, shlex.join(again))


def _finish(console: Console, run: str, outcome: Outcome, command: str) -> None:
    """Say how it ended and what comes next; exits where a signal ended it."""
    minutes = outcome.wall_s / 60
    summary = (
        f"{outcome.iteration} iterations, {outcome.env_steps:,} environment steps, {minutes:.1f} minutes of training"
    )
    if outcome.signal_number is not None:
        name = signal.Signals(outcome.signal_number).name
        typer.echo(f"stopped by {name} after {summary}; everything is saved. Go on with:\n  {command}", err=True)
        raise typer.Exit(128 + outcome.signal_number)
    from metarl.report.adaptation_curve import plot_learning_curve
    from metarl.runs.directory import read_records

    head = {"done": "done", "time limit": "the time limit is reached"}[outcome.reason]
    console.print(f"{head}: {summary}", markup=False, highlight=False, soft_wrap=True)
    metrics = Path(run) / "metrics.jsonl"  # or on a storage or another node
    if metrics.exists() and any(record["kind"] == "train" for record in read_records(metrics)):
        plot_learning_curve(metrics, Path(run) / "learning.png")
        console.print(f"learning curve: {run}/learning.png", markup=False, highlight=False, soft_wrap=True)


@app.command()
def evaluate(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="a run directory or its URL; config.yaml and checkpoints/ are enough")
    ],
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
    """Judge the newest checkpoint of RUN by how it adapts: to tasks that it has not seen, or, with --split train, to
    some that it trained on.

    Overrides change how it acts in this evaluation, such as evaluation.context=blank.
    """
    with _exit_codes(), ExitStack() as stack:
        from metarl.evaluation.evaluate import evaluate as run_evaluation
        from metarl.runs.build import load_run
        from metarl.runs.directory import evaluation_folder
        from metarl.runs.remote import local_copy
        from metarl.runs.training_tasks import training_tasks

        console, name = _console(), _split(split)
        given = [*(overrides or ()), *_evaluation_keys(tasks, episodes, support, rounds, seed)]
        path, _ = stack.enter_context(local_copy(run))
        trained = load_run(path, given)
        config, iteration = trained.config, trained.checkpoint.iteration
        if local:
            config = config.model_copy(update={"executor": config.executor.model_copy(update={"backend": "local"})})
        num_tasks = config.evaluation.num_tasks
        trained_on = training_tasks(trained, num_tasks, config.seed) if name == "train" else None
        with _executors(config, address) as make_executor:
            executor = make_executor(trained.distribution, trained.algorithm.policy)
            try:
                result = run_evaluation(
                    executor,
                    trained.distribution,
                    trained.algorithm.evaluation_plan(trained.distribution.horizon, config.evaluation.settings),
                    trained.algorithm.weights(),
                    split=name,
                    num_tasks=num_tasks,
                    seed=config.seed,
                    iteration=iteration,
                    tasks_per_unit=config.training.tasks_per_unit,
                    trained_on=trained_on,
                )
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


@contextmanager
def _executors(config: RunConfig, address: str | None) -> Iterator[MakeExecutor]:
    """A maker of executors. Ray starts with the first one made, when all input has been checked, and ends with this."""
    settings = config.executor
    if settings.backend == "local" and address is not None:
        raise ConfigError(f"--address {address} and running locally exclude each other")
    with ExitStack() as stack:

        def make(distribution: TaskDistribution, policy: AdaptivePolicy[Any]) -> Executor:
            if settings.backend == "local":
                from metarl.rollout.local import LocalExecutor

                return LocalExecutor(distribution, policy)
            from metarl.distributed import RayExecutor, connect

            stack.enter_context(connect(address, settings.num_workers))
            return RayExecutor(
                distribution, policy, num_workers=settings.num_workers, unit_deadline_s=settings.unit_deadline_s
            )

        yield make


# --- tasks -------------------------------------------------------------------------------------------


@tasks_app.command("list")
def list_tasks() -> None:
    """The task distributions that are installed."""
    with _exit_codes():
        from metarl.tasks import available_distributions

        for name, target in available_distributions().items():
            typer.echo(f"{name:<28} {target}")


@tasks_app.command("show")
def show_tasks(name: Annotated[str, typer.Argument(metavar="NAME_OR_module:attr")], options: Options = None) -> None:
    """The parameters of a task distribution, their ranges, and what is known about its returns."""
    with _exit_codes():
        from rich.table import Table

        from metarl.report.labels import reference_returns

        distribution = _distribution(name, options)
        shown = Table(title=f"{distribution.name} (version {distribution.version})", title_justify="left")
        for column in ("parameter", "unit", "train", "test", "ood"):
            shown.add_column(column)
        for p in distribution.parameters:
            test = str(p.test) if p.test else "same" if distribution.splits_coincide else "held out"
            shown.add_row(p.name, p.unit or "-", str(p.prior), test, str(p.ood or "-"))
        console = _console()
        console.print(shown)
        console.print(f"horizon {distribution.horizon} steps")
        anchors = distribution.anchors
        for reference in reference_returns(anchors):
            console.print(f"reference return, {reference.label}: {reference.value:g}", highlight=False)
        if anchors.source:
            console.print(f"({anchors.source})", markup=False, highlight=False)
        if distribution.splits_coincide:
            console.print("train and test tasks coincide: results show adaptation, no generalisation")


@tasks_app.command("sample")
def sample_tasks(
    name: Annotated[str, typer.Argument(metavar="NAME_OR_module:attr")],
    options: Options = None,
    number: Annotated[int, typer.Option("-n", min=1, help="how many")] = 5,
    split: SplitName = "train",
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Draw tasks."""
    with _exit_codes():
        for task in _distribution(name, options).sample(_split(split), number, seed):
            typer.echo(str(task))


@tasks_app.command("check")
def check_tasks(name: Annotated[str, typer.Argument(metavar="NAME_OR_module:attr")], options: Options = None) -> None:
    """Check that a task distribution of your own keeps the contract."""
    with _exit_codes():
        from metarl.tasks.check import check_distribution

        results = check_distribution(_distribution(name, options))
        for result in results:
            typer.echo(f"{'ok' if result.passed else 'FAILED':<7} {result.name}")
            if not result.passed:
                typer.echo(f"        {result.message}")
        failed = sum(not result.passed for result in results)
        if failed:
            raise TaskError(f"{name}: {failed} of {len(results)} checks failed")


def _distribution(name: str, options: list[str] | None) -> TaskDistribution:
    from metarl.tasks import load_distribution

    return load_distribution(name, **_keyword_arguments(options or []))


def _keyword_arguments(options: list[str]) -> dict[str, Any]:
    import yaml  # type: ignore[import-untyped]

    values = {}
    for option in options:
        key, equals, text = option.partition("=")
        if not (equals and key):
            raise ConfigError(f"option {option!r}: expected key=value, for example horizon=100")
        try:
            values[key] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"option {option!r}: invalid YAML value: {error}") from error
    return values


def _split(name: str) -> Split:
    from metarl.tasks import SPLITS

    for split in SPLITS:
        if split == name:
            return split
    raise TaskError(f"unknown split {name!r}; allowed: {', '.join(SPLITS)}")
