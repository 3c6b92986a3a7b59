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
    """The first SIGINT or SIGTERM sets `stop.signal_number`; the handlers that were there before then act again.

    Only the main thread can install handlers; in another thread this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore_handlers() -> None:
        for number, handler in former.items():
            signal.signal(number, handler)

    def request(number: int, frame: FrameType | None) -> None:
        stop.signal_number = number
        restore_handlers()

    for number in former:
        signal.signal(number, request)
    try:
        yield
    finally:
        restore_handlers()
