"""Families written as classes have a body too, and the policy is told nothing of it."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from metarl_envs.half_cheetah import HalfCheetahVel

from metarl.tasks import Parameter, RevealedTask, Task, TaskDistribution, Uniform, load_distribution
from metarl.tasks.check import check_distribution
from metarl.tasks.variation import Body, BodyEnv

EFFECTS = {
    "action_delay": {"prior": {"uniform": [0, 2]}},
    "dead_motor": {"prior": {"choice": [0, 1]}, "at_step": {"uniform": [2, 5]}},
}


class Worn(HalfCheetahVel):
    """A target velocity, and motors that answer late and fail."""

    name = "Worn"

    def __init__(self, **options: Any):
        super().__init__(**options)
        self.body = Body.of(EFFECTS)
        self.parameters = (*self.parameters, *self.body.parameters)


def test_a_class_with_a_body_passes_all_checks() -> None:
    results = check_distribution(Worn(horizon=30))
    assert {r.name: r.message for r in results if not r.passed} == {}


class Late(TaskDistribution):
    """Pendulums that any class builds, with a body around each."""

    name, version, horizon = "Late", 1, 20

    def __init__(self) -> None:
        self.body = Body.of({"action_delay": {"prior": {"choice": [0, 2]}}})
        self.parameters = (Parameter("g", Uniform(5.0, 15.0), "m/s^2"), *self.body.parameters)

    def make(self, task: Task) -> gymnasium.Env:
        return BodyEnv(gymnasium.make("Pendulum-v1", g=task["g"]), self.body, task)


def test_environments_that_a_class_builds_have_a_body_around_them() -> None:
    assert {r.name: r.message for r in check_distribution(Late()) if not r.passed} == {}
    family = Late()
    batch = family.make_batch([family.task(g=10.0, action_delay=d) for d in (0.0, 2.0)])
    batch.reset(seed=[3, 3])
    speeds = [batch.step(np.full((2, 1), 2.0, np.float32))[0][:, 2] for _ in range(2)]
    unpushed = [speed[0] - speed[1] for speed in speeds]
    np.testing.assert_allclose(unpushed[0], 3 / 1 * 2.0 * 0.05, rtol=1e-5)  # 3 / (m l^2) u dt


def test_without_delay_and_failure_the_body_changes_nothing_until_the_motor_fails() -> None:
    plain, worn = load_distribution("HalfCheetahVel"), Worn()
    task = worn.task(velocity=1.0, action_delay=0.0, dead_motor=1.0, **{"dead_motor.at_step": 4.5})
    one, other = plain.make_batch([plain.task(velocity=1.0)] * 2), worn.make_batch([task] * 2)
    np.testing.assert_array_equal(one.reset(seed=0)[0], other.reset(seed=0)[0])
    actions = np.random.default_rng(0).uniform(-1, 1, (8, 2, 6)).astype(np.float32)
    same = [np.array_equal(one.step(action)[0], other.step(action)[0]) for action in actions]
    assert same == [True] * 5 + [False] * 3


def test_the_step_of_a_change_is_part_of_the_task_and_can_be_revealed() -> None:
    family = Worn()
    assert [p.name for p in family.parameters] == ["velocity", "action_delay", "dead_motor", "dead_motor.at_step"]
    task = family.sample("train", 1, 0)[0]
    assert family.change_step(task) == task["dead_motor.at_step"]
    told = RevealedTask(family)
    assert told.change_step(task) == task["dead_motor.at_step"]
    assert told.make_batch([task]).reset(seed=0)[0].shape == (1, 17 + 4)


def test_an_oracle_is_told_when_the_change_has_happened() -> None:
    family = RevealedTask(Worn())
    early, late = (
        family.task(velocity=1.0, action_delay=0.0, dead_motor=1.0, **{"dead_motor.at_step": step})
        for step in (2.0, 4.5)
    )
    batch, env, actions = family.make_batch([early, late]), family.make(late), np.zeros((2, 6), np.float32)
    told = [batch.reset(seed=0)[0][:, -1], *(batch.step(actions)[0][:, -1] for _ in range(6))]
    assert np.stack(told).T.tolist() == [[-1, -1, 1, 1, 1, 1, 1], [-1, -1, -1, -1, -1, 1, 1]]
    alone = [env.reset(seed=0)[0][-1], *(env.step(actions[0])[0][-1] for _ in range(6))]
    assert alone == [row[1] for row in told]
    assert batch.reset(options={"reset_mask": [False, True]})[0][:, -1].tolist() == [1, -1]


class Failing(HalfCheetahVel):
    """A target velocity, a motor that fails in some tasks, and a delay from the first step on."""

    name = "Failing"

    def __init__(self, **options: Any):
        super().__init__(**options)
        self.body = Body.of(
            {
                "dead_motor": {"prior": {"choice": [-1, 0]}, "at_step": {"uniform": [2, 5]}},
                "action_delay": {"prior": {"choice": [1]}, "at_step": 0},
            }
        )
        self.parameters = (*self.parameters, *self.body.parameters)


def test_only_tasks_in_which_something_happens_change() -> None:
    family = Failing()
    tasks = family.sample("train", 20, 0)
    assert {task["dead_motor"] for task in tasks} == {-1.0, 0.0}
    for task in tasks:
        assert family.change_step(task) == (None if task["dead_motor"] == -1 else task["dead_motor.at_step"])
