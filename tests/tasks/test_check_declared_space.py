"""The check tells where observations leave the space that their environment declares."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, Tuple

from metarl.tasks import available_distributions
from metarl.tasks.check.declared_space import check_observations_in_space, misfits
from metarl.tasks.variation import GymVariation
from tests.field.robots import Cart, Carts, failed_checks, warnings_of
from tests.registered import load

NAMED = Dict({"q": Box(-1, 1, (2,), np.float64), "mode": Discrete(2)})


def carts(space: gymnasium.Space, observe: Callable[[Any], Any]) -> Carts:
    """Carts with this space and these observations."""
    kind = type("Bent", (Cart,), {"observation_space": space, "observe": observe})
    return Carts(lambda task: kind(task["goal"]))


def remarks(family: Any) -> list[str]:
    return [remark.text for remark in check_observations_in_space(family)]


@pytest.mark.parametrize("name", available_distributions())
def test_observations_of_every_registered_distribution_lie_in_their_space(name: str) -> None:
    assert remarks(load(name)) == []


def test_the_number_farthest_beyond_its_bound_is_told_with_the_bound_and_the_rest_passes() -> None:
    bent = carts(NAMED, lambda self: {"q": np.array([0.2 * self.t, -0.5 * self.t]), "mode": self.t % 2})
    (text,) = remarks(bent)
    assert text.startswith("observation['q'][1] = -5 is below its bound -1 (1 more of observation['q'] beyond theirs) ")
    assert " at step 9 of Carts(goal=" in text
    assert text.endswith(": widen the observation space, or clip")
    assert failed_checks(bent) == {}
    assert text in warnings_of(bent)


def test_another_dtype_is_told_and_the_rest_passes() -> None:
    flat = Box(-np.inf, np.inf, (2,), np.float32)
    bent = carts(flat, lambda self: np.array([self.x, self.t], np.float64 if self.t > 1 else np.float32))
    (text,) = remarks(bent)
    assert text.startswith("observation has dtype float64, its space says float32 at step 1 of Carts(goal=")
    assert failed_checks(bent) == {}


@pytest.mark.parametrize(
    ("space", "observe", "says"),
    [
        (
            Box(-9, 9, (2, 1), np.float64),
            lambda self: np.zeros((1, 2)) if self.t == 3 else np.zeros((2, 1)),
            r"observation has shape (1, 2), its space says (2, 1) at step 2",
        ),
        (
            NAMED,
            lambda self: {"q": np.zeros(2), "mode": 0} | ({"extra": 1} if self.t else {}),
            "observation also has 'extra'",
        ),
        (
            Tuple((Box(-1, 1, (1,), np.float64), Box(-1, 1, (1,), np.float64))),
            lambda self: (np.zeros(1), np.zeros((1, 1)) if self.t else np.zeros(1)),
            "observation[1] has shape (1, 1), its space says (1,) at step 0",
        ),
    ],
    ids=["shape", "keys", "shape in a tuple"],
)
def test_another_shape_or_other_keys_fail_the_check(space: gymnasium.Space, observe: Any, says: str) -> None:
    message = failed_checks(carts(space, observe))["observations in space"]
    assert says in message
    assert message.startswith("Carts(goal=")


@pytest.mark.parametrize(
    ("space", "obs", "says"),
    [
        (NAMED, [1, 2], "observation is a list, its space says a dict with 'mode', 'q'"),
        (NAMED, {"mode": 2, "q": np.zeros(2)}, "observation['mode'] = 2 is not in Discrete(2)"),
        (NAMED, {"mode": 0}, "observation lacks 'q'"),
        (Tuple((Discrete(2),)), (0, 0), "is a tuple, its space says a tuple of 1"),
        (Box(-1, 1, (1,)), "far", "observation is a str, its space says numbers of shape (1,)"),
        (Box(-1, 1, (2,)), [[0], 0], "observation is a list, its space says numbers of shape (2,)"),
        (Box(0, 255, (1,), np.uint8), np.array([256]), "observation has dtype int64, its space says uint8"),
        (Box(0, 200, (1,), np.uint8), np.array([201], np.uint8), "observation[0] = 201 is above its bound 200"),
        (Box(-1, 1, (1, 2)), np.array([[0, -np.inf]], np.float32), "observation[0, 1] = -inf is below its bound -1"),
        (Box(-1, 1, ()), np.float32(2), "observation = 2 is above its bound 1"),
    ],
)
def test_what_a_space_does_not_allow_is_named(space: gymnasium.Space, obs: Any, says: str) -> None:
    assert says in str(next(misfits(space, obs)))


def test_a_bound_that_its_dtype_rounds_is_not_left() -> None:
    bound = np.float32(0.7)
    assert float(bound) < 0.7
    assert [m for m in misfits(Box(-1, bound, (1,)), np.array([0.7])) if m.excess] == []
    assert [m for m in misfits(Box(-1, 1, (2,)), [0.0, 1.0])] == []


def test_a_first_observation_that_gymnasiums_checker_refuses_is_told_in_particular() -> None:
    message = failed_checks(carts(Box(-1, 1, (2,), np.float64), lambda self: np.array([0.0, 3.0])))["gymnasium api"]
    assert message.endswith("is not within the observation space. observation[1] = 3 is above its bound 1")


class Leaves(Cart):
    observation_space: gymnasium.Space = NAMED

    def observe(self) -> Any:
        return {"q": np.array([0.0, self.t]), "mode": 0}


def test_what_effects_do_to_observations_is_not_told_but_what_they_are_made_of_is() -> None:
    goal = {"goal": {"prior": {"uniform": [-1, 1]}, "argument": "goal"}}
    noise = {"observation_noise": {"prior": {"uniform": [5.0, 6.0]}}}
    assert remarks(GymVariation("CartPole-v1", effects=noise, horizon=10)) == []
    (text,) = remarks(GymVariation(f"{__name__}:Leaves", goal, noise, horizon=5))
    assert text.startswith("observation['q'][1] = 5 is above its bound 1 at step 4 of GymVariation(goal=")


def test_parts_of_wrong_sizes_that_add_up_are_no_observation() -> None:
    space = Dict({"a": Box(-9, 9, (1,), np.float64), "b": Box(-9, 9, (2,), np.float64)})
    bent = carts(space, lambda self: {"a": np.zeros(2), "b": np.zeros(1)})
    assert "observation['a'] has shape (2,), its space says (1,)" in failed_checks(bent)["environments run"]
