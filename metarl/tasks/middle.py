"""The middle of a prior: the value that a parameter is held at while others vary."""

from __future__ import annotations

import math

import numpy as np

from metarl.tasks.distribution import TaskDistribution
from metarl.tasks.priors import InDisc, LogUniform, Mixture, Prior, Simplex, Uniform
from metarl.tasks.task import Task, Value

_NUM_DRAWS = 1001


def middle(prior: Prior) -> Value:
    """The middle of the range: of a LogUniform in logarithms; of a disc halfway out at half its angle; a Choice's
    first value, which families give the usual case; of a Mixture that of its first part; else the draw nearest to the
    median of 1001."""
    if isinstance(prior, LogUniform):
        return _sized(math.sqrt(prior.low * prior.high), prior.size)
    if isinstance(prior, Uniform):
        return _sized((prior.low + prior.high) / 2, prior.size)
    if isinstance(prior, Mixture):
        return middle(prior.parts[0])
    if isinstance(prior, Simplex):
        return (1.0 / prior.size,) * (prior.size * prior.rows)
    if isinstance(prior, InDisc):
        radius, angle = (prior.inner + prior.radius) / 2, (prior.angle_low + prior.angle_high) / 2
        return (radius * math.cos(angle), radius * math.sin(angle))
    if prior.options is not None:
        return prior.options[0]
    rng = np.random.Generator(np.random.Philox(0))
    draws = [prior.sample(rng) for _ in range(_NUM_DRAWS)]
    table = np.array(draws, dtype=np.float64).reshape(_NUM_DRAWS, -1)
    return draws[int(np.argmin(np.abs(table - np.median(table, axis=0)).sum(axis=1)))]


def middle_task(distribution: TaskDistribution) -> Task:
    """The task all of whose parameters have the middle of their training range."""
    return Task.of(distribution.name, {p.name: middle(p.prior) for p in distribution.parameters})


def _sized(value: float, size: int | None) -> Value:
    return value if size is None else (value,) * size
