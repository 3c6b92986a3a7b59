"""How commands end: errors become one message and an exit code."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import typer

from metarl.cli.output import say
from metarl.errors import EnvironmentFault, MetarlError, Terminated, TrainingError

_options = {"traceback": False}  # of the command under way


def show_tracebacks(wanted: bool) -> None:
    """Whether errors with a known cause come with their traceback too, from now on."""
    _options["traceback"] = wanted


@contextmanager
def exit_codes() -> Iterator[None]:
    """Errors with a known cause become one message and an exit code; what the user's code raises names its place.

    Anything else is an error of metarl: its traceback is shown, and where to report it.
    """
    try:
        yield
    except MetarlError as error:
        raise _failure(str(error), 2) from error
    except (EnvironmentFault, TrainingError, OSError) as error:
        raise _failure(str(error), 1) from error
    except KeyboardInterrupt as error:
        raise typer.Exit(128 + signal.SIGINT) from error
    except (typer.Exit, typer.Abort, Terminated):
        raise
    except (Exception, SystemExit) as error:
        raise _unexpected(error) from error


@contextmanager
def quick_exit() -> Iterator[None]:
    """A process that used Ray ends without the interpreter's own shutdown, which a Ray that has died would block.

    Functions registered with atexit run, except where a call into Ray never returned.
    """
    try:
        yield
    except SystemExit as error:
        cluster = sys.modules.get("metarl.distributed.cluster")  # not imported by commands that need no Ray
        if cluster is None or not cluster.has_connected():
            raise
        if not cluster.has_hung():
            atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(error.code if isinstance(error.code, int) else int(error.code is not None))


def _failure(message: str, code: int) -> typer.Exit:
    if _options["traceback"]:
        say(traceback.format_exc().rstrip())
    say(f"error: {message}")
    return typer.Exit(code)


def _unexpected(error: Exception | SystemExit) -> typer.Exit:
    from metarl.plugins import INSTALLED, describe, user_frame

    frame = user_frame(error)
    if frame and not {*INSTALLED} & set(Path(frame[0]).parts):
        return _failure(f"{describe(error)}. --traceback shows all of it", 1)
    say(traceback.format_exc().rstrip())
    say(
        f"error: {type(error).__name__}: {error}\nThis is an error in metarl. Please report it to its maintainers, "
        "with the command, the configuration and the traceback above"
    )
    return typer.Exit(1)
