"""Priors over one task parameter: sample, membership, and the finite support where there is one."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from metarl.errors import TaskError
from metarl.tasks.task import Value, as_value

_TOLERANCE = 1e-9
_NUM_DRAWS = 1000  # for the range of a prior that is none of ours


@runtime_checkable
class Prior(Protocol):
    """A distribution over one parameter's value: a float, or a tuple of floats of fixed length."""

    @property
    def options(self) -> tuple[Value, ...] | None:
        """The finite support, or None where the prior is continuous."""
        ...

    @property
    def measure(self) -> float:
        """Size of the support; weighs the parts of a `Mixture`."""
        ...

    def sample(self, rng: np.random.Generator) -> Value: ...

    def contains(self, value: Value) -> bool: ...

    def __str__(self) -> str: ...


@dataclass(frozen=True)
class Uniform:
    """U[low, high] per component; `size` components form a tuple, `size=None` is a plain float."""

    low: float
    high: float
    size: int | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            name = type(self).__name__
            raise TaskError(f"{name}: low must be below high and both finite, got {self.low}, {self.high}")

    @property
    def options(self) -> None:
        return None

    @property
    def measure(self) -> float:
        return self.high - self.low

    def sample(self, rng: np.random.Generator) -> Value:
        return _value(rng.uniform(self.low, self.high, self.size))

    def contains(self, value: Value) -> bool:
        values = np.asarray(value)
        within = (self.low - _TOLERANCE <= values) & (values <= self.high + _TOLERANCE)
        return _has_size(value, self.size) and bool(within.all())

    def __str__(self) -> str:
        return f"U[{self.low:g}, {self.high:g}]" + (f"^{self.size}" if self.size else "")


@dataclass(frozen=True)
class LogUniform(Uniform):
    """exp U[log low, log high]: multipliers that halve as often as they double. 0 < low < high."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low <= 0:
            raise TaskError(f"LogUniform: low must be positive, got {self.low}")

    @property
    def measure(self) -> float:
        return math.log(self.high / self.low)

    def sample(self, rng: np.random.Generator) -> Value:
        return _value(np.exp(rng.uniform(math.log(self.low), math.log(self.high), self.size)))

    def __str__(self) -> str:
        return "log" + super().__str__()


@dataclass(frozen=True)
class Choice:
    """One of finitely many values, each as likely and given once; the entries of an array are its rows.

    Values are made floats or tuples of floats. What cannot be is refused by the `Parameter`, which has a name.
    """

    values: tuple[Value, ...]

    def __init__(self, values: Sequence[Any] | np.ndarray):
        object.__setattr__(self, "values", tuple(_plain(value) for value in values))
        if not self.values:
            raise TaskError("Choice: needs at least one value")
        _require_once(self.values, "Choice")

    @property
    def options(self) -> tuple[Value, ...]:
        return self.values

    @property
    def measure(self) -> float:
        return float(len(self.values))

    def sample(self, rng: np.random.Generator) -> Value:
        return self.values[int(rng.integers(len(self.values)))]

    def contains(self, value: Value) -> bool:
        alike = [v for v in self.values if np.shape(v) == np.shape(value)]
        if not alike:
            return False
        same = np.isclose(value, alike, atol=_TOLERANCE)
        return bool(same.reshape(len(alike), -1).all(axis=1).any())

    def __str__(self) -> str:
        return "{" + ", ".join(f"{v:g}" if isinstance(v, (int, float)) else str(v) for v in self.values) + "}"


@dataclass(frozen=True)
class OnSphere:
    """Uniform on the sphere of the given radius in `dim` dimensions; a tuple of `dim` floats."""

    dim: int
    radius: float = 1.0

    @property
    def options(self) -> None:
        return None

    @property
    def measure(self) -> float:
        return self.radius ** (self.dim - 1)

    def sample(self, rng: np.random.Generator) -> Value:
        direction = rng.standard_normal(self.dim)
        return _value(self.radius * direction / np.linalg.norm(direction))

    def contains(self, value: Value) -> bool:
        return _has_size(value, self.dim) and abs(float(np.linalg.norm(value)) - self.radius) <= 1e-6

    def __str__(self) -> str:
        return f"sphere(dim={self.dim}, r={self.radius:g})"


@dataclass(frozen=True)
class InDisc:
    """Uniform over the ring inner <= r <= radius in the plane, optionally a sector; a tuple (x, y)."""

    radius: float
    inner: float = 0.0
    angle_low: float = 0.0
    angle_high: float = 2 * math.pi

    def __post_init__(self) -> None:
        if not 0 <= self.inner <= self.radius or self.radius <= 0:
            raise TaskError(f"InDisc: needs 0 <= inner <= radius, got inner={self.inner}, radius={self.radius}")

    @property
    def options(self) -> None:
        return None

    @property
    def measure(self) -> float:
        return (self.angle_high - self.angle_low) * (self.radius**2 - self.inner**2) / 2

    def sample(self, rng: np.random.Generator) -> Value:
        angle = rng.uniform(self.angle_low, self.angle_high)
        r = math.sqrt(rng.uniform(self.inner**2, self.radius**2))
        return (r * math.cos(angle), r * math.sin(angle))

    def contains(self, value: Value) -> bool:
        if not _has_size(value, 2):
            return False
        x, y = np.asarray(value, dtype=np.float64)
        angle = (math.atan2(y, x) - self.angle_low) % (2 * math.pi)
        within_sector = angle <= self.angle_high - self.angle_low + _TOLERANCE or angle >= 2 * math.pi - _TOLERANCE
        return within_sector and self.inner - _TOLERANCE <= math.hypot(x, y) <= self.radius + _TOLERANCE

    def __str__(self) -> str:
        return f"disc(r in [{self.inner:g}, {self.radius:g}])"


@dataclass(frozen=True)
class Simplex:
    """`rows` probability vectors of `size` entries, each uniform on the simplex; a tuple of rows * size floats."""

    size: int
    rows: int = 1

    def __post_init__(self) -> None:
        if self.size < 2 or self.rows < 1:
            raise TaskError(f"Simplex: needs size >= 2 and rows >= 1, got size={self.size}, rows={self.rows}")

    @property
    def options(self) -> None:
        return None

    @property
    def measure(self) -> float:
        return 1.0

    def sample(self, rng: np.random.Generator) -> Value:
        return _value(rng.dirichlet(np.ones(self.size), self.rows).ravel())

    def contains(self, value: Value) -> bool:
        if not _has_size(value, self.rows * self.size):
            return False
        rows = np.reshape(value, (self.rows, self.size))
        return bool((rows >= 0).all() and np.allclose(rows.sum(axis=1), 1.0, atol=_TOLERANCE))

    def __str__(self) -> str:
        return f"simplex({self.size})^{self.rows}"


@dataclass(frozen=True)
class Mixture:
    """One of several priors, chosen in proportion to its measure; for ranges with a gap. No value is in two choices."""

    parts: tuple[Prior, ...]

    def __init__(self, *parts: Prior):
        object.__setattr__(self, "parts", tuple(parts))
        if not self.parts:
            raise TaskError("Mixture: needs at least one prior")
        finite = [part.options or () for part in self.parts if isinstance(part, Choice | Mixture)]
        _require_once([value for options in finite for value in options], "Mixture")

    @property
    def options(self) -> tuple[Value, ...] | None:
        options = [part.options for part in self.parts]
        return tuple(v for part in options if part is not None for v in part) if None not in options else None

    @property
    def measure(self) -> float:
        return sum(part.measure for part in self.parts)

    def sample(self, rng: np.random.Generator) -> Value:
        weights = np.array([part.measure for part in self.parts])
        return self.parts[int(rng.choice(len(self.parts), p=weights / weights.sum()))].sample(rng)

    def contains(self, value: Value) -> bool:
        return any(part.contains(value) for part in self.parts)

    def __str__(self) -> str:
        return " or ".join(str(part) for part in self.parts)


def ends_of(prior: Prior) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and the highest value of each component, [1] where they are alike."""
    if isinstance(prior, Uniform):  # LogUniform too
        return np.array([prior.low]), np.array([prior.high])
    if isinstance(prior, Simplex):
        return np.zeros(1), np.ones(1)
    if isinstance(prior, InDisc | OnSphere):
        return np.array([-prior.radius]), np.array([prior.radius])
    if isinstance(prior, Mixture):
        lows, highs = zip(*(ends_of(part) for part in prior.parts), strict=True)
        return np.array(np.broadcast_arrays(*lows)).min(axis=0), np.array(np.broadcast_arrays(*highs)).max(axis=0)
    values: Sequence[Value] | None = prior.options
    if values is None:
        rng = np.random.Generator(np.random.Philox(0))
        values = [prior.sample(rng) for _ in range(_NUM_DRAWS)]
    table = np.array(values, dtype=np.float64).reshape(len(values), -1)
    return table.min(axis=0), table.max(axis=0)


