"""Workers of RayExecutor: their settings, their ends, and environments that misbehave in them."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from metarl.distributed import RayExecutor, connect, pool
from metarl.errors import ConfigError, EnvironmentFault, MetarlError
from metarl.rollout.local import LocalExecutor
from metarl.rollout.spaces import Spaces
from metarl.rollout.types import Extras
from metarl.tasks import TaskDistribution, load_distribution
from tests.distributed.comparison import WEIGHTS, assert_same, reference
from tests.distributed.processes import HANG_S, wait_until, worker_pids
from tests.toy import Fault, LinearPolicy, Point, make_units, number, point_policy

pytestmark = pytest.mark.usefixtures("cluster")


def test_workers_run_one_thread_of_each_kind(alone: None) -> None:
    class Threads(LinearPolicy):
        """Reports its process's thread settings instead of acting (a local class: sent by value)."""

        def end_round(self, state: Any, round_: Any, adapt: bool) -> tuple[Any, Extras]:
            names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "METARL_PHYSICS_THREADS")
            return state, {"threads": np.array([int(os.environ.get(name, "-1")) for name in names])}

    with RayExecutor(Point(), Threads(Spaces(2, 1)), num_workers=1) as executor:
        (trial,) = executor.collect(make_units(Point(), 1), WEIGHTS, 0)
    assert trial.rounds[0].derived["threads"].tolist() == [1, 1, 1, 1]


def test_half_cheetah_is_the_same_locally_on_one_and_on_three_workers(alone: None) -> None:
    distribution = load_distribution("HalfCheetahVel", horizon=30)
    env = distribution.make(distribution.sample("train", 1, 0)[0])
    policy = LinearPolicy(Spaces.of(env.observation_space, env.action_space))
    weights, units = policy.initial_weights(), make_units(distribution, 6)
    results = [LocalExecutor(distribution, policy).collect(units, weights, 0)]
    for num_workers in (1, 3):
        with RayExecutor(distribution, policy, num_workers=num_workers) as executor:
            results.append(executor.collect(units, weights, 0))
    assert_same(results[0], results[1])
    assert_same(results[0], results[2])
    assert np.ptp(results[0][0].returns) > 0


# --- workers that die --------------------------------------------------------------------------------


def test_a_unit_that_once_takes_its_worker_along_is_collected_all_the_same(alone: None, tmp_path: Path) -> None:
    distribution = Point("die_once", above=-2, flag=str(tmp_path / "died"))
    with RayExecutor(distribution, point_policy(), num_workers=2) as executor:
        trials = executor.collect(make_units(distribution, 5), WEIGHTS, 0)
    assert (tmp_path / "died").exists()
    assert_same(trials, reference(5))


@pytest.mark.parametrize("fault", ["die", "terminated"])
def test_a_unit_that_kills_every_worker_is_given_up(alone: None, fault: Fault) -> None:
    distribution = Point(fault, above=-2)
    unit = make_units(distribution, 1, tasks_per_unit=1)[0]
    with (
        RayExecutor(distribution, point_policy(), num_workers=1, max_losses=2) as executor,
        pytest.raises(EnvironmentFault, match="worker process died") as caught,
    ):
        executor.collect([unit], WEIGHTS, 0)
    assert str(unit.tasks[0]) in str(caught.value)


def test_a_unit_that_is_late_goes_out_a_second_time(
    alone: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "_LATE_S", 1.0)
    distribution = Point("hang_once", above=0.5, flag=str(tmp_path / "hung"))
    with RayExecutor(distribution, point_policy(), num_workers=2, unit_deadline_s=10 * HANG_S) as executor:
        trials = executor.collect(make_units(distribution, 12), WEIGHTS, 0)
        assert executor.ready() == []
    assert (tmp_path / "hung").exists()
    assert_same(trials, reference(12))


