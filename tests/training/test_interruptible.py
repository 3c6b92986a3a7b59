"""A stop ends the wait for units at once, whatever the executor does."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence

import pytest

from metarl.errors import TrainingError
from metarl.rollout.local import LocalExecutor
from metarl.rollout.types import TrialBatch, Unit, Weights
from metarl.training import interruptible
from metarl.training.interruptible import CollectionStopped, InterruptibleExecutor
from metarl.training.stop import StopRequest
from tests.distributed.comparison import WEIGHTS, assert_same, reference
from tests.toy import Point, make_units, point_policy

HANG_S = 60.0


class Stuck(LocalExecutor):
    """An executor of a cluster that has died: its calls end only when the test does."""

    def __init__(self) -> None:
        super().__init__(Point(), point_policy())
        self.is_called, self.may_end, self.is_alive = threading.Event(), threading.Event(), True

    def check_alive(self) -> None:
        if not self.is_alive:
            raise TrainingError("Ray has ended")

    def collect(self, units: Sequence[Unit], weights: Weights, version: int) -> list[TrialBatch]:
        self.is_called.set()
        self.may_end.wait(HANG_S)
        return super().collect(units, weights, version)

    def close(self) -> None:
        self.may_end.wait(HANG_S)


@pytest.fixture
def stuck() -> Iterator[Stuck]:
    executor = Stuck()
    yield executor
    executor.may_end.set()


def when_called(stuck: Stuck, act: object) -> threading.Thread:
    def wait() -> None:
        stuck.is_called.wait(HANG_S)
        act()  # type: ignore[operator]

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def stopped_while_collecting(stuck: Stuck) -> InterruptibleExecutor:
    """An executor whose collection a stop has ended, while the call to `stuck` is still under way."""
    stop = StopRequest()
    executor = InterruptibleExecutor(stuck, stop)
    thread = when_called(stuck, lambda: setattr(stop, "signal_number", 15))
    with pytest.raises(CollectionStopped):
        executor.collect(make_units(Point(), 2), WEIGHTS, 0)
    thread.join()
    return executor


def test_a_stop_ends_a_collection_that_never_returns(stuck: Stuck, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interruptible, "_CLOSE_S", 0.01)
    stopped_while_collecting(stuck).close()
    assert not stuck.may_end.is_set()


def test_closed_it_calls_the_executor_no_more() -> None:
    """A call that goes on while the connection to the cluster ends would meet whatever is there then."""
    returned = threading.Event()

    class Slow(Stuck):
        def collect(self, units: Sequence[Unit], weights: Weights, version: int) -> list[TrialBatch]:
            batches = super().collect(units, weights, version)
            time.sleep(0.3)
            returned.set()
            return batches

        def close(self) -> None:
            self.may_end.set()

    stopped_while_collecting(Slow()).close()
    assert returned.is_set()


def test_a_cluster_that_dies_ends_a_collection_that_never_returns(stuck: Stuck) -> None:
    executor = InterruptibleExecutor(stuck, StopRequest())
    thread = when_called(stuck, lambda: setattr(stuck, "is_alive", False))
    with pytest.raises(TrainingError, match="Ray has ended"):
        executor.collect(make_units(Point(), 2), WEIGHTS, 0)
    thread.join()


def test_without_a_stop_trials_are_the_executors_own(stuck: Stuck) -> None:
    stuck.may_end.set()
    units = make_units(Point(), 5)
    for inner in (stuck, LocalExecutor(Point(), point_policy())):
        executor = InterruptibleExecutor(inner, StopRequest())
        assert_same(executor.collect(units, WEIGHTS, 0), reference(5))
        executor.submit(units[:1], WEIGHTS, 0)
        assert_same(executor.ready(), reference(5)[:1])
        executor.close()


def test_an_executor_in_this_process_stops_after_its_call() -> None:
    stop = StopRequest()

    class Stopped(LocalExecutor):
        def collect(self, units: Sequence[Unit], weights: Weights, version: int) -> list[TrialBatch]:
            stop.signal_number = 15
            return super().collect(units, weights, version)

    with pytest.raises(CollectionStopped):
        InterruptibleExecutor(Stopped(Point(), point_policy()), stop).collect(make_units(Point(), 2), WEIGHTS, 0)
