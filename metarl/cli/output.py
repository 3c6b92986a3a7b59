"""Where commands show results, progress and messages."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.console import Console


def result_console() -> Console:
    """Where results and progress go; on a terminal also warnings, which would tear a live line otherwise."""
    from rich.console import Console

    from metarl.training.progress import log_to

    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = 120  # tables in a log
    log_to(console if console.is_terminal else None)
    return console


def print_plain(console: Console, text: str) -> None:
    """One line as it is: brackets are no markup, numbers have no colours, and a path is not broken."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """One message on the error stream; lost where that is closed."""
    with suppress(OSError, ValueError):
        typer.echo(text, err=True)
