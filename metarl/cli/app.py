"""The command line. Exit codes: 0 done, 1 the run failed, 2 the user's input is wrong, 128 + n stopped by signal n.

train.py  evaluate.py  record.py  report.py  compare.py  baselines.py  export.py  tasks.py  config.py  jobs.py
sweep.py        one file per command or group of commands
options.py      options that several commands share
executors.py    where units run, as the options say; launch.py: how a training run starts
errors.py       errors become one message and an exit code
streams.py      output that may be closed, and encodings that lack characters

Nothing heavy is imported before a command runs: `metarl --help` must answer at once.
"""

from __future__ import annotations

from typing import Annotated

import typer
from typer.core import TyperGroup

from metarl.cli import baselines, compare, config, evaluate, export, jobs, record, report, sweep, tasks, train
from metarl.cli.errors import quick_exit, show_tracebacks
from metarl.cli.streams import lasting_streams


class _Commands(TyperGroup):
    """Takes --traceback anywhere on the command line."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        show_tracebacks("--traceback" in args)
        return super().parse_args(ctx, [word for word in args if word != "--traceback"])


app = typer.Typer(
    name="metarl",
    cls=_Commands,
    help="Train policies that adapt, and measure how fast they do.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _options(
    traceback: Annotated[
        bool, typer.Option("--traceback", help="with any command: show where in the code an error came from")
    ] = False,
) -> None:
    """Train policies that adapt, and measure how fast they do."""


app.command()(train.train)
app.command()(evaluate.evaluate)
app.command()(compare.compare)
app.command()(baselines.baselines)
app.command()(record.record)
app.command()(report.report)
app.command()(export.export)
app.command()(sweep.sweep)
app.add_typer(config.config_app, name="config")
app.add_typer(tasks.tasks_app, name="tasks")
app.command()(jobs.submit)
app.add_typer(jobs.jobs_app, name="jobs")


def main() -> None:
    """The console script."""
    with lasting_streams(), quick_exit():
        app()
