"""Actions of several discrete parts as one index, for policies that choose one of n actions.

The index of parts p_1, ..., p_k (counted from 0) with n_1, ..., n_k values each is ((p_1 n_2 + p_2) n_3 + ...) + p_k:
the last part counts fastest.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Discrete, MultiDiscrete

from metarl.errors import TaskError

_MOST_ACTIONS = 4096


class IndexedActions:
    """The actions of `space` and their indices, 0 to `count` - 1; TaskError where there would be more than 4096.
    `who` is named as the space's owner."""

    def __init__(self, space: MultiDiscrete, who: str):
        self.space = space
        self._sizes, self._start = np.ravel(space.nvec).astype(np.int64), np.ravel(space.start).astype(np.int64)
        self.count = int(np.prod(self._sizes, dtype=object))
        if self.count > _MOST_ACTIONS:
            raise TaskError(
                f"{who}: {space} has {self.count} actions; allowed are up to {_MOST_ACTIONS}: "
                "make its parts coarser in a wrapper"
            )

    @property
    def index_space(self) -> Discrete:
        """The space of the indices."""
        return Discrete(self.count)

    def action(self, index: Any) -> np.ndarray:
        """The action of an index, of the space's shape and dtype."""
        parts = np.array(np.unravel_index(int(index), self._sizes.tolist())) + self._start
        return parts.reshape(self.space.shape).astype(self.space.dtype)

    def index(self, given: Any) -> int:
        """The index of an action of the space; an index stays as it is. TaskError where it is neither."""
        values = np.asarray(given)
        if values.dtype.kind in "iu" and values.shape == ():
            if 0 <= values < self.count:
                return int(values)
        elif values.dtype.kind in "iu" and values.shape == self.space.shape:
            parts = np.ravel(values).astype(np.int64) - self._start
            if ((parts >= 0) & (parts < self._sizes)).all():
                return int(np.ravel_multi_index(parts.tolist(), self._sizes.tolist()))
        raise TaskError(f"the action {given!r}: allowed are one of {self.space} and its index, 0 to {self.count - 1}")


def indexed_actions_of(env: gymnasium.Env) -> IndexedActions | None:
    """The robot's own actions where a wrapper of `env` takes their index instead; None where none does.

    Such a wrapper holds them as `indexed_actions`. Another wrapper of actions may change more than their form: what it
    takes is the robot's action.
    """
    layer: Any = env
    while isinstance(layer, gymnasium.Wrapper) and layer.action_space == env.action_space:
        found: IndexedActions | None = vars(layer).get("indexed_actions")
        if found is not None or isinstance(layer, gymnasium.ActionWrapper):
            return found
        layer = layer.env
    return None


def own_action_space(env: gymnasium.Env) -> gymnasium.Space:
    """The space of the robot's actions: that of `env`, before a wrapper made an index of them."""
    indexed = indexed_actions_of(env)
    return env.action_space if indexed is None else indexed.space
