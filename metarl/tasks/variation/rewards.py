"""Rewards that need no Python: `reward: {reach: {site: tip, target: target}}`, `reward: {forward: {body: torso}}`.

Both are per step, and both subtract `control_cost` times the effort, the sum over all actuators of

    ((a - rest) / (the farthest that a can be from rest))^2            rest: 0, or the end of ctrlrange nearest to 0

which is 0 at rest and 1 per actuator at full control, whatever unit its control has. a is what reached the actuator.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from metarl.errors import TaskError, did_you_mean
from metarl.tasks.task import TaskParams


def effort(action: np.ndarray, ctrlrange: np.ndarray) -> np.ndarray:
    """[n] for actions [n, nu]: 0 at rest, 1 for each actuator at the end of its range [nu, 2] farthest from rest."""
    low, high = ctrlrange.T
    rest = np.clip(0.0, low, high)
    return np.asarray(np.square((action - rest) / np.maximum(high - rest, rest - low)).sum(axis=1))


class _Reward(BaseModel):
    """control_cost: what full control of one actuator costs per step, in the reward's unit (0.01)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)

    control_cost: float = 0.01

    def _cost(self, action: np.ndarray, model: Any) -> np.ndarray:
        return np.asarray(self.control_cost * effort(action, model.actuator_ctrlrange))


class Reach(_Reward):
    """Minus the distance from one site to another [m], minus control_cost x effort.

    site, target: names of sites of the model. control_cost: metres per actuator at full control (0.01).
    """

    site: str
    target: str

    def __call__(self, before: Any, action: np.ndarray, after: Any, task: TaskParams) -> np.ndarray:
        distance = np.linalg.norm(after.site(self.site) - after.site(self.target), axis=1)
        return np.asarray(-distance - self._cost(action, after.model))


class Forward(_Reward):
    """The distance that a body covers along the world's x in a step [m], times `scale`, minus control_cost x effort.

    body: name of a body of the model. scale: reward per metre (1); 1 / (timestep x frame_skip) makes it the velocity in
    m/s. control_cost: reward per actuator at full control (0.01), not multiplied by `scale`.
    """

    body: str
    scale: float = 1.0

    def __call__(self, before: Any, action: np.ndarray, after: Any, task: TaskParams) -> np.ndarray:
        covered = after.body(self.body)[:, 0] - before.body(self.body)[:, 0]
        return np.asarray(self.scale * covered - self._cost(action, after.model))


REWARDS: dict[str, type[_Reward]] = {"reach": Reach, "forward": Forward}


def declared_reward(content: Mapping[str, Any]) -> Any:
    """The reward that a section names; TaskError naming what is wrong with it."""
    if len(content) != 1 or next(iter(content)) not in REWARDS:
        kinds = " or ".join(f"{{{name}: {{{', '.join(kind.model_fields)}}}}}" for name, kind in REWARDS.items())
        hint = did_you_mean(next(iter(content), ""), REWARDS)
        raise TaskError(f"reward = {dict(content)}: {hint}allowed: {kinds}, or module:function")
    name, values = next(iter(content.items()))
    kind = REWARDS[name]
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, ("reward", name, *first["loc"])))
        raise TaskError(f"{where}: {first['msg']}; keys here: {', '.join(kind.model_fields)}") from error
