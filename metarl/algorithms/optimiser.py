"""An optimiser's learning rate by schedule, and its moments as named tensors for exact resume."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from metarl.algorithms.base import Schedule

_PREFIX = "adam."


def set_lr(optimiser: torch.optim.Optimizer, lr: float, schedule: Schedule, progress: float) -> float:
    """Set the learning rate at `progress` in [0, 1] of the run, and return it: `linear` falls to 0 at the end."""
    now = lr if schedule == "constant" else lr * max(0.0, 1.0 - progress)
    for group in optimiser.param_groups:
        group["lr"] = now
    return now


def moments_of(optimiser: torch.optim.Optimizer, names: Iterable[str]) -> dict[str, Tensor]:
    """`adam.{name}.{moment}` of every parameter; `names` in the order that the optimiser was given them."""
    moments = optimiser.state_dict()["state"]
    return {
        f"{_PREFIX}{name}.{key}": value for i, name in enumerate(names) for key, value in moments.get(i, {}).items()
    }


def load_moments(optimiser: torch.optim.Optimizer, names: Iterable[str], state: Mapping[str, Tensor]) -> None:
    """Put back what `moments_of` gave."""
    moments = {}
    for i, name in enumerate(names):
        prefix = f"{_PREFIX}{name}."
        moments[i] = {key.removeprefix(prefix): value.clone() for key, value in state.items() if key.startswith(prefix)}
    settings = optimiser.state_dict()
    optimiser.load_state_dict({**settings, "state": {i: m for i, m in moments.items() if m}})
