"""Whole trials as sequences: episodes joined end to end, padding at the end alone. NumPy.

Letters: B rows (tasks x streams, unit by unit), T steps of the longest trial, R rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from metarl.rollout.types import Episodes, Round


@dataclass(frozen=True)
class Sequences:
    """A trial per row. What pads is zero, and comes after the row's last real step."""

    observations: np.ndarray  # [B, T, O]
    actions: np.ndarray  # [B, T, A], or [B, T] int64
    rewards: np.ndarray  # [B, T]
    is_first: np.ndarray  # [B, T] bool: an episode's first step
    mask: np.ndarray  # [B, T] bool
    extras: dict[str, np.ndarray]  # [B, T, ...] what `act` logged
    lengths: np.ndarray  # [B, R] int64: steps of each episode
    terminated: np.ndarray  # [B, R] bool: the episode ended in a terminal state; where False, time ran out

    @staticmethod
    def of(rounds: Sequence[Sequence[Episodes]]) -> Sequences:
        """Join the rounds of each unit (`rounds[unit][round]`) in time, and the trials of all units as rows.

        A round's arrays are equally long in all units (`metarl.rollout.padding`).
        """

        def join(get: Callable[[Episodes], np.ndarray]) -> np.ndarray:
            return np.concatenate([np.concatenate([_rows(get(r)) for r in unit], axis=1) for unit in rounds])

        mask = join(lambda r: r.mask)
        order = np.argsort(~mask, axis=1, kind="stable")[:, : mask.sum(axis=1).max()]
        is_packed = bool(mask.all())

        def pack(array: np.ndarray) -> np.ndarray:
            if is_packed:
                return array
            return np.take_along_axis(array, order.reshape(*order.shape, *[1] * (array.ndim - 2)), axis=1)

        return Sequences(
            observations=pack(join(lambda r: r.observations)),
            actions=pack(join(lambda r: r.actions)),
            rewards=pack(join(lambda r: r.rewards)),
            is_first=pack(join(_first_steps)),
            mask=pack(mask),
            extras={name: pack(join(partial(_logged, name=name))) for name in rounds[0][0].extras},
            lengths=_per_episode(rounds, lambda r: r.lengths),
            terminated=_per_episode(rounds, lambda r: r.terminated),
        )


def derived_per_episode(rounds: Sequence[Sequence[Round]], name: str) -> np.ndarray:
    """What every `end_round` derived per task and stream, as rows [B, R]."""
    return _per_episode(rounds, lambda r: r.derived[name])


def _per_episode(rounds: Sequence[Sequence[Any]], get: Callable[[Any], np.ndarray]) -> np.ndarray:
    """One value [K, N] of each episode, as rows [B, R]."""
    return np.concatenate([np.stack([_rows(get(r)) for r in unit], axis=1) for unit in rounds])


def _rows(array: np.ndarray) -> np.ndarray:
    """[K, N, ...] as [K N, ...]."""
    return array.reshape(-1, *array.shape[2:])


def _first_steps(episodes: Episodes) -> np.ndarray:
    first = np.zeros(episodes.rewards.shape, bool)
    first[:, :, 0] = True
    return first


def _logged(episodes: Episodes, name: str) -> np.ndarray:
    return episodes.extras[name]
