"""Task: one point of a task distribution, and the values that its parameters may have."""

from __future__ import annotations

import hashlib
import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from metarl.errors import TaskError

TaskParams = Mapping[str, np.ndarray]  # the values of n tasks by name, [n] or [n, size]
Value = float | tuple[float, ...]
Split = Literal["train", "test", "ood", "validation"]
SPLITS: tuple[Split, ...] = ("train", "test", "ood", "validation")  # seed paths hold indices: append only


@dataclass(frozen=True)
class Task:
    """Named parameter values of one task. Immutable, hashable, picklable.

    `items` keeps the order of the distribution's parameters; a vector-valued parameter is a tuple. Values are made
    plain: see `as_value`.
    """

    distribution: str
    items: tuple[tuple[str, Value], ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "items", tuple((name, as_value(value, name)) for name, value in self.items))

    @staticmethod
    def of(distribution: str, values: Mapping[str, Value]) -> Task:
        return Task(distribution, tuple(values.items()))

    def __getitem__(self, name: str) -> Value:
        for known, value in self.items:
            if known == name:
                return value
        raise KeyError(f"{self} has no parameter {name!r}")

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


class ComparedTask(Task):
    """A task of a comparison in which one parameter alone varies: in all else its runs are those of `base`.

    Its random numbers are those of `base`, and the parameter `varied` is never redrawn in mid-episode. It is equal to
    the plain task with the same values.
    """

    base: Task
    varied: str

    @staticmethod
    def with_value(base: Task, name: str, value: Value) -> ComparedTask:
        """`base` with another value of its parameter `name`."""
        task = ComparedTask(base.distribution, tuple({**base.values, name: value}.items()))
        object.__setattr__(task, "base", base)
        object.__setattr__(task, "varied", name)
        return task

    def fingerprint(self) -> int:
        return self.base.fingerprint()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Task) and (self.distribution, self.items) == (other.distribution, other.items)

    __hash__ = Task.__hash__


def params_of(tasks: Sequence[Task]) -> dict[str, np.ndarray]:
    """The values of tasks of one distribution by name, float64 [n] or [n, size]."""
    return {name: np.array([task[name] for task in tasks], dtype=np.float64) for name, _ in tasks[0].items}


def as_value(value: Any, name: str) -> Value:
    """`value` as a float, or as a tuple of floats. TaskError naming the parameter where it is neither.

    Allowed: finite numbers of Python and NumPy, booleans (as 0 and 1), and flat sequences or arrays of them.
    """
    if type(value) is float and math.isfinite(value):
        return value
    if type(value) is tuple and value and all(type(v) is float for v in value) and all(map(math.isfinite, value)):
        return value  # as priors draw them: the quick way for long ones
    if isinstance(value, np.ndarray):
        value = value.item() if value.ndim == 0 else value.tolist()
    if isinstance(value, list | tuple) and value and not any(isinstance(v, list | tuple) or np.ndim(v) for v in value):
        return tuple(_as_float(v, value, name) for v in value)
    return _as_float(value, value, name)


def _as_float(number: Any, value: Any, name: str) -> float:
    if isinstance(number, numbers.Real | np.bool_) and math.isfinite(number):
        return float(number)
    hint = "; name the cases in your environment and give their numbers here" if isinstance(number, str) else ""
    raise TaskError(
        f"parameter {name!r} = {value!r}: allowed are finite numbers, booleans (as 0 and 1) and flat sequences of "
        f"them{hint}"
    )


def _short(value: Value) -> str:
    if isinstance(value, tuple):
        head = ", ".join(f"{v:.4g}" for v in value[:4])
        return f"({head}{', ...' if len(value) > 4 else ''})"
    return f"{value:.4g}"
