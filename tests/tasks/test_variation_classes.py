"""Families written as classes have a body too, and the policy is told nothing of it."""

from __future__ import annotations

from typing import Any

import numpy as np
from metarl_envs.half_cheetah import HalfCheetahVel

from metarl.tasks import RevealedTask, load_distribution
from metarl.tasks.check import check_distribution
from metarl.tasks.variation import Body

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
