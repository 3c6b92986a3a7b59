"""Standard streams whose reader may go away, as with `| head` or a terminal that is closed, and whose encoding may lack
characters. Neither ends a command: training continues without output."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

_CLOSED = (errno.EPIPE, errno.EIO)  # nobody reads the pipe; the terminal is gone


class LastingStream:
    """`stream`, from whose end on everything written is dropped. `ending`: told once, on the error stream."""

    def __init__(self, stream: TextIO, ending: str | None):
        self._stream, self._ending = stream, ending

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._drop(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._drop(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _drop(self, error: OSError) -> None:
        if error.errno not in _CLOSED:
            raise error
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._stream.fileno())  # what is buffered goes there too
        os.close(null)
        if self._ending:
            with suppress(OSError):
                sys.stderr.write(self._ending)
            self._ending = None


@contextmanager
def lasting_streams() -> Iterator[None]:
    """Standard output and standard error as LastingStream; a character that an encoding lacks is replaced."""
    before = sys.stdout, sys.stderr
    for stream, errors in ((sys.stdout, "replace"), (sys.stderr, "backslashreplace")):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors=errors)
    ending = "the output is closed: continuing without it\n"
    sys.stdout, sys.stderr = LastingStream(sys.stdout, ending), LastingStream(sys.stderr, None)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = before
