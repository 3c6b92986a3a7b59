"""What a unit's run makes of environments that misbehave, in this process."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from metarl.errors import EnvironmentFault
from metarl.rollout.local import LocalExecutor
from metarl.rollout.worker import UnitRunner
from metarl.tasks import Task
from metarl.tasks.batch import TaskBatch
from tests.distributed.comparison import assert_same
from tests.toy import Fault, Point, make_units, number, point_policy

WEIGHTS = point_policy().initial_weights()


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("raise", "ZeroDivisionError: the motor came off"),
        ("exit", "SystemExit: the simulator wants to quit"),
        ("nan", "reward is not finite at step 2"),
        ("shape", "observation has"),
        ("raise_make", "FileNotFoundError: robot.xml"),
        ("exit_make", "building the environment raised SystemExit: 0"),
    ],
)
def test_a_misbehaving_environment_is_named(fault: Fault, says: str) -> None:
    distribution = Point(fault, above=-2)
    unit = make_units(distribution, 1, tasks_per_unit=1)[0]
    with pytest.raises(EnvironmentFault) as caught:
        UnitRunner(distribution, point_policy()).run(unit, WEIGHTS, 0)
    assert str(unit.tasks[0]) in str(caught.value)
    assert says in str(caught.value)


def test_the_one_task_that_cannot_be_built_is_found_among_several() -> None:
    unit = make_units(Point(), 1, tasks_per_unit=5)[0]
    worst = max(unit.tasks, key=lambda task: number(task["goal"]))
    distribution = Point("raise_make", above=sorted(number(t["goal"]) for t in unit.tasks)[-2])
    with pytest.raises(EnvironmentFault) as caught:
        UnitRunner(distribution, point_policy()).run(unit, WEIGHTS, 0)
    assert [str(task) for task in unit.tasks if str(task) in str(caught.value)] == [str(worst)]


class FlatRewards(Point):
    """A batch of its own with rewards [n, 1]: they would broadcast silently."""

    def make_batch(self, tasks: Sequence[Task]) -> TaskBatch:
        batch = super().make_batch(tasks)
        step = batch.step

        def wrong(actions: np.ndarray) -> tuple[np.ndarray, ...]:
            obs, rewards, *rest = step(actions)
            return obs, rewards[:, None], *rest

        batch.step = wrong  # type: ignore[method-assign, assignment]
        return batch


def test_rewards_of_a_wrong_shape_are_refused() -> None:
    distribution = FlatRewards()
    with pytest.raises(EnvironmentFault, match=r"rewards have shape \(4, 1\), must be \(4,\)"):
        UnitRunner(distribution, point_policy()).run(make_units(distribution, 1)[0], WEIGHTS, 0)


def test_a_result_does_not_depend_on_the_units_before() -> None:
    units = make_units(Point(), 4)
    forward = LocalExecutor(Point(), point_policy()).collect(units, WEIGHTS, 0)
    backward = LocalExecutor(Point(), point_policy()).collect(units[::-1], WEIGHTS, 0)
    assert_same(forward, backward[::-1])


def test_a_runner_works_on_after_a_fault() -> None:
    distribution = Point("raise", above=0.0)
    units = make_units(distribution, 12, tasks_per_unit=1)
    bad = next(u for u in units if number(u.tasks[0]["goal"]) > 0)
    good = next(u for u in units if number(u.tasks[0]["goal"]) < 0)
    runner = UnitRunner(distribution, point_policy())
    with pytest.raises(EnvironmentFault):
        runner.run(bad, WEIGHTS, 0)
    assert_same([runner.run(good, WEIGHTS, 0)], [UnitRunner(Point(), point_policy()).run(good, WEIGHTS, 0)])
