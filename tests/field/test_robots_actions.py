"""Robots whose action spaces differ from the usual [-1, 1]: what reaches the environment is in its own space."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from gymnasium.wrappers import ClipAction

from metarl.errors import TaskError, TrainingError
from metarl.tasks import Choice, Parameter, Task, Uniform
from tests.field.robots import Cart, Carts, Constant, collect, failed_checks
from tests.toy import number

GOAL = Carts.parameters[0]


class Strict(Cart):
    """Refuses what is not in its space, as many environments do."""

    def step(self, action):
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        return super().step(action)


@pytest.mark.parametrize("action", [-1.0, 0.3, 1.0, 50.0])
@pytest.mark.parametrize(
    "space",
    [
        Box(-3.0718, -0.0698, (1,), np.float32),
        Box(np.array([0.0], np.float32), np.array([np.inf], np.float32)),
        Box(-np.finfo(np.float64).max, np.finfo(np.float64).max, (1,), np.float64),
        Box(-5, 9, (1,), np.int16),
    ],
    ids=str,
)
def test_an_environment_that_asserts_its_space_never_sees_another_action(space: Box, action: float) -> None:
    """Bounds whose width rounds outwards, one-sided and unbounded dimensions, integers."""
    collect(Carts(lambda task: Strict(number(task["goal"]), space)), Constant([np.float32(action)]))


def test_unscaled_dimensions_reach_the_environment_as_they_are_and_scaled_ones_in_their_range() -> None:
    """A valve that cannot be negative beside a torque of +-2."""
    space = Box(np.array([0, -2], np.float32), np.array([np.inf, 2], np.float32))
    carts = Carts(lambda task: Cart(number(task["goal"]), space))
    collect(carts, Constant(np.array([-0.5, 0.5], np.float32)))
    assert carts.made[0].actions[0].tolist() == [0.0, 1.0]


def test_a_wrapper_that_widens_the_space_is_taken_at_its_word() -> None:
    """ClipAction says that any number is allowed: then the policy's own number arrives."""
    carts = Carts(lambda task: ClipAction(Cart(number(task["goal"]), Box(-5.0, 5.0, (1,), np.float32))))
    collect(carts, Constant(np.array([4.5], np.float32)))
    assert carts.made[0].unwrapped.actions[0].tolist() == [4.5]


def test_each_task_has_its_own_bounds_whoever_is_beside_it() -> None:
    """The torque limit is what differs between tasks."""
    limit = Parameter("limit", Uniform(0.5, 5.0), "Nm")

    def make(task: Task) -> Strict:
        torque = number(task["limit"])
        return Strict(0.0, Box(-torque, torque, (1,), dtype=np.float64))

    carts = Carts(make, limit)
    tasks = list(carts.sample("train", 3, 0))
    together = collect(carts, Constant(np.array([1.0], np.float32)), tasks)
    assert [env.actions[0].item() for env in carts.made] == pytest.approx([task["limit"] for task in tasks])
    alone = [collect(carts, Constant(np.array([1.0], np.float32)), [task]) for task in tasks]
    assert len({len(together), *map(len, alone)}) == 1
    assert failed_checks(carts) == {}


def test_tasks_with_another_number_of_discrete_actions_are_refused_by_name() -> None:
    """Buttons that are there in one task and not in another."""
    carts = Carts(lambda task: Cart(0.0, Discrete(int(number(task["n"])))), Parameter("n", Choice((2, 4, 6))))
    with pytest.raises(TaskError, match=r"Carts\(n=\d\) and Carts\(n=\d\) have different action spaces, Discrete"):
        collect(carts, Constant(1), [carts.task(n=2), carts.task(n=4)])
    assert "different action spaces" in failed_checks(carts)["environments run"]


@pytest.mark.parametrize(
    ("space", "says"),
    [
        (Box(np.array([0, -1], np.float32), np.array([0, 1], np.float32)), "action dimension 0 has low 0.0 and high 0"),
        (Box(-1, 1, (0,), np.float32), "has no dimension"),
    ],
)
def test_actions_that_can_do_nothing_are_refused(space: Box, says: str) -> None:
    """A range of no width, and no actuator at all."""
    with pytest.raises(TaskError, match=says):
        collect(Carts(lambda task: Cart(number(task["goal"]), space)), Constant(np.zeros(space.shape, np.float32)))


def test_a_discrete_policy_whose_logits_are_not_finite_is_called_diverged() -> None:
    """An action number is finite whatever it was drawn from."""
    carts = Carts(lambda task: Cart(number(task["goal"]), Discrete(3)))
    with pytest.raises(TrainingError, match=r"the policy's logits on Carts\(goal=.*\) is not finite at step 0"):
        collect(carts, Constant(1, logits=np.array([0.0, np.nan, 1.0], np.float32)))


def test_a_dead_action_dimension_is_named() -> None:
    """A motor whose command never reaches the simulation."""

    class Half(Cart):
        def step(self, action):
            return super().step(action[:1])

    carts = Carts(lambda task: Half(number(task["goal"]), Box(-1, 1, (2,), np.float32)))
    assert failed_checks(carts) == {
        "actions": "action dimension 1 has no effect: observations and rewards are the same whatever it is; let `step` "
        "use it, or take it out of the action space"
    }
