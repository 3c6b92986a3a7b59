"""How long work is asked to stop: by a signal, or from another process."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Protocol


class Stop(Protocol):
    """Asked to stop once `signal_number` is set; training then does after the iteration under way."""

    signal_number: int | None


@dataclass
class Asked:
    """A Stop that nobody has asked for yet."""

    signal_number: int | None = None


@contextmanager
def stop_signals(stop: Stop) -> Iterator[None]:
    """The first SIGINT or SIGTERM asks to stop; the next one acts as if this were not here.

    Only the main thread can listen; elsewhere nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def put_back() -> None:
        for number, handler in former.items():
            signal.signal(number, handler)

    def ask(number: int, frame: FrameType | None) -> None:
        stop.signal_number = number
        put_back()

    for number in former:
        signal.signal(number, ask)
    try:
        yield
    finally:
        put_back()
