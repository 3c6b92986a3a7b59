"""Between a robot and its policy: observations and actions in the robot's own spaces and units, checked.

the robot                                                     the policy
observation of its space (also nested)       ->               flat float32, one row per robot [K, 1, O]
action of its space, in its units            <-               [-1, 1] where bounded, or an index [K, 1, ...]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, MultiDiscrete
from gymnasium.spaces.utils import flatdim, flatten

from metarl.errors import AgentError
from metarl.rollout.spaces import Spaces, env_action_map
from metarl.tasks.action_space import require_same_kind
from metarl.tasks.indexed_actions import IndexedActions


class Interface:
    """The spaces of one robot (`num_robots` None) or of a vector of them, K = 1 or `num_robots` rows.

    `action_space`: one for all, or one per robot, of the same kind with bounds of their own. Of a MultiDiscrete one the
    policy chooses an index, see `metarl.tasks.indexed_actions`.
    """

    def __init__(
        self,
        observation_space: gymnasium.Space,
        action_space: gymnasium.Space | Sequence[gymnasium.Space],
        num_robots: int | None = None,
    ):
        if num_robots is not None and num_robots < 1:
            raise AgentError(f"robots = {num_robots}: must be at least 1, or None for a single robot")
        self.observation_space, self.num_robots = observation_space, num_robots
        self.num_rows = 1 if num_robots is None else num_robots
        self.action_spaces: tuple[gymnasium.Space, ...] = (
            (action_space,) * self.num_rows if isinstance(action_space, gymnasium.Space) else tuple(action_space)
        )
        if len(self.action_spaces) != self.num_rows:
            raise AgentError(f"{len(self.action_spaces)} action spaces were given for {self.num_rows} robots")
        self.obs_dim = int(flatdim(observation_space))
        flat = Box(-np.inf, np.inf, (self.obs_dim,), np.float64)
        self._indexed = _indexed(self.action_spaces)
        chosen = [indexed.index_space for indexed in self._indexed] or self.action_spaces
        self.spaces = Spaces.of(flat, chosen[0])
        self._to_robot = env_action_map(chosen)
        self._is_flat = isinstance(observation_space, Box) and len(observation_space.shape) == 1

    # --- to the policy -------------------------------------------------------------------------------

    def observations(self, given: Any, running: np.ndarray, what: str = "the observation") -> np.ndarray:
        """[K, 1, O] float32. AgentError where the shape is wrong, or a row of `running` [K, 1] is not finite."""
        rows = self._flat_rows(given, what)
        with np.errstate(over="ignore"):
            obs = rows.astype(np.float32).reshape(self.num_rows, 1, self.obs_dim)
        if not np.isfinite(obs).all():
            self._refuse_not_finite(obs, rows, running, what)
        return obs

    def rewards(self, given: Any, running: np.ndarray) -> np.ndarray:
        """[K, 1] float32. AgentError where the shape is wrong, or a row of `running` is not finite."""
        rows = self._per_robot(given, "the reward")
        if rows.dtype.kind not in "fiub":
            raise AgentError(f"the reward must be a number{self._each}, got {_shown(given)}")
        with np.errstate(over="ignore"):
            rewards = rows.astype(np.float32)
        wrong = ~np.isfinite(rewards) & running
        if wrong.any():
            raise AgentError(f"the reward is {rows[wrong][0]:.4g}{self._of_robot(wrong)}; it must be finite")
        return rewards

    def flags(self, given: Any, name: str) -> np.ndarray:
        """[K, 1] bool; AgentError where it is anything but True or False."""
        if given is False or given is True:
            return np.full((self.num_rows, 1), given)
        flags = self._per_robot(given, name)
        if flags.dtype != bool:
            raise AgentError(f"{name} must be True or False{self._each}, got {_shown(given)}")
        return flags

    def _flat_rows(self, given: Any, what: str) -> np.ndarray:
        shape = (self.obs_dim,) if self.num_robots is None else (self.num_rows, self.obs_dim)
        if isinstance(given, np.ndarray) and given.shape == shape and given.dtype.kind in "fiub":
            return given
        if self.num_robots is None:
            return self._flattened(given, what)
        if not isinstance(given, Sequence | np.ndarray) or isinstance(given, str) or len(given) != self.num_rows:
            raise AgentError(
                f"{what} must be one row per robot, an array {list(shape)} or a sequence of {self.num_rows}, "
                f"got {_shown(given)}"
            )
        return np.stack([self._flattened(row, f"{what} of robot {i}") for i, row in enumerate(given)])

    def _flattened(self, given: Any, what: str) -> np.ndarray:
        """One observation as numbers [O]; an array that is flat already is taken as such."""
        if isinstance(given, np.ndarray) and given.shape == (self.obs_dim,) and given.dtype.kind in "fiub":
            return given
        problem = f"{what} must be in {self.observation_space}"
        if not self._is_flat:
            problem += f", or be flat already, an array [{self.obs_dim}]"
        try:
            flat = np.asarray(given if self._is_flat else flatten(self.observation_space, given), dtype=np.float64)
        except Exception as error:  # whatever a space's own code raises at what it does not know
            raise AgentError(f"{problem}, got {_shown(given)}") from error
        if flat.shape != (self.obs_dim,):
            raise AgentError(f"{problem}, got {_shown(given)}")
        return flat

    def _per_robot(self, given: Any, what: str) -> np.ndarray:
        rows = np.asarray(given)
        shape: tuple[int, ...] = () if self.num_robots is None else (self.num_rows,)
        if rows.shape != shape:
            wanted = "a single value" if self.num_robots is None else f"one value per robot, {list(shape)}"
            raise AgentError(f"{what} must be {wanted}, got {_shown(given)}")
        return rows.reshape(self.num_rows, 1)

    def _refuse_not_finite(self, obs: np.ndarray, rows: np.ndarray, running: np.ndarray, what: str) -> None:
        wrong = ~np.isfinite(obs) & running[:, :, None]
        if wrong.any():
            k, _, dimension = (int(i) for i in np.argwhere(wrong)[0])
            value = rows.reshape(self.num_rows, -1)[k, dimension]
            too_large = ", too large for float32" if np.isfinite(value) else ""
            raise AgentError(
                f"{what} is {value:.4g}{too_large} in dimension {dimension}{self._of_robot(wrong)}; it must be finite"
            )

    @property
    def _each(self) -> str:
        return "" if self.num_robots is None else " for each robot"

    def _of_robot(self, wrong: np.ndarray) -> str:
        return "" if self.num_robots is None else f" for robot {int(np.argwhere(wrong)[0][0])}"

    # --- to the robot --------------------------------------------------------------------------------

    def action(self, actions: np.ndarray) -> Any:
        """What the robot gets of the policy's [K, 1, ...]: an action of its space, or one row per robot."""
        rows = self._to_robot(actions.reshape(self.num_rows, *actions.shape[2:]))
        if self._indexed:
            rows = np.stack([indexed.action(row) for indexed, row in zip(self._indexed, rows, strict=True)])
        return rows[0] if self.num_robots is None else rows

    def rows(self, values: np.ndarray) -> Any:
        """[K, ...] for a vector of robots, [...] for one."""
        return values[0] if self.num_robots is None else values


def _indexed(spaces: Sequence[gymnasium.Space]) -> list[IndexedActions]:
    """Every robot's actions by their index; [] where actions are not MultiDiscrete. TaskError where they differ."""
    found = [IndexedActions(space, "the robot") for space in spaces if isinstance(space, MultiDiscrete)]
    if found:
        require_same_kind(spaces, [f"robot {i}" for i in range(len(spaces))])
    return found


def _shown(given: Any) -> str:
    if isinstance(given, np.ndarray):
        return f"an array of shape {given.shape}, {given.dtype}"
    text = repr(given)
    return f"{type(given).__name__} {text if len(text) < 60 else text[:57] + '...'}"
