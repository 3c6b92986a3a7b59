"""Trials compared bit by bit."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from metarl.experience import Trial


def assert_same(ours: Sequence[Trial], theirs: Sequence[Trial]) -> None:
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
                else:
                    _same_array(x, y, f"unit {a.unit} {field.name}")


def _same_array(x: np.ndarray, y: np.ndarray, where: str) -> None:
    assert (x.shape, x.dtype) == (y.shape, y.dtype), where
    assert x.tobytes() == y.tobytes(), where
