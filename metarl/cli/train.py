"""`metarl train`: meta-train what a configuration describes."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metarl.cli.errors import exit_codes
from metarl.cli.launch import train_and_tell
from metarl.cli.options import Address, ConfigName, Local, Overrides, expanded, where
from metarl.cli.output import print_plain, result_console
from metarl.launch import warm_start_of

if TYPE_CHECKING:
    from metarl.config import RunConfig


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

        given = list(overrides or ())
        run = expanded(run_dir) if run_dir else f"runs/{Path(config).stem}"
        settings = load_config(config, [*given, *(["executor.backend=local"] if local else [])])
        start = warm_start_of(expanded(start_from)) if start_from else None
        console = result_console()
        print_plain(console, f"run directory: {run}")
        print_plain(console, algorithm_line(config, given, settings))
        again = ["metarl", "train", config, *given, "--run-dir", run, "--resume", *where(local, address)]
        train_and_tell(settings, run, address, resume, start, console, shlex.join(again))


def algorithm_line(config: str, overrides: list[str], settings: RunConfig) -> str:
    """`algorithm promp: maml, outer ppo`: what was asked for, and what it stands for."""
    from metarl.config import chosen_names

    asked_for, name, choices = chosen_names(config, overrides, settings)
    return ", ".join((f"algorithm {asked_for}" + (f": {name}" if name != asked_for else ""), *choices))
