"""Trials compared bit by bit, and the local executor's to compare with."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from metarl.rollout.executor import Executor
from metarl.rollout.local import LocalExecutor
from metarl.rollout.types import TrialBatch
from tests.distributed.processes import HANG_S
from tests.toy import Point, make_units, point_policy

WEIGHTS = point_policy().initial_weights()


def reference(num_units: int, version: int = 0, seed: int = 0) -> list[TrialBatch]:
    """What the toy distribution's units yield in this process."""
    return LocalExecutor(Point(), point_policy()).collect(make_units(Point(), num_units, seed=seed), WEIGHTS, version)


def take_all(executor: Executor, num: int) -> list[TrialBatch]:
    """The next `num` trials that get ready, in the order they do."""
    trials: list[TrialBatch] = []
    while len(trials) < num:
        got = executor.ready(HANG_S)
        assert got
        trials += got
    return trials


def assert_same(ours: Sequence[TrialBatch], theirs: Sequence[TrialBatch]) -> None:
    """The same trials: every array of every round has the same bytes."""
    assert [(t.unit, t.tasks, t.weights_version) for t in ours] == [
        (t.unit, t.tasks, t.weights_version) for t in theirs
    ]
    for a, b in zip(ours, theirs, strict=True):
        for round_a, round_b in zip(a.rounds, b.rounds, strict=True):
            for field in dataclasses.fields(round_a):
                x, y = getattr(round_a, field.name), getattr(round_b, field.name)
                if isinstance(x, dict):
                    assert x.keys() == y.keys()
                    for name in x:
                        _same_array(x[name], y[name], f"unit {a.unit} {field.name}[{name}]")
                elif x is None:
                    assert y is None, field.name
                else:
                    _same_array(x, y, f"unit {a.unit} {field.name}")


def _same_array(x: np.ndarray, y: np.ndarray, where: str) -> None:
    assert (x.shape, x.dtype) == (y.shape, y.dtype), where
    assert x.tobytes() == y.tobytes(), where
