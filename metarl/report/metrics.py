"""A run's metrics.jsonl as curves: one JSON record per line, of training or of an evaluation."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from metarl.errors import MetarlError

_ROUND = "return/round"


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

    Of several records of one iteration (a run resumed from an earlier checkpoint) the last counts. A last line cut
    off by a kill is left out. MetarlError naming the file and line otherwise, or where there is nothing to draw.
    """
    curves: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
    for record in _records(path):
        kind, split = record.get("kind"), str(record.get("split", ""))
        if kind in ("train", "evaluation") and any(key.startswith(_ROUND) for key in record):
            curves.setdefault((kind, split if kind == "evaluation" else ""), {})[record["iteration"]] = record
    if not curves:
        raise MetarlError(f"{path}: holds no training or evaluation record with {_ROUND}0")
    train = curves.pop(("train", ""), None)
    return Run(
        path.resolve().parent.name,
        _curve(train) if train else None,
        {split: _curve(records) for (_, split), records in sorted(curves.items())},
    )


def _records(path: Path) -> list[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise MetarlError(f"{path}: no such metrics file") from None
    records: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            if not (isinstance(record, dict) and {"kind", "iteration", "env_steps"} <= record.keys()):
                raise MetarlError(f"{path}, line {number}: a record needs kind, iteration and env_steps")
            records.append(record)
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise MetarlError(f"{path}, line {number}: not JSON ({error})") from error
    return records


def _curve(records: dict[int, dict[str, Any]]) -> Curve:
    ordered = [records[iteration] for iteration in sorted(records)]
    num_rounds = max(sum(key.startswith(_ROUND) for key in record) for record in ordered)
    returns = [[record.get(f"{_ROUND}{r}", float("nan")) for r in range(num_rounds)] for record in ordered]
    return Curve(
        np.array([record["env_steps"] for record in ordered], dtype=np.float64), np.array(returns, dtype=np.float64)
    )
