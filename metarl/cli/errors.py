"""How commands end: errors with a known cause become one message and an exit code. Where results are shown."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from metarl.errors import EnvironmentFault, MetarlError, TrainingError

if TYPE_CHECKING:
    from rich.console import Console


def console() -> Console:
    """Where results and progress go; on a terminal also warnings, which would tear a live line otherwise."""
    from rich.console import Console

    from metarl.training.progress import log_to

    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = 120  # tables in a log
    log_to(console if console.is_terminal else Console(stderr=True, soft_wrap=True))
    return console


@contextmanager
def exit_codes() -> Iterator[None]:
    """Errors with a known cause become one message and an exit code; bugs keep their traceback."""
    try:
        yield
    except MetarlError as error:
        raise _failure(error, 2) from error
    except (EnvironmentFault, TrainingError, OSError) as error:
        raise _failure(error, 1) from error
    except KeyboardInterrupt as error:
        raise typer.Exit(128 + signal.SIGINT) from error


def _failure(error: Exception, code: int) -> typer.Exit:
    typer.echo(f"error: {error}", err=True)
    return typer.Exit(code)
