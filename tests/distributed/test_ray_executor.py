"""RayExecutor gives the results of the local one, however the units are dealt out and whoever dies."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import numpy as np
import pytest

from metarl.distributed import RayExecutor
from metarl.rollout.local import LocalExecutor
from tests.distributed.comparison import WEIGHTS, assert_same, reference, take_all
from tests.distributed.processes import wait_until, worker_pids
from tests.toy import Point, make_units, point_policy

pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture(scope="module")
def three() -> Iterator[RayExecutor]:
    """Three workers on the sound toy distribution."""
    with RayExecutor(Point(), point_policy(), num_workers=3) as executor:
        yield executor
    wait_until(lambda: not worker_pids())


def test_many_units_on_three_workers_equal_the_local_ones(three: RayExecutor) -> None:
    assert three.num_workers == 3
    assert_same(three.collect(make_units(Point(), 20), WEIGHTS, 7), reference(20, version=7))


def test_results_do_not_depend_on_the_order_of_submission(three: RayExecutor) -> None:
    units = make_units(Point(), 10)
    shuffled = [units[i] for i in np.random.default_rng(0).permutation(10)]
    assert_same(sorted(three.collect(shuffled, WEIGHTS, 0), key=lambda t: t.unit), reference(10))


def test_submissions_overlap_and_each_trial_names_its_weights(three: RayExecutor) -> None:
    units = make_units(Point(), 8)
    other = {**WEIGHTS, "bias": WEIGHTS["bias"] + 1}
    assert three.ready(0.0) == three.ready() == []
    three.submit(units[:4], WEIGHTS, 1)
    three.submit(units[4:], other, 2)
    trials = sorted(take_all(three, 8), key=lambda t: t.unit)
    assert three.ready() == []
    assert [t.weights_version for t in trials] == [1] * 4 + [2] * 4
    local = LocalExecutor(Point(), point_policy())
    assert_same(trials, local.collect(units[:4], WEIGHTS, 1) + local.collect(units[4:], other, 2))


def test_collect_leaves_earlier_submissions_to_ready(three: RayExecutor) -> None:
    units = make_units(Point(), 9)
    three.submit(units[:5], WEIGHTS, 0)
    assert [t.unit for t in three.collect(units[5:], WEIGHTS, 0)] == [5, 6, 7, 8]
    assert sorted(t.unit for t in take_all(three, 5)) == [0, 1, 2, 3, 4]


def test_other_weights_under_the_same_version_are_not_mistaken_for_the_old(three: RayExecutor) -> None:
    units = make_units(Point(), 2)
    three.collect(units, WEIGHTS, 0)
    other = {**WEIGHTS, "bias": WEIGHTS["bias"] + 1}
    expected = LocalExecutor(Point(), point_policy()).collect(units, other, 0)
    assert_same(three.collect(units, other, 0), expected)


def test_ready_returns_nothing_when_the_time_is_up(three: RayExecutor) -> None:
    slow = make_units(Point(horizon=3000), 3, tasks_per_unit=8, num_streams=4)
    three.submit(slow, WEIGHTS, 0)
    assert three.ready(0.0) == []
    assert len(take_all(three, 3)) == 3


def kill(pid: int) -> bool:
    os.kill(pid, signal.SIGKILL)
    return True


def test_a_killed_worker_changes_nothing(three: RayExecutor, caplog: pytest.LogCaptureFixture) -> None:
    three.collect(make_units(Point(), 1), WEIGHTS, 0)
    units = make_units(Point(horizon=400), 12, tasks_per_unit=8, num_streams=4)
    three.submit(units, WEIGHTS, 0)
    wait_until(lambda: bool(running := worker_pids("ray::RolloutActor.run")) and kill(running[0]))
    trials = take_all(three, 12)
    assert three.ready() == []
    expected = LocalExecutor(Point(horizon=400), point_policy()).collect(units, WEIGHTS, 0)
    assert_same(sorted(trials, key=lambda t: t.unit), expected)
    assert "goes out again" in caplog.text
