"""`metarl export`: a run's policy as files that other runtimes read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metarl.cli.errors import exit_codes
from metarl.cli.options import RunName, expanded
from metarl.cli.output import print_plain, result_console
from metarl.errors import ConfigError


def export(
    run: RunName,
    out: Annotated[str, typer.Option(metavar="DIR", help="where the files go")],
    form: Annotated[str, typer.Option("--format", help="onnx, or torch (programs of torch.export)")] = "onnx",
    support: Annotated[
        int | None, typer.Option(min=0, help="episodes that the robot adapts to [default: the run's]")
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="rounds, the last one repeated [default: the run's]")
    ] = None,
    horizon: Annotated[int | None, typer.Option(min=1, help="steps of an episode [default: the tasks']")] = None,
    checkpoint: Annotated[
        int | None, typer.Option(min=0, help="the iteration of one of its checkpoints [default: the newest]")
    ] = None,
) -> None:
    """Write RUN's policy, and its adaptation, as graphs with their state as inputs and outputs.

    The export is compared with the agent on held-out tasks, and refused where an action differs by more than 1e-5.
    """
    with exit_codes():
        from metarl.export.runner import SUFFIXES
        from metarl.export.writing import export_run
        from metarl.runs.build import load_run_from

        if form not in SUFFIXES:
            raise ConfigError(f"--format {form}: allowed are {', '.join(SUFFIXES)}")
        console, folder = result_console(), Path(expanded(out))
        trained = load_run_from(expanded(run), (), checkpoint)
        exported = export_run(trained, folder, form, support_episodes=support, rounds=rounds, horizon=horizon)
        print_plain(console, f"compared with the agent: {exported.comparison}")
        for name in exported.files:
            print_plain(console, f"{folder}/{name}")
