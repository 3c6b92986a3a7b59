"""Where every random number comes from: one function per seed path, and no global generator anywhere.

    training     tasks (seed, iteration)            unit (seed, 0, iteration, unit)
    evaluation   tasks (seed, 1, 1)                 unit (seed, 1, split, unit)
    task pool    the pool (seed, 0)                 an iteration's part of it (seed, 2, iteration)
    deployment   the actions of an agent (seed, 3, 1)
    learner      an update: one integer of (seed, number of updates)

NumPy pads seed sequences with zeros, so that (s, 1) and (s, 1, 0) are the same stream: paths that must differ never
differ by trailing zeros alone.
"""

from __future__ import annotations

import numpy as np

from metarl.tasks import SPLITS, Split

SeedPath = tuple[int, ...]


def training_tasks(seed: int, iteration: int) -> SeedPath:
    """The fresh tasks of a training iteration."""
    return (seed, iteration)


def task_pool(seed: int) -> SeedPath:
    """The fixed pool of training tasks of an algorithm that has one."""
    return (seed, 0)


def pool_draw(seed: int, iteration: int) -> np.random.Generator:
    """Which tasks of the pool an iteration collects on."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, 2, iteration])))


def training_unit(seed: int, iteration: int, unit: int) -> SeedPath:
    """The environments and actions of a training unit."""
    return (seed, 0, iteration, unit)


def evaluation_tasks(seed: int) -> SeedPath:
    """The tasks of an evaluation; the same at every iteration of the weights."""
    return (seed, 1, 1)


def evaluation_unit(seed: int, split: Split, unit: int) -> SeedPath:
    """The environments and actions of an evaluation's unit."""
    return (seed, 1, SPLITS.index(split), unit)


def deployment(seed: int) -> SeedPath:
    """The actions of an agent, over all its tasks."""
    return (seed, 3, 1)


def generators(path: SeedPath) -> tuple[np.random.Generator, np.random.Generator]:
    """The environments' generator and the policy's, independent of each other, of a unit's seed path."""
    environments, policy = np.random.SeedSequence(path).spawn(2)
    return np.random.Generator(np.random.Philox(environments)), np.random.Generator(np.random.Philox(policy))


def update(seed: int, num_updates: int) -> int:
    """The seed of an update's generator on the learner's device, below 2^63."""
    return (seed * 1_000_003 + num_updates) % 2**63
