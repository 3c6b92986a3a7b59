"""Task: one point of a task distribution."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

Value = float | tuple[float, ...]
Split = Literal["train", "test", "ood"]
SPLITS: tuple[Split, ...] = ("train", "test", "ood")


@dataclass(frozen=True)
class Task:
    """Named parameter values of one task. Immutable, hashable, picklable.

    `items` keeps the order of the distribution's parameters; a vector-valued parameter is a tuple.
    """

    distribution: str
    items: tuple[tuple[str, Value], ...]

    @staticmethod
    def of(distribution: str, values: Mapping[str, Value]) -> Task:
        return Task(distribution, tuple(values.items()))

    def __getitem__(self, name: str) -> Value:
        return self.values[name]

    @property
    def values(self) -> dict[str, Value]:
        return dict(self.items)

    def vector(self) -> np.ndarray:
        """All parameter values one after the other, float64 [P]."""
        return np.concatenate([np.atleast_1d(np.asarray(value, dtype=np.float64)) for _, value in self.items])

    def fingerprint(self) -> int:
        """A 64-bit hash of the values alone, the same on every machine and in every process."""
        return int.from_bytes(hashlib.blake2b(self.vector().tobytes(), digest_size=8).digest(), "big")

    def __str__(self) -> str:
        return f"{self.distribution}({', '.join(f'{name}={_short(value)}' for name, value in self.items)})"


def _short(value: Value) -> str:
    if isinstance(value, tuple):
        head = ", ".join(f"{v:.4g}" for v in value[:4])
        return f"({head}{', ...' if len(value) > 4 else ''})"
    return f"{value:.4g}"
