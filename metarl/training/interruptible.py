"""An executor whose waits end when a stop is requested.

    main thread          call ---> wait in pieces of 0.1 s: the result, or a stop -> CollectionStopped
    executor's thread    runs one call after the other; a call into a dead cluster may never return

Only executors with workers in other processes need the thread. Others are called as they are: a stop takes effect when
the call has returned.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotDone
from typing import Protocol, TypeVar, runtime_checkable

from metarl.rollout.executor import Executor
from metarl.rollout.types import TrialBatch, Unit, Weights
from metarl.training.stop import StopSource

Result = TypeVar("Result")
_POLL_S = 0.1
_CLOSE_S = 10.0  # workers of a cluster that answers end within this
_log = logging.getLogger(__name__)


class CollectionStopped(Exception):
    """A stop was requested while units were collected. What was collected is dropped."""


@runtime_checkable
class RemoteExecutor(Executor, Protocol):
    """An executor with workers in other processes."""

    def check_alive(self) -> None:
        """Raise TrainingError where what runs the workers has ended. Answers at once."""
        ...


class InterruptibleExecutor:
    """`executor`, whose `collect`, `submit` and `ready` raise CollectionStopped once `stop` has a signal number."""

    def __init__(self, executor: Executor, stop: StopSource):
        self._executor, self._stop = executor, stop
        self._remote = executor if isinstance(executor, RemoteExecutor) else None
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = _start_thread(self._run_calls) if self._remote else None

    def collect(self, units: Sequence[Unit], weights: Weights, version: int) -> list[TrialBatch]:
        return self._call(lambda: self._executor.collect(units, weights, version))

    def submit(self, units: Sequence[Unit], weights: Weights, version: int) -> None:
        self._call(lambda: self._executor.submit(units, weights, version))

    def ready(self, timeout_s: float | None = None) -> list[TrialBatch]:
        return self._call(lambda: self._executor.ready(timeout_s))

    def close(self) -> None:
        """End the workers and the call under way; gives up after 10 s, which only those of a dead cluster need."""
        if self._thread is None:
            self._executor.close()
            return
        end = time.monotonic() + _CLOSE_S
        self._calls.put(None)
        closed = _future_of(self._executor.close, _start_thread)  # the other thread may never come to it
        try:
            closed.result(_CLOSE_S)
        except NotDone:
            _log.warning("the workers did not end within %g s", _CLOSE_S)
        self._thread.join(max(0.0, end - time.monotonic()))

    def _check(self) -> None:
        if self._stop.signal_number is not None:
            raise CollectionStopped

    def _call(self, function: Callable[[], Result]) -> Result:
        self._check()
        if not self._remote:
            value = function()
            self._check()
            return value
        result = _future_of(function, self._calls.put)
        while not result.done():
            try:
                result.exception(_POLL_S)
            except NotDone:
                self._check()
                self._remote.check_alive()
        self._check()
        return result.result()

    def _run_calls(self) -> None:
        while call := self._calls.get():
            call()


def _future_of(function: Callable[[], Result], start: Callable[[Callable[[], None]], object]) -> Future[Result]:
    """The future result of `function`, which `start` has run elsewhere."""
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    start(run)
    return future


def _start_thread(function: Callable[[], None]) -> threading.Thread:
    """A thread that does not keep the process from ending."""
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread
