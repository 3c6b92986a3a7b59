"""What an environment promised of its observations and actions, and how a policy's actions reach it.

    policy units                                       the environment's own space
    [-1, 1] in a bounded dimension         ->          low to high, clipped
    any number in another dimension        ->          the same number, clipped to the bound that there is
    0, 1, ... n - 1                        ->          start, ..., start + n - 1

A dimension is bounded where both its bounds lie within +-1e9 (`metarl.tasks.action_space`). Integers are rounded to
the nearest. Whatever a policy gives (but NaN), what is delivered lies in the environment's space: its dtype, and never
outside a bound by a rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete

from metarl.errors import ConfigError
from metarl.tasks.action_space import bounded_dimensions, require_action_space, require_same_kind

ActionMap = Callable[[np.ndarray], np.ndarray]
_EXACT_INTEGERS = 2.0**53  # of float64


@dataclass(frozen=True)
class Spaces:
    """What a policy must know of an environment.

    obs_dim: numbers in an observation.
    action_dim: dimensions of a Box action, or the number of discrete actions.
    is_bounded: which dimensions of a Box action are presented as [-1, 1]; in the others a policy gives the number
        that the environment gets. All are, unless stated; () where actions are discrete.
    """

    obs_dim: int
    action_dim: int
    discrete: bool = False
    is_bounded: tuple[bool, ...] = ()

    def __post_init__(self) -> None:
        if not self.is_bounded and not self.discrete:
            object.__setattr__(self, "is_bounded", (True,) * self.action_dim)
        assert len(self.is_bounded) == (0 if self.discrete else self.action_dim)

    @property
    def unbounded(self) -> tuple[int, ...]:
        """The dimensions of a Box action that have no range."""
        return tuple(i for i, bounded in enumerate(self.is_bounded) if not bounded)

    @staticmethod
    def of(observation: gymnasium.Space, action: gymnasium.Space) -> Spaces:
        """The spaces of an environment; ConfigError or TaskError naming the dimension where no policy can serve it."""
        if not isinstance(observation, Box) or len(observation.shape) != 1:
            raise ConfigError(f"observations must be flat Box vectors, got {observation}")
        require_action_space(action, "the environment")
        if isinstance(action, Discrete):
            return Spaces(observation.shape[0], int(action.n), discrete=True)
        assert isinstance(action, Box)
        return Spaces(observation.shape[0], action.shape[0], False, tuple(bounded_dimensions(action).tolist()))


def env_action_map(space: gymnasium.Space | Sequence[gymnasium.Space]) -> ActionMap:
    """The function from policy units [..., A] (or [...] where discrete) to an environment's own actions.

    A sequence gives one space per row of [n, A], or of [n]: bounds and starts are each row's own. TaskError where
    they differ otherwise.
    """
    rows = [space] if isinstance(space, gymnasium.Space) else list(space)
    distinct = list({id(row): row for row in rows}.values())
    rows = distinct if len(distinct) == 1 else rows
    require_same_kind(distinct, [f"row {i}" for i in range(len(distinct))])
    if isinstance(rows[0], Discrete):
        dtype, start = rows[0].dtype, _shared([row.start for row in rows])  # type: ignore[attr-defined]
        return lambda actions: actions.astype(dtype) + start
    low, high = (_shared([getattr(row, end) for row in rows]) for end in ("low", "high"))
    assert isinstance(rows[0], Box)
    make = _float_map if low.dtype.kind == "f" else _integer_map
    return make(low, high, bounded_dimensions(rows[0]))


def _shared(values: Sequence[np.ndarray]) -> np.ndarray:
    """One value where all are the same, else all of them stacked."""
    stacked = np.stack(values)
    return stacked[0] if (stacked == stacked[0]).all() else stacked


def _float_map(low: np.ndarray, high: np.ndarray, is_bounded: np.ndarray) -> ActionMap:
    dtype = low.dtype
    if (low == -1).all() and (high == 1).all():
        return lambda actions: actions.clip(-1.0, 1.0).astype(dtype, copy=False)
    # Rounding to `dtype` never carries a number past another one of `dtype`: clipping in a finer type before is enough.
    precise = np.result_type(dtype, np.float32)
    largest = np.finfo(dtype).max
    low, high = (bound.clip(-largest, largest).astype(precise) for bound in (low, high))
    scale = _scaling(low, high, is_bounded)
    one = np.ones(low.shape[-1], precise)
    if is_bounded.all() and (scale(-one) >= low).all() and (scale(one) <= high).all():  # then so is all between
        return lambda actions: scale(actions.astype(precise, copy=False)).astype(dtype, copy=False)
    return lambda actions: scale(actions.astype(precise, copy=False)).clip(low, high).astype(dtype, copy=False)


def _integer_map(low: np.ndarray, high: np.ndarray, is_bounded: np.ndarray) -> ActionMap:
    limits, dtype = np.iinfo(low.dtype), low.dtype
    smallest, largest = max(float(limits.min), -_EXACT_INTEGERS), min(float(limits.max), _EXACT_INTEGERS)
    scale = _scaling(low.astype(np.float64), high.astype(np.float64), is_bounded)

    def to_integers(actions: np.ndarray) -> np.ndarray:
        exact = np.rint(scale(actions.astype(np.float64))).clip(smallest, largest)
        return exact.astype(dtype).clip(low, high)

    return to_integers


def _scaling(low: np.ndarray, high: np.ndarray, is_bounded: np.ndarray) -> ActionMap:
    """[-1, 1] to low .. high where bounded, unchanged elsewhere."""
    if not is_bounded.any():
        return lambda actions: actions
    half_range = 0.5 * (np.where(is_bounded, high, 1) - np.where(is_bounded, low, 0)).astype(low.dtype)
    base = np.where(is_bounded, low, 0).astype(low.dtype)
    if is_bounded.all():
        return lambda actions: base + (actions.clip(-1.0, 1.0) + 1) * half_range
    return lambda actions: np.where(is_bounded, base + (actions.clip(-1.0, 1.0) + 1) * half_range, actions)
