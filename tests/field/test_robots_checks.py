"""Task distributions that train without a word and mean something else: `tasks check` finds them."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

from metarl.errors import MetarlError
from metarl.tasks import Choice, LogUniform, Parameter, Uniform
from metarl.tasks.check import check_distribution, quick_check
from tests.field.robots import Cart, Carts, Constant, collect, failed_checks, warnings_of
from tests.toy import number

MASS = Parameter("mass", LogUniform(0.5, 2.0), "x")
GOAL = Carts.parameters[0]


@pytest.mark.parametrize("wrapped", [False, True])
def test_one_environment_for_all_tasks_is_refused_naming_two(wrapped: bool) -> None:
    """Expensive to build, so built once; under wrappers too."""
    one = Cart(0.0)
    shared = Carts(lambda task: gymnasium.wrappers.TimeLimit(one, 50) if wrapped else one)
    with pytest.raises(MetarlError, match=r"same environment for Carts\(goal=.*\) and Carts\(goal=.*\): every call"):
        collect(shared, Constant(np.zeros(1, np.float32)))
    assert "one and the same environment" in failed_checks(shared)["environments run"]


def test_environments_that_share_state_in_a_class_are_found() -> None:
    """Different objects, one simulator behind them."""

    class Shared(Cart):
        position = 0.0

        @property
        def x(self):
            return Shared.position

        @x.setter
        def x(self, value):
            Shared.position = value

    message = failed_checks(Carts(lambda task: Shared(number(task["goal"]))))["batch equals each alone"]
    assert "their environments share state" in message


class Massive(Cart):
    """A cart with a mass, and what `reset` does to its task."""

    def __init__(self, task, at_reset=lambda env: None):
        super().__init__(task["goal"])
        self.mass, self.at_reset = task["mass"], at_reset

    def reset(self, *, seed=None, options=None):
        answer = super().reset(seed=seed)
        self.at_reset(self)
        return answer

    def step(self, action):
        return super().step(np.asarray(action) / self.mass)


def test_each_parameter_is_told_with_what_it_changes_and_by_how_much() -> None:
    """What a sound family sees."""
    results = check_distribution(Carts(Massive, MASS, GOAL))
    assert all(result.passed for result in results)
    texts = [remark.text for result in results if result.name == "parameters" for remark in result.remarks]
    assert texts[0].startswith("mass changes observation dimension 0 by up to ")
    assert texts[1].startswith("goal changes reward by up to ")


def test_the_one_dead_parameter_of_two_is_named() -> None:
    """A friction that the simulator's rule of the larger one hides."""
    dead = Carts(lambda task: Cart(number(task["goal"])), GOAL, MASS)
    assert list(failed_checks(dead)) == ["parameters"]
    assert "parameter 'mass' has no effect" in failed_checks(dead)["parameters"]


@pytest.mark.parametrize(
    "redraw",
    [
        lambda env: setattr(env, "goal", float(env.np_random.uniform(-1, 1))),
        lambda env: setattr(env, "goal", float(env.np_random.uniform(-1, 1)) if env.actions else env.goal),
    ],
)
def test_a_task_drawn_anew_at_reset_is_found(redraw) -> None:
    """Seeded, so every episode repeats, but the task's own value decides nothing: at once, or after the first."""
    failed = failed_checks(Carts(lambda task: Massive(task, redraw), MASS, GOAL))
    assert "parameter 'goal' has no effect" in failed["parameters"]


def test_a_parameter_that_compounds_at_every_reset_is_found() -> None:
    """A scale applied to what was scaled before."""

    def compound(env):
        env.mass *= 1.5

    assert (
        "behaves as another task"
        in failed_checks(Carts(lambda t: Massive(t, compound), MASS, GOAL))["reset keeps task"]
    )


def test_a_reset_that_draws_from_a_generator_of_its_own_is_found() -> None:
    """The seed is taken and not used."""

    def other(env):
        env.x = float(np.random.default_rng().uniform(-1, 1))

    assert "determinism" in failed_checks(Carts(lambda t: Massive(t, other), MASS, GOAL))


def test_a_family_of_one_task_gets_a_true_sentence() -> None:
    """One training task: nothing can differ, and nothing is said to have no effect."""
    single = Carts(None, Parameter("goal", Choice((0.5,))))
    assert failed_checks(single) == {}
    assert any("a family of one task" in warning for warning in warnings_of(single))


def test_a_parameter_of_one_value_beside_others_is_no_failure() -> None:
    """It cannot be varied."""
    family = Carts(Massive, MASS, Parameter("goal", Choice((0.5,))))
    results = {result.name: result for result in check_distribution(family)}
    assert results["parameters"].passed
    assert results["parameters"].remarks[1].text == "goal has one value alone, so it makes no two tasks differ"


def test_what_only_costs_and_moves_nothing_is_warned_of() -> None:
    """A control cost on a motor that is not connected."""

    class Costly(Cart):
        def step(self, action):
            obs, reward, *rest = super().step(action[:1])
            return obs, reward - float(action[1] ** 2), *rest

    space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    warnings = warnings_of(Carts(lambda task: Costly(number(task["goal"]), space)))
    assert "action dimension 1 changes the reward by up to" in " ".join(warnings)


def test_the_quick_check_passes_a_sound_family_and_finds_what_cannot_be_trained_on() -> None:
    """What `metarl train` runs before its first iteration."""
    assert quick_check(Carts()) == []
    with pytest.raises(MetarlError, match="observation is not finite at step 0 in dimension 1: nan"):
        quick_check(Carts(lambda task: _Nan(number(task["goal"]))))
    (remark,) = quick_check(Carts(lambda task: gymnasium.wrappers.TimeLimit(Cart(number(task["goal"])), 3)))
    assert "TimeLimit" in remark.text
    spaces = Carts(
        lambda task: Cart(0.0, gymnasium.spaces.Discrete(int(number(task["n"])))), Parameter("n", Choice((2, 3, 4)))
    )
    with pytest.raises(MetarlError, match="different action spaces"):
        quick_check(spaces)


class _Nan(Cart):
    def observe(self):
        return np.array([self.x, np.nan])


def test_a_distribution_that_lacks_an_attribute_is_told_which() -> None:
    """No horizon, a parameter that is no tuple."""
    carts = Carts()
    carts.horizon = 5.0  # type: ignore[assignment]
    with pytest.raises(MetarlError, match="horizon must be an integer"):
        quick_check(carts)
    carts = Carts()
    carts.parameters = Parameter("goal", Uniform(0.0, 1.0))  # type: ignore[assignment]
    with pytest.raises(MetarlError, match="a comma is missing behind 'goal'"):
        quick_check(carts)
