"""Asking work to stop: by a signal, or from another process."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Protocol


class StopSource(Protocol):
    """Read by work that can be stopped: once `signal_number` is set, it ends after the iteration under way."""

    signal_number: int | None


@dataclass
class StopRequest:
    """A request to stop within one process; none is pending while `signal_number` is None."""

    signal_number: int | None = None


@contextmanager
def stop_signals(stop: StopSource) -> Iterator[None]:
    """The first SIGINT, SIGTERM or SIGHUP sets `stop.signal_number`; the handlers from before then act again.

    SIGHUP (the terminal was closed) stays ignored where it was, as under nohup. Only the main thread can install
    handlers; in another thread this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    if former[signal.SIGHUP] == signal.SIG_IGN:
        del former[signal.SIGHUP]

    def restore_handlers() -> None:
        for number, handler in former.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def request(number: int, frame: FrameType | None) -> None:
        stop.signal_number = number
        restore_handlers()

    for number in former:
        signal.signal(number, request)
    try:
        yield
    finally:
        restore_handlers()
