"""The records of a run: what metrics.jsonl and TensorBoard hold, one record per iteration and per evaluation.

every record     kind (train or evaluation), iteration, env_steps, wall_s, return/round0, return/round1, ...
of training      the algorithm's metrics, weights_lag, sample_s, learn_s, other_s, env_steps_per_s
of evaluations   split, num_tasks, env_steps_used, evaluate_s; gain, gain_ci95 where rounds can be compared
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from metarl.errors import TrainingError
from metarl.evaluation.evaluate import Evaluation
from metarl.files import naming, write_text

Record = dict[str, Any]
METRICS = "metrics.jsonl"
TIMINGS = ("wall_s", "sample_s", "learn_s", "other_s", "env_steps_per_s", "evaluate_s")  # all else repeats exactly
_ROUND = "return/round"
_NEEDED = {"kind": str, "iteration": int, "env_steps": int}
_log = logging.getLogger(__name__)


# --- what records hold -------------------------------------------------------------------------------


def train_record(
    iteration: int,
    env_steps: int,
    returns: Sequence[float],
    metrics: Mapping[str, float],
    timings: Mapping[str, float],
    weights_lag: int,
) -> Record:
    """The record of a training iteration. `returns`: mean undiscounted return of each round.

    TrainingError where a metric has a name that records use themselves.
    """
    record: Record = {"kind": "train", "iteration": iteration, "env_steps": env_steps, **_rounds(returns)}
    own = {"weights_lag": weights_lag, **timings}
    taken = [name for name in metrics if name in record or name in own]
    if taken:
        raise TrainingError(f"the algorithm's metrics {', '.join(taken)}: records use these names; choose others")
    return record | {name: float(value) for name, value in metrics.items()} | own


def evaluation_record(evaluation: Evaluation, env_steps: int, wall_s: float, evaluate_s: float) -> Record:
    """The record of an evaluation made during training. `env_steps`: of training so far.

    It has a gain where the policy adapts between rounds and its first and last rounds act alike.
    """
    gain = evaluation.last_minus_first if evaluation.adapts == "between" else None
    return {
        "kind": "evaluation",
        "iteration": evaluation.iteration,
        "env_steps": env_steps,
        "split": evaluation.split,
        "num_tasks": evaluation.num_tasks,
        **_rounds([score.mean for score in evaluation.rounds]),
        "env_steps_used": evaluation.env_steps,
        **({} if gain is None else {"gain": gain.mean, "gain_ci95": list(gain.ci95)}),
        "wall_s": wall_s,
        "evaluate_s": evaluate_s,
    }


def returns_of(record: Mapping[str, Any]) -> list[float]:
    """The mean return of every round, in order; empty where the record holds none."""
    returns: list[float] = []
    while f"{_ROUND}{len(returns)}" in record:
        returns.append(float(record[f"{_ROUND}{len(returns)}"]))
    return returns


def _rounds(returns: Sequence[float]) -> Record:
    return {f"{_ROUND}{index}": float(value) for index, value in enumerate(returns)}


# --- reading and writing -----------------------------------------------------------------------------


def read_records(path: Path) -> list[Record]:
    """All whole records of a metrics file, in its order; none where there is no file.

    Lines that are no record (what a power cut leaves) are skipped with a warning; a last line cut off by a kill
    without one.
    """
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    records: list[Record] = []
    for number, line in enumerate(lines, start=1):
        record = _parsed(line)
        if record is not None:
            records.append(record)
        elif line.strip() and number < len(lines):
            _log.warning("%s, line %d: no record, skipped: %.40r", path, number, line)
    return records


def _parsed(line: str) -> Record | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    is_record = isinstance(record, dict) and all(isinstance(record.get(key), kind) for key, kind in _NEEDED.items())
    return record if is_record else None


class RecordWriter:
    """Appends records to metrics.jsonl and TensorBoard. Get one from `open_records`."""

    def __init__(self, path: Path, board: SummaryWriter):
        self._path, self._board = path, board
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115  (open_records closes it)

    def write(self, record: Mapping[str, Any]) -> None:
        """Append a record. Its values must be finite."""
        line = json.dumps(record, allow_nan=False) + "\n"
        with naming(self._path):
            self._file.write(line)
            self._file.flush()
        group = "train" if record["kind"] == "train" else f"evaluation/{record['split']}"
        for name, value in record.items():
            if isinstance(value, (int, float)) and name != "iteration":
                self._board.add_scalar(f"{group}/{name}", value, record["iteration"])

    def sync(self) -> None:
        """Bring the records to the disk: done before a checkpoint, whose resumption relies on them."""
        with naming(self._path):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the files."""
        with naming(self._path):
            self._file.close()


@contextmanager
def open_records(folder: Path, kept: Sequence[Record], iteration: int) -> Iterator[RecordWriter]:
    """A writer of the records of the run in `folder`, which go on after `kept` and after `iteration`."""
    write_text(folder / METRICS, "".join(json.dumps(record) + "\n" for record in kept))
    board = SummaryWriter(str(folder), purge_step=iteration + 1)
    try:
        writer = RecordWriter(folder / METRICS, board)
        try:
            yield writer
        finally:
            writer.close()
    finally:
        board.close()
