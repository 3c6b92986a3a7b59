"""Where experiments lie, and what a run leaves, to compare runs by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from metarl.runs import checkpoint
from metarl.runs.records import METRICS, TIMINGS, read_records

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


def records_of(run: Path) -> list[dict[str, Any]]:
    """The records, but for what a clock says."""
    records = read_records(run / METRICS)
    return [{name: value for name, value in record.items() if name not in TIMINGS} for record in records]


def left_by(run: Path, iteration: int) -> tuple[dict[str, bytes], dict[str, Any], list[dict[str, Any]]]:
    """Everything that must repeat bit by bit: the tensors and counters saved at `iteration`, and the records."""
    saved = checkpoint.load_latest(run / "checkpoints")
    assert saved.iteration == iteration
    tensors = {f"{name} {value.dtype}": value.numpy().tobytes() for name, value in saved.tensors.items()}
    return tensors, {**saved.meta, "wall_s": 0}, records_of(run)
