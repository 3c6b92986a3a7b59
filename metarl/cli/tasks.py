"""`metarl tasks`: look at task distributions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metarl.cli.errors import exit_codes
from metarl.cli.options import SplitName, split_of
from metarl.cli.output import result_console
from metarl.errors import TaskError

if TYPE_CHECKING:
    from metarl.tasks import TaskDistribution

tasks_app = typer.Typer(help="Look at task distributions.", no_args_is_help=True)

DistributionName = Annotated[
    str,
    typer.Argument(metavar="NAME_OR_module:attr_OR_FILE.yaml", help="a YAML file: its section task_distribution"),
]
DistributionOptions = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="options of the distribution")
]


@tasks_app.command("list")
def list_tasks() -> None:
    """The task distributions that are installed."""
    with exit_codes():
        from metarl.tasks import available_distributions

        for name, target in available_distributions().items():
            typer.echo(f"{name:<28} {target}")


@tasks_app.command("show")
def show_tasks(name: DistributionName, options: DistributionOptions = None) -> None:
    """The parameters of a task distribution, their ranges, and what is known about its returns."""
    with exit_codes():
        from rich.markup import escape
        from rich.table import Table

        from metarl.report.labels import reference_returns

        distribution = _distribution(name, options)
        shown = Table(title=f"{distribution.name} (version {distribution.version})", title_justify="left")
        for column in ("parameter", "unit", "train", "validation", "test", "ood"):
            shown.add_column(column)
        for p in distribution.parameters:
            test = str(p.test) if p.test else "same" if distribution.splits_coincide else "held out"
            validation = "same" if distribution.validation_coincides else "held out"
            cells = (p.name, p.unit or "-", str(p.prior), validation, test, str(p.ood or "-"))
            shown.add_row(*map(escape, cells))  # a unit such as [kg] is no markup
        console = result_console()
        console.print(shown)
        console.print(f"horizon {distribution.horizon} steps")
        anchors = distribution.anchors
        for reference in reference_returns(anchors):
            console.print(f"reference return, {reference.label}: {reference.value:g}", highlight=False)
        if anchors.source:
            console.print(f"({anchors.source})", markup=False, highlight=False)
        if distribution.splits_coincide:
            console.print("train, validation and test tasks coincide: results show adaptation, no generalisation")
        elif distribution.validation_coincides:
            console.print("train and validation tasks coincide: the training range is finite")


@tasks_app.command("sample")
def sample_tasks(
    name: DistributionName,
    options: DistributionOptions = None,
    number: Annotated[int, typer.Option("-n", min=1, help="how many")] = 5,
    split: SplitName = "train",
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Draw tasks."""
    with exit_codes():
        for task in _distribution(name, options).sample(split_of(split), number, seed):
            typer.echo(str(task))


@tasks_app.command("new")
def new_tasks(
    name: Annotated[str, typer.Argument(metavar="NAME", help="of the folder and of the module in it")],
    source: Annotated[
        str | None, typer.Option("--from", metavar="MODEL.xml_OR_GYM_ID", help="[default: a two-joint arm]")
    ] = None,
) -> None:
    """Write a folder with a robot of your own to start from: YAML, model, reward and test."""
    with exit_codes():
        from metarl.tasks.variation.skeleton import skeleton

        folder = Path(name)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise TaskError(f"tasks new: {folder} exists and is not empty; choose another name")
        files = skeleton(folder.name, source)
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            (folder / file).write_text(text, encoding="utf-8")
            typer.echo(str(folder / file))
        typer.echo(f"next: cd {folder} && metarl tasks check {folder.name}.yaml")


@tasks_app.command("check")
def check_tasks(
    name: DistributionName,
    options: DistributionOptions = None,
    sheet: Annotated[Path | None, typer.Option(help="write a picture of sampled variants into this file")] = None,
) -> None:
    """Check that a task distribution of your own keeps the contract."""
    with exit_codes():
        if sheet is None:
            _check(name, options)
            return
        from metarl.report.video.headless import opengl

        with opengl():
            distribution = _check(name, options)
            from metarl.report.contact_sheet import contact_sheet

            typer.echo(f"{sheet}: {len(contact_sheet(distribution, sheet))} variants")


def _check(name: str, options: list[str] | None) -> TaskDistribution:
    """The distribution, every check of which is printed; TaskError where one fails."""
    from metarl.tasks.check import check_distribution

    distribution = _distribution(name, options)
    results = check_distribution(distribution)
    for result in results:
        typer.echo(f"{'ok' if result.passed else 'FAILED':<7} {result.name}")
        if not result.passed:
            typer.echo(f"        {result.message}")
        for remark in result.remarks:
            typer.echo(f"        {'warning: ' if remark.is_warning else ''}{remark.text}")
    failed = sum(not result.passed for result in results)
    if failed:
        raise TaskError(f"{name}: {failed} of {len(results)} checks failed")
    return distribution


def _distribution(name: str, options: list[str] | None) -> TaskDistribution:
    from metarl.tasks import load_distribution

    if name.endswith((".yaml", ".yml")):
        from metarl.config import load_task_distribution
        from metarl.runs.build import distribution_of

        keys = [f"task_distribution.options.{option}" for option in options or ()]
        return distribution_of(load_task_distribution(Path(name), keys))
    return load_distribution(name, **_keyword_arguments(options or []))


def _keyword_arguments(options: list[str]) -> dict[str, Any]:
    from metarl.config.overrides import parse_override

    return dict(parse_override(option, "option", "key=value", "horizon=100") for option in options)
