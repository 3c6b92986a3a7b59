"""What a person sees of a run while it trains: a live line on a terminal, plain lines in a log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from rich.console import Console
from rich.live import Live
from rich.logging import RichHandler
from rich.text import Text

from metarl.runs.records import returns_of

_LINE_EVERY_S = 5.0


class ProgressReporter(Protocol):
    """Receives the events of a run and decides what to show of them."""

    def train(self, record: Mapping[str, Any], iterations: int, eta_s: float) -> None: ...

    def evaluation(self, record: Mapping[str, Any]) -> None: ...

    def note(self, text: str) -> None: ...

    def close(self) -> None: ...


class SilentReporter:
    """Shows nothing."""

    def train(self, record: Mapping[str, Any], iterations: int, eta_s: float) -> None:
        pass

    def evaluation(self, record: Mapping[str, Any]) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def close(self) -> None:
        pass


class ConsoleReporter:
    """A line that renews itself on a terminal; elsewhere a line every few seconds."""

    def __init__(self, console: Console):
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        self._last_shown_s = -_LINE_EVERY_S
        if self._live:
            self._live.start()

    def train(self, record: Mapping[str, Any], iterations: int, eta_s: float) -> None:
        now, is_last = time.monotonic(), record["iteration"] >= iterations
        if self._live:
            if now - self._last_shown_s > 0.1 or is_last:
                self._live.update(
                    Text(train_line(record, iterations, eta_s), overflow="ellipsis", no_wrap=True), refresh=True
                )
                self._last_shown_s = now
        elif now - self._last_shown_s > _LINE_EVERY_S or is_last:
            self.note(train_line(record, iterations, eta_s))
            self._last_shown_s = now

    def evaluation(self, record: Mapping[str, Any]) -> None:
        gain = ""
        if "gain" in record:
            low, high = record["gain_ci95"]
            gain = f", gain {record['gain']:+.1f} [{low:+.1f}, {high:+.1f}]"
        self.note(
            f"iteration {record['iteration']}: {record['num_tasks']} {record['split']} tasks, return "
            f"{_returns(record)}{gain}"
        )

    def note(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        if self._live:
            self._live.stop()


class ForwardingReporter:
    """Emits each event as (method's name, arguments) for `report_event` in another process; warnings of metarl too."""

    def __init__(self, emit: Callable[[tuple[str, tuple[Any, ...]]], None]):
        self._emit = emit
        logger = logging.getLogger("metarl")
        logger.handlers[:] = [_NoteHandler(self)]
        logger.setLevel(logging.INFO)

    def train(self, record: Mapping[str, Any], iterations: int, eta_s: float) -> None:
        self._emit(("train", (record, iterations, eta_s)))

    def evaluation(self, record: Mapping[str, Any]) -> None:
        self._emit(("evaluation", (record,)))

    def note(self, text: str) -> None:
        self._emit(("note", (text,)))

    def close(self) -> None:
        pass


def report_event(reporter: ProgressReporter, event: tuple[str, tuple[Any, ...]]) -> None:
    """Pass an event that a ForwardingReporter emitted in another process on to `reporter`."""
    method, arguments = event
    getattr(reporter, method)(*arguments)


class _NoteHandler(logging.Handler):
    def __init__(self, reporter: ProgressReporter):
        super().__init__()
        self._reporter = reporter

    def emit(self, record: logging.LogRecord) -> None:
        self._reporter.note(f"{record.levelname} {record.getMessage()}")


def train_line(record: Mapping[str, Any], iterations: int, eta_s: float) -> str:
    """`iteration 3/500  return 1.2 -> 8.9  25,300 env steps/s  5:12 left`."""
    minutes, seconds = divmod(round(eta_s), 60)
    hours, minutes = divmod(minutes, 60)
    left = f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
    return (
        f"iteration {record['iteration']}/{iterations}  return {_returns(record)}  "
        f"{record['env_steps_per_s']:,.0f} env steps/s  {left} left"
    )


def _returns(record: Mapping[str, Any]) -> str:
    """Before and after adaptation: the first and the last round."""
    values = returns_of(record)
    return " -> ".join(f"{value:.1f}" for value in dict.fromkeys((values[0], values[-1])))


class _ErrorLines(logging.Handler):
    """Plain lines on what is the error stream at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(f"{record.levelname} {record.getMessage()}\n")


def log_to(console: Console | None) -> None:
    """Warnings and errors of the platform go to `console`, above a live line; None: as plain lines to the error stream,
    however long they are."""
    logger = logging.getLogger("metarl")
    handler = (
        _ErrorLines()
        if console is None
        else RichHandler(console=console, show_time=False, show_path=False, markup=False)
    )
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