# --- environments that misbehave ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("raise", "ZeroDivisionError: the motor came off"),
        ("exit", "SystemExit: the simulator wants to quit"),
        ("nan", "reward is not finite"),
        ("shape", "observation has"),
        ("raise_make", "FileNotFoundError: robot.xml"),
        ("exit_make", "raised SystemExit: 0"),
        ("hang_step", "no result within 2 s"),
        ("hang_hard", "no result within 2 s"),
        ("hang_make", "no result within 2 s"),
    ],
)
def test_the_environment_at_fault_is_named_and_the_executor_lives_on(alone: None, fault: Fault, says: str) -> None:
    distribution = Point(fault, above=0.5)
    units = make_units(distribution, 12, tasks_per_unit=1)
    bad = next(u for u in units if number(u.tasks[0]["goal"]) > 0.5)
    good = [u for u in units if number(u.tasks[0]["goal"]) <= 0.5]
    with RayExecutor(distribution, point_policy(), num_workers=2, unit_deadline_s=2.0, max_failures=2) as executor:
        with pytest.raises(EnvironmentFault) as caught:
            executor.collect([*good[:2], bad, *good[2:4]], WEIGHTS, 0)
        assert f"unit {bad.index} " in str(caught.value)
        assert str(bad.tasks[0]) in str(caught.value)
        assert says in str(caught.value)
        assert_same(
            executor.collect(good, WEIGHTS, 0), LocalExecutor(Point(), point_policy()).collect(good, WEIGHTS, 0)
        )


def test_an_error_of_the_policy_stops_at_once_with_its_traceback(alone: None) -> None:
    with (
        RayExecutor(Point(), point_policy(), num_workers=1) as executor,
        pytest.raises(RuntimeError, match="KeyError: 'gain'") as caught,
    ):
        executor.collect(make_units(Point(), 1), {"bias": WEIGHTS["bias"]}, 0)
    assert "begin_trial" in str(caught.value.__cause__)


def test_what_workers_cannot_load_is_said(alone: None) -> None:
    class Homeless(Point):
        def __reduce__(self) -> tuple[Any, ...]:
            return __import__, ("no_such_module_anywhere",)

    with (
        RayExecutor(Homeless(), point_policy(), num_workers=1) as executor,
        pytest.raises(MetarlError, match="no_such_module_anywhere"),
    ):
        executor.collect(make_units(Point(), 1), WEIGHTS, 0)


def test_what_cannot_be_sent_is_said() -> None:
    class Stuck(Point):
        def __init__(self) -> None:
            super().__init__()
            self.lock = threading.Lock()

    with pytest.raises(MetarlError, match="Point cannot be sent to worker processes"):
        RayExecutor(Stuck(), point_policy(), num_workers=1)


def test_modules_of_the_drivers_search_path_import_in_workers(
    alone: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_robot_plugin.py").write_text(
        "from tests.toy import Point\n\nclass Robot(Point):\n    name = 'Robot'\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    distribution: TaskDistribution = load_distribution("my_robot_plugin:Robot")
    with RayExecutor(distribution, point_policy(), num_workers=1) as executor:
        trials = executor.collect(make_units(distribution, 2), WEIGHTS, 0)
    assert [t.tasks[0].distribution for t in trials] == ["Robot", "Robot"]


# --- the driver --------------------------------------------------------------------------------------


def test_ctrl_c_interrupts_the_wait(alone: None) -> None:
    distribution = Point("hang_step", above=-2)
    with RayExecutor(distribution, point_policy(), num_workers=1) as executor:
        executor.submit(make_units(distribution, 1), WEIGHTS, 0)
        timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            executor.ready(HANG_S)
        timer.join()


def test_close_leaves_no_process_and_is_safe_twice(alone: None) -> None:
    with RayExecutor(Point(), point_policy(), num_workers=2) as executor:
        executor.collect(make_units(Point(), 2), WEIGHTS, 0)
        wait_until(lambda: len(worker_pids()) == 2)
        executor.close()
        executor.close()
        wait_until(lambda: not worker_pids())
        with pytest.raises(RuntimeError, match="closed"):
            executor.submit(make_units(Point(), 1), WEIGHTS, 0)


def test_closing_while_workers_start_leaves_no_process(alone: None) -> None:
    RayExecutor(Point(), point_policy(), num_workers=5).close()  # two of them have to wait for processors
    with RayExecutor(Point(), point_policy(), num_workers=3) as executor:
        executor.collect(make_units(Point(), 3), WEIGHTS, 0)
        wait_until(lambda: len(worker_pids()) == 3)


def test_by_default_there_is_one_worker_per_processor(alone: None) -> None:
    with RayExecutor(Point(), point_policy()) as executor:
        assert executor.num_workers == 3


@pytest.mark.parametrize("wrong", [{"num_workers": 0}, {"unit_deadline_s": 0.0}])
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        RayExecutor(Point(), point_policy(), **wrong)


def test_inside_a_connection_another_address_is_ignored_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), connect("10.0.0.1:6379"):
        pass
    assert "already connected" in caplog.text
    assert ray.is_initialized()
