"""Attributes of an environment: what is set has the shape of what it replaces, and mistakes name the place."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box

from metarl.errors import TaskError
from metarl.tasks.check import check_distribution
from metarl.tasks.variation import GymVariation

ONE = {"uniform": [0.5, 0.9]}
THREE = {"choice": [[1.0, 2.0, 4.0], [4.0, 2.0, 1.0]]}


class Inner:
    __slots__ = ("gain",)

    def __init__(self) -> None:
        self.gain = np.ones((2, 2), np.float32)


class Target(gymnasium.Env):
    """Shows its goal; has attributes of many kinds."""

    observation_space = Box(-np.inf, np.inf, (3,), np.float64)
    action_space = Box(-1.0, 1.0, (1,), np.float32)
    shared = np.zeros(3)
    later: Any = None

    def __init__(self) -> None:
        self.goal = np.array([1.0, 2.0, 3.0])
        self.counts, self.listed, self.paired = np.array([1, 2]), [0.0, 0.0, 0.0], (0.0, 0.0)
        self.label, self.inner, self.mass = "red", Inner(), 1.0

    @property
    def fixed(self) -> float:
        return self.mass

    @property
    def bounded(self) -> float:
        return self.mass

    @bounded.setter
    def bounded(self, value: float) -> None:
        raise ValueError("must be below 0.1")

    @property
    def unready(self) -> float:
        raise RuntimeError("reset first")

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        return np.array(self.goal, np.float64), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return self.goal + float(action[0]), 0.0, False, False, {}


def family(horizon: int = 5, **parameters: Any) -> GymVariation:
    return GymVariation(f"{__name__}:Target", parameters, horizon=horizon)


def target(made: GymVariation, **values: Any) -> Target:
    inner = made.make(made.task(**values)).unwrapped
    assert isinstance(inner, Target)
    return inner


def test_one_element_of_an_array_is_set_and_the_others_stay() -> None:
    made = family(x={"attribute": "goal[0]", "prior": ONE}, z={"attribute": "goal[2]", "prior": ONE})
    assert target(made, x=0.5, z=0.75).goal.tolist() == [0.5, 2.0, 0.75]


def test_an_element_of_a_matrix_in_another_object_keeps_the_type_of_its_numbers() -> None:
    gain = target(family(g={"attribute": "inner.gain[1, 0]", "prior": ONE}), g=0.5).inner.gain
    assert gain.tolist() == [[1.0, 1.0], [0.5, 1.0]]
    assert gain.dtype == np.float32


def test_an_element_of_a_shared_array_is_that_of_one_environment_alone() -> None:
    made = family(g={"attribute": "shared[1]", "prior": ONE})
    one, other = target(made, g=0.5), target(made, g=0.75)
    assert [one.shared[1], other.shared[1], Target.shared[1]] == [0.5, 0.75, 0.0]


def test_a_fraction_in_an_array_of_whole_numbers_is_not_rounded() -> None:
    assert target(family(g={"attribute": "counts[0]", "prior": ONE}), g=0.5).counts.tolist() == [0.5, 2.0]
    whole = target(family(g={"attribute": "counts[0]", "prior": {"choice": [5, 6]}}), g=6.0).counts
    assert whole.tolist() == [6, 2]
    assert whole.dtype.kind == "i"


def test_lists_and_tuples_stay_what_they_are() -> None:
    made = family(
        three={"attribute": ["goal", "listed"], "prior": THREE}, second={"attribute": "paired[1]", "prior": ONE}
    )
    env = target(made, three=(1.0, 2.0, 4.0), second=0.5)
    assert env.goal.tolist() == [1.0, 2.0, 4.0]
    assert (env.listed, env.paired) == ([1.0, 2.0, 4.0], (0.0, 0.5))


def test_an_attribute_that_is_none_so_far_takes_any_value() -> None:
    assert target(family(g={"attribute": "later", "prior": ONE}), g=0.5).later == 0.5
    assert target(family(g={"attribute": "later", "prior": THREE}), g=(1.0, 2.0, 4.0)).later.tolist() == [1.0, 2.0, 4.0]


@pytest.mark.parametrize(
    ("attribute", "prior", "value"), [("goal[1]", ONE, 0.5), ("goal", THREE, (1, 2, 4)), ("later", THREE, (1, 2, 4))]
)
def test_what_changes_in_mid_episode_is_put_back_at_the_next(attribute: str, prior: Any, value: Any) -> None:
    made = family(g={"attribute": attribute, "prior": prior, "at_step": 1})
    env = made.make(made.task(g=value, **{"g.at_step": 1.0}))
    name = attribute.removesuffix("[1]")
    for _ in range(2):
        seen = []
        env.reset(seed=0)
        for _ in range(2):
            env.step(np.zeros(1, np.float32))
            seen.append(np.array(getattr(env.unwrapped, name), np.float64).tolist())
        assert seen[0] == np.array(getattr(Target(), name), np.float64).tolist() or np.isnan(seen[0])
        assert seen[1] == ([1.0, 0.5, 3.0] if attribute == "goal[1]" else [1.0, 2.0, 4.0])


def test_a_family_of_elements_passes_all_checks() -> None:
    made = family(x={"attribute": "goal[0]", "prior": ONE}, z={"attribute": "goal[2]", "prior": ONE, "at_step": 2})
    assert [f"{r.name}: {r.message}" for r in check_distribution(made) if not r.passed] == []


MISTAKES = {
    "goal": (ONE, "goal of Target is an array of shape (3,), and its values are single numbers: write one element as"),
    "listed": (ONE, "write one element as listed[0] to listed[2], or draw lists of 3 numbers"),
    "inner.gain": (ONE, "is an array of shape (2, 2), and its values are single numbers: write one element as "),
    "counts": (THREE, "is an array of shape (2,), and its prior draws 3 numbers"),
    "mass": (THREE, "mass of Target is a single number, and its prior draws 3 numbers: give it a prior of one number"),
    "goal[1]": (THREE, "goal of Target is one number, and its prior draws 3"),
    "goal[3]": (ONE, "goal of Target has no such element: write one element as goal[0] to goal[2]"),
    "goal[1,0]": (ONE, "goal of Target has no such element: write one element as goal[0] to goal[2]"),
    "mass[0]": (ONE, "mass of Target has no such element: it is a single number: write mass"),
    "label": (ONE, "label of Target is str, no number; allowed are numbers, and arrays, lists and tuples of them"),
    "inner": (ONE, "inner of Target is Inner, no number"),
    "label[0]": (ONE, "label of Target is str, no number and has no elements; write label"),
    "gaol[0]": (ONE, "Target has no such attribute; did you mean 'goal'?"),
    "fixed": (ONE, "fixed of Target cannot be set to 0.5: "),
    "bounded": (
        ONE,
        "bounded of Target cannot be set to 0.5: ValueError: must be below 0.1",
    ),
    "unready": (ONE, "unready of Target cannot be read: RuntimeError: reset first"),
}


@pytest.mark.parametrize("attribute", MISTAKES)
def test_a_value_that_does_not_fit_names_the_attribute_and_what_to_write(attribute: str) -> None:
    prior, message = MISTAKES[attribute]
    made = family(g={"attribute": attribute, "prior": prior})
    with pytest.raises(TaskError) as raised:
        made.make(made.task(g=0.5 if prior is ONE else (1.0, 2.0, 4.0)))
    assert str(raised.value).startswith(f"parameters.g.attribute = {attribute!r}: ")
    assert message in str(raised.value)


@pytest.mark.parametrize("attribute", ["goal[", "goal[-1]", "goal[x]", "inner..gain", "", "goal[0].x"])
def test_what_is_no_path_is_refused(attribute: str) -> None:
    with pytest.raises(TaskError, match=r"parameters\.g\.attribute = .*: must be names with dots, such as inner\.gain"):
        family(g={"attribute": attribute, "prior": ONE})


@pytest.mark.parametrize("second", ["goal", "goal[1]"])
def test_two_parameters_cannot_set_the_same_number(second: str) -> None:
    with pytest.raises(TaskError, match=r"parameters\.one sets it too; give each parameter an attribute of its own"):
        family(one={"attribute": "goal[1]", "prior": ONE}, other={"attribute": second, "prior": ONE})
