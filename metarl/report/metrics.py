"""A run's records as curves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from metarl.errors import MetarlError
from metarl.runs.records import Record, read_records, returns_of


@dataclass(frozen=True)
class Curve:
    """Mean return of every round against environment steps."""

    env_steps: Float[np.ndarray, " P"]
    returns: Float[np.ndarray, "P R"]  # NaN where a record holds no such round

    @property
    def ends(self) -> Float[np.ndarray, "P 2"]:
        """The first and the last round of each record."""
        last = np.sum(~np.isnan(self.returns), axis=1) - 1
        return np.stack((self.returns[:, 0], self.returns[np.arange(len(last)), last]), axis=1)


@dataclass(frozen=True)
class Run:
    """One run's curves; None or no entry where the file holds no such record."""

    name: str
    train: Curve | None
    evaluations: dict[str, Curve]  # by split


def read_run(path: Path) -> Run:
    """Read metrics.jsonl; the run is named after its folder.

    Of several records of one iteration (a run resumed from an earlier checkpoint) the last counts; lines that are no
    record are skipped. MetarlError where there is no such file or nothing to draw.
    """
    if not path.is_file():
        raise MetarlError(f"{path}: no such metrics file")
    curves: dict[tuple[str, str], dict[int, Record]] = {}
    for record in read_records(path):
        kind, split = record["kind"], str(record.get("split", ""))
        if kind in ("train", "evaluation") and returns_of(record):
            curves.setdefault((kind, split if kind == "evaluation" else ""), {})[record["iteration"]] = record
    if not curves:
        raise MetarlError(f"{path}: holds no training or evaluation record with returns")
    train = curves.pop(("train", ""), None)
    return Run(
        path.resolve().parent.name,
        _curve(train) if train else None,
        {split: _curve(records) for (_, split), records in sorted(curves.items())},
    )


def _curve(records: dict[int, Record]) -> Curve:
    ordered = [records[iteration] for iteration in sorted(records)]
    rows = [returns_of(record) for record in ordered]
    returns = np.full((len(rows), max(map(len, rows))), np.nan)
    for row, values in zip(returns, rows, strict=True):
        row[: len(values)] = values
    return Curve(np.array([record["env_steps"] for record in ordered], dtype=np.float64), returns)
