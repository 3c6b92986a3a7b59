"""Which action spaces an environment may have, and which of their dimensions have a range.

A dimension is bounded where both its bounds lie within +-1e9. Beyond that (float32's largest number, an integer's,
infinity) they state no range that an action could be scaled to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete, MultiDiscrete

from metarl.errors import TaskError

NO_RANGE = 1e9


def bounded_dimensions(space: Box) -> np.ndarray:
    """Which dimensions of a flat Box have a range, bool [A]."""
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    return (np.abs(low) < NO_RANGE) & (np.abs(high) < NO_RANGE)


def require_action_space(space: Any, who: object) -> None:
    """TaskError naming the dimension where actions of `space` cannot be chosen; `who` is named as its owner."""
    if not isinstance(space, Box | Discrete):
        raise TaskError(f"{who}: action space must be Box or Discrete, got {space}{_advice(space)}")
    if isinstance(space, Discrete):
        return
    if len(space.shape) != 1:
        raise TaskError(f"{who}: actions must be a flat Box vector, got {space}: reshape them in a wrapper")
    if space.shape[0] == 0:
        raise TaskError(f"{who}: the action space has no dimension, so there is nothing to act with: {space}")
    if np.dtype(space.dtype).kind not in "fiu":
        raise TaskError(f"{who}: actions must be floats or integers, got {space}")
    for i in np.flatnonzero(~(space.low < space.high)).tolist():
        raise TaskError(
            f"{who}: action dimension {i} has low {space.low[i]} and high {space.high[i]}, so every action would "
            "become one number; low must be below high (for a MuJoCo actuator: write ctrlrange in the model)"
        )


def require_same_kind(spaces: Sequence[gymnasium.Space], names: Sequence[object]) -> None:
    """TaskError naming two tasks whose action spaces one policy cannot serve. Bounds and starts may differ."""
    first = spaces[0]
    for space, name in zip(spaces[1:], names[1:], strict=True):
        if space is not first and (difference := _difference(first, space)):
            raise TaskError(f"{names[0]} and {name} have different action spaces, {difference}: one policy serves both")


def _difference(one: gymnasium.Space, other: gymnasium.Space) -> str:
    if isinstance(one, Discrete) and isinstance(other, Discrete):
        return "" if one.n == other.n and one.dtype == other.dtype else f"{one} and {other}"
    if isinstance(one, MultiDiscrete) and isinstance(other, MultiDiscrete):
        return "" if np.array_equal(one.nvec, other.nvec) and one.dtype == other.dtype else f"{one} and {other}"
    if not (isinstance(one, Box) and isinstance(other, Box)) or one.shape != other.shape or one.dtype != other.dtype:
        return f"{one} and {other}"
    differs = np.flatnonzero(bounded_dimensions(one) != bounded_dimensions(other))
    return f"of which one bounds dimension {differs[0]} and one does not" if differs.size else ""


def _advice(space: Any) -> str:
    if not isinstance(space, gymnasium.Space):
        return (
            f" of {type(space).__module__}: Gymnasium wants gymnasium.spaces (convert an old gym environment "
            "with the package shimmy)"
        )
    return ": turn it into one of them in a wrapper around the environment"
