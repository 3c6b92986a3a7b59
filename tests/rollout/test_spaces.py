"""Every action that is delivered lies in the environment's own space, whatever the space and the policy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from metarl.errors import MetarlError
from metarl.rollout.spaces import Spaces, env_action_map

FLOATS = (np.float16, np.float32, np.float64)
INTEGERS = (np.int8, np.uint8, np.int16, np.int32, np.uint32, np.int64, np.uint64)


def bound(dtype: Any, is_low: bool) -> st.SearchStrategy[Any]:
    """A bound: ordinary with one decimal, any number of the dtype, the dtype's end, or (of floats) infinity."""
    limits: Any = np.iinfo(dtype) if np.dtype(dtype).kind in "iu" else np.finfo(dtype)
    end = limits.min if is_low else limits.max
    if np.dtype(dtype).kind in "iu":
        ordinary = st.integers(0, 9) if is_low else st.integers(10, 20)
        return st.one_of(ordinary, st.just(int(end)), st.integers(int(limits.min), int(limits.max)))
    width: Any = np.dtype(dtype).itemsize * 8
    ordinary_float = (st.integers(-99, 0) if is_low else st.integers(1, 99)).map(lambda tenths: tenths / 10)
    anything = st.floats(allow_nan=False, allow_infinity=False, width=width)
    return st.one_of(ordinary_float, st.just(float(end)), st.just(-np.inf if is_low else np.inf), anything)


@st.composite
def boxes(draw: Any) -> Box:
    dtype = draw(st.sampled_from(FLOATS + INTEGERS))
    pair = st.tuples(bound(dtype, True), bound(dtype, False)).map(lambda ends: np.array(ends, dtype))
    pairs = draw(st.lists(pair.filter(lambda ends: ends[0] < ends[1]), min_size=1, max_size=3))
    low, high = np.stack(pairs, axis=1)
    return Box(low, high, dtype=dtype)


@st.composite
def discretes(draw: Any) -> Discrete:
    dtype = draw(st.sampled_from((np.int8, np.int32, np.int64)))
    return Discrete(draw(st.integers(1, 20)), start=draw(st.integers(-50, 50)), dtype=dtype)


def policy_actions(shape: tuple[int, ...]) -> st.SearchStrategy[np.ndarray]:
    finite = st.floats(allow_nan=False, allow_infinity=False, width=32)
    corners = st.sampled_from([-1.0, 1.0, 0.0, np.float32(0.99999994), -0.5])
    return hnp.arrays(np.float32, shape, elements=st.one_of(corners, finite))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_every_delivered_box_action_lies_in_its_space(data: Any) -> None:
    space = data.draw(boxes())
    actions = data.draw(policy_actions((4, space.shape[0])))
    delivered = env_action_map(space)(actions)
    assert delivered.dtype == space.dtype
    for action in delivered:
        assert np.isfinite(action).all()
        assert space.contains(action), (space, action)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_every_delivered_action_lies_in_its_own_rows_space(data: Any) -> None:
    dims = data.draw(st.integers(1, 2))
    ranges = st.tuples(st.floats(-50, 49, width=32), st.floats(0.125, 50, width=32))
    pairs = data.draw(st.lists(st.lists(ranges, min_size=dims, max_size=dims), min_size=2, max_size=4))
    spaces = [
        Box(np.array([low for low, _ in row], np.float32), np.array([low + width for low, width in row], np.float32))
        for row in pairs
    ]
    actions = data.draw(policy_actions((len(spaces), dims)))
    for space, action in zip(spaces, env_action_map(spaces)(actions), strict=True):
        assert space.contains(action)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_every_delivered_discrete_action_lies_in_its_space(data: Any) -> None:
    space = data.draw(discretes())
    for action in env_action_map(space)(np.arange(int(space.n))):
        assert space.contains(action)
        assert action.dtype == space.dtype


def test_a_range_that_rounds_outwards_in_float32_is_never_left() -> None:
    # the joint of a real arm: half of the width, added to the lower bound in float32, exceeds the upper one
    for tenths in range(-30, 30):
        for width in range(1, 30):
            space = Box(np.float32(tenths / 10), np.float32((tenths + width) / 10), (1,), np.float32)
            ends = env_action_map(space)(np.array([[-1.0], [1.0]], np.float32))
            assert (ends >= space.low).all()
            assert (ends <= space.high).all()


def test_bounded_dimensions_are_scaled_and_the_others_clipped_to_the_bound_they_have() -> None:
    # a valve >= 0 gets the policy's own number; of +-2, 0.5 is 1
    space = Box(np.array([0, -2], np.float32), np.array([np.inf, 2], np.float32))
    assert Spaces.of(Box(-1, 1, (3,)), space) == Spaces(3, 2, is_bounded=(False, True))
    assert env_action_map(space)(np.array([[-3.0, 0.5], [7.0, 9.0]], np.float32)).tolist() == [[0, 1], [7, 2]]


@pytest.mark.parametrize("end", [np.inf, np.finfo(np.float32).max, 1e9])
def test_bounds_that_state_no_range_leave_actions_as_they_are(end: float) -> None:
    space = Box(-end, end, (2,), np.float32)
    assert Spaces.of(Box(-1, 1, (3,)), space).unbounded == (0, 1)
    assert env_action_map(space)(np.array([[0.5, -40.0]], np.float32)).tolist() == [[0.5, -40.0]]


def test_integer_actions_are_rounded_within_their_range() -> None:
    # [0, 10]: 0 is 5, 0.25 is 6.25, so 6
    assert env_action_map(Box(0, 10, (1,), np.int64))(np.array([[0.0], [0.25], [-2.0], [1.0]])).tolist() == [
        [5],
        [6],
        [0],
        [10],
    ]


def test_spaces_are_bounded_unless_stated() -> None:
    assert Spaces(2, 3).is_bounded == (True, True, True)
    assert Spaces(2, 3, discrete=True).is_bounded == ()
    assert Spaces.of(Box(-1, 1, (2,)), Discrete(3)) == Spaces(2, 3, discrete=True)


@pytest.mark.parametrize(
    ("space", "says"),
    [
        (Box(-1, 1, (0,)), "the action space has no dimension"),
        (
            Box(np.array([-1, 0.5], np.float32), np.array([1, 0.5], np.float32)),
            r"action dimension 1 has low 0\.5 and high 0\.5",
        ),
        (Box(-1, 1, (2, 3)), "must be a flat Box vector"),
        (MultiDiscrete([3, 4]), r"must be Box or Discrete, got MultiDiscrete\(\[3 4\]\)"),
        (Dict({"arm": Box(-1, 1, (2,))}), "must be Box or Discrete, got Dict"),
    ],
)
def test_action_spaces_that_no_policy_can_serve_are_refused_by_name(space: Any, says: str) -> None:
    with pytest.raises(MetarlError, match=says):
        Spaces.of(Box(-1, 1, (2,)), space)


@pytest.mark.parametrize(
    "others",
    [
        [Discrete(3), Discrete(4)],
        [Box(-1, 1, (2,)), Box(-1, 1, (3,))],
        [Box(-1, 1, (2,)), Box(-1, np.inf, (2,))],
        [Box(-1, 1, (2,), np.float32), Box(-1, 1, (2,), np.float64)],
        [Box(-1, 1, (2,)), Discrete(2)],
    ],
)
def test_rows_that_one_policy_cannot_serve_are_refused(others: list[Any]) -> None:
    with pytest.raises(MetarlError, match="row 0 and row 1 have different action spaces"):
        env_action_map(others)
