"""Observations of several parts, and where each part lies once they are flattened."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gymnasium
from gymnasium.spaces import Dict, Tuple
from gymnasium.spaces.utils import flatdim
from gymnasium.wrappers import FlattenObservation


@dataclass(frozen=True)
class Part:
    """A part of a flat observation, at the places `first` to `last`, both included.

    path: the keys that lead to it, joined by slashes; of a Tuple the number of the part.
    """

    path: str
    space: gymnasium.Space
    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.path} {self.first}" if self.first == self.last else f"{self.path} {self.first}-{self.last}"


def nested_space(env: gymnasium.Env) -> gymnasium.Space:
    """The space of the observations of `env` before a wrapper flattened them; its own space where none did."""
    return before_flattening(env).observation_space


def before_flattening(env: gymnasium.Env) -> gymnasium.Env:
    """What gives the observations that a wrapper of `env` flattens; `env` itself where none does.

    Wrappers that flatten are Gymnasium's FlattenObservation and those whose class has `flattens_observations`. Another
    wrapper of observations may change more than their form: what it gives is the robot's observation.
    """
    layer: Any = env
    while isinstance(layer, gymnasium.Wrapper) and layer.observation_space == env.observation_space:
        if isinstance(layer, FlattenObservation) or getattr(type(layer), "flattens_observations", False):
            return before_flattening(layer.env)
        if isinstance(layer, gymnasium.ObservationWrapper):
            break
        layer = layer.env
    return env


def parts_of(space: gymnasium.Space) -> tuple[Part, ...]:
    """The parts of a Dict or Tuple in the order in which they are flattened; none of any other space."""
    parts, start = [], 0
    for keys, leaf in _leaves(space, ()):
        size = int(flatdim(leaf))
        if keys and size:
            parts.append(Part("/".join(keys), leaf, start, start + size - 1))
        start += size
    return tuple(parts)


def _leaves(space: gymnasium.Space, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], gymnasium.Space]]:
    """Every space in `space` that is neither Dict nor Tuple, with the keys that lead to it."""
    if not isinstance(space, Dict | Tuple):
        yield keys, space
        return
    named = space.spaces.items() if isinstance(space, Dict) else enumerate(space.spaces)
    for key, part in named:
        yield from _leaves(part, (*keys, str(key)))
