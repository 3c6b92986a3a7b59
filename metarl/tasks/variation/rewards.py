"""Rewards that need no Python: `reward: {reach: {site: tip, target: target}}`, `reward: {forward: {body: torso}}`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from metarl.errors import TaskError, did_you_mean
from metarl.tasks.task import TaskParams


class _Reward(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)

    control_cost: float = 0.01

    def _cost(self, action: np.ndarray) -> np.ndarray:
        return np.asarray(self.control_cost * np.square(action).sum(axis=1))


class Reach(_Reward):
    """Minus the distance from one site to another [m], minus control_cost sum a^2."""

    site: str
    target: str

    def __call__(self, before: Any, action: np.ndarray, after: Any, task: TaskParams) -> np.ndarray:
        distance = np.linalg.norm(after.site(self.site) - after.site(self.target), axis=1)
        return np.asarray(-distance - self._cost(action))


class Forward(_Reward):
    """The distance that a body covers along x in a step [m], times `scale`, minus control_cost sum a^2."""

    body: str
    scale: float = 1.0

    def __call__(self, before: Any, action: np.ndarray, after: Any, task: TaskParams) -> np.ndarray:
        covered = after.body(self.body)[:, 0] - before.body(self.body)[:, 0]
        return np.asarray(self.scale * covered - self._cost(action))


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