def is_log(prior: Prior) -> bool:
    """Whether its values are compared by their logarithms."""
    return isinstance(prior, LogUniform) or (isinstance(prior, Mixture) and all(is_log(part) for part in prior.parts))


def require_prior(prior: Any, name: str) -> None:
    """TaskError naming the parameter where `prior` is none, or offers values that no parameter may have."""
    if not isinstance(prior, Prior) or isinstance(prior, type):
        raise TaskError(
            f"parameter {name!r}: needs a prior such as Uniform(0.5, 2.0) or Choice((1.0, 2.0)), got {prior!r}"
        )
    for part in prior.parts if isinstance(prior, Mixture) else ():
        require_prior(part, name)
    options = prior.options or ()
    shapes = {np.shape(as_value(option, name)) for option in options}
    if len(shapes) > 1:
        raise TaskError(f"parameter {name!r}: its values must all have the same size, got {prior}")


def _require_once(values: Sequence[Any], who: str) -> None:
    """TaskError where a value is repeated: tasks would be counted twice. What is no value is not looked at."""
    counts = Counter(value for value in values if _is_value(value))
    for value, count in counts.items():
        if count > 1:
            shown = f"{value:g}" if isinstance(value, float) else str(value)
            raise TaskError(f"{who}: the value {shown} is given {count} times; allowed is each value once")


def _is_value(value: Any) -> bool:
    try:
        as_value(value, "")
    except TaskError:
        return False
    return True


def _plain(value: Any) -> Any:
    try:
        return as_value(value, "")
    except TaskError:
        return value


def _value(sampled: float | np.ndarray) -> Value:
    return tuple(float(v) for v in sampled) if isinstance(sampled, np.ndarray) else float(sampled)


def _has_size(value: Value, size: int | None) -> bool:
    return np.ndim(value) == 0 if size is None else np.shape(value) == (size,)
