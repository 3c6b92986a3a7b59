"""A run directory: what a run is, how it went, and what it learned.

config.yaml          the resolved configuration
versions.json        what it ran with
metrics.jsonl        one record per iteration and per evaluation
events.out.tfevents* the same for TensorBoard
checkpoints/         see metarl.runs.checkpoint
evaluations/         one folder per evaluation
.lock                held by the process that trains
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TextIO

import torch
from torch.utils.tensorboard import SummaryWriter

from metarl.config import RunConfig, differences, load_stored_config, to_yaml
from metarl.errors import ConfigError
from metarl.runs import checkpoint
from metarl.runs.checkpoint import Checkpoint

_PACKAGES = ("metarl", "torch", "numpy", "ray", "gymnasium", "mujoco", "mjbatch")
_log = logging.getLogger(__name__)

Record = dict[str, Any]


@dataclass
class RunDirectory:
    """An open run directory, locked by this process. Get one from `open_run`."""

    path: Path
    restored: Checkpoint | None
    evaluated: set[int]  # iterations that have an evaluation record
    _metrics: TextIO
    _board: SummaryWriter = field(repr=False)

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def evaluation_folder(self, split: str, iteration: int) -> Path:
        return evaluation_folder(self.path, split, iteration)

    def write(self, record: Record) -> None:
        """Append a record to metrics.jsonl and TensorBoard. Its values must be finite."""
        self._metrics.write(json.dumps(record, allow_nan=False) + "\n")
        self._metrics.flush()
        group = "train" if record["kind"] == "train" else f"evaluation/{record['split']}"
        for name, value in record.items():
            if isinstance(value, (int, float)) and name != "iteration":
                self._board.add_scalar(f"{group}/{name}", value, record["iteration"])
        if record["kind"] == "evaluation":
            self.evaluated.add(record["iteration"])

    def sync(self) -> None:
        """Bring the metrics to the disk: done before a checkpoint, whose resumption relies on them."""
        os.fsync(self._metrics.fileno())


def evaluation_folder(run: Path, split: str, iteration: int, overrides: Sequence[str] = ()) -> Path:
    """Where the evaluation of an iteration on a split goes; one with overrides stands beside it."""
    name = "-".join((f"{split}-{iteration:06d}", *overrides))
    return run / "evaluations" / re.sub(r"[^\w.=,-]", "_", name)


@contextmanager
def open_run(path: Path, config: RunConfig, resume: bool) -> Iterator[RunDirectory]:
    """Start a run in `path`, or go on with the one there where `resume`; a directory without a run starts one.

    Records beyond the restored checkpoint are dropped. ConfigError where the directory holds a run and
    `resume` is off, where that run has another configuration, or while another process trains in it.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the run directory {path}: {error.strerror}") from error
    with locked(path):
        restored = _check(path, config, resume)
        iteration = restored.iteration if restored else 0
        records = [r for r in read_records(path / "metrics.jsonl") if restored and r["iteration"] <= iteration]
        write_text(path / "metrics.jsonl", "".join(json.dumps(record) + "\n" for record in records))
        _write_versions(path / "versions.json", warn=restored is not None)
        write_text(path / "config.yaml", to_yaml(config))
        evaluated = {r["iteration"] for r in records if r["kind"] == "evaluation"}
        board = SummaryWriter(str(path), purge_step=iteration + 1)
        try:
            with open(path / "metrics.jsonl", "a", encoding="utf-8") as metrics:
                yield RunDirectory(path, restored, evaluated, metrics, board)
        finally:
            board.close()


def _check(path: Path, config: RunConfig, resume: bool) -> Checkpoint | None:
    """The checkpoint to go on from, None to start afresh."""
    check_run(path, config, resume)
    return checkpoint.load_latest(path / "checkpoints") if checkpoint.has_checkpoints(path / "checkpoints") else None


def check_run(path: Path, config: RunConfig, resume: bool) -> None:
    """ConfigError where `path` holds a run and `resume` is off, or a run with another configuration."""
    if not checkpoint.has_checkpoints(path / "checkpoints") and not read_records(path / "metrics.jsonl"):
        return  # nothing has happened here yet
    if not resume:
        raise ConfigError(f"{path} already holds a run: add --resume to go on with it, or choose another --run-dir")
    if not (path / "config.yaml").is_file():
        raise ConfigError(f"{path} holds results but no config.yaml: choose another --run-dir")
    changed = differences(load_stored_config(path / "config.yaml"), config)
    if changed:
        lines = "\n  ".join(changed)
        raise ConfigError(
            f"{path} holds a run with another configuration: choose another --run-dir, or undo\n  {lines}"
        )


def read_records(path: Path) -> list[Record]:
    """All whole records of a metrics file; a last line cut off by a kill is left out."""
    if not path.is_file():
        return []
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            break
        if not isinstance(record, dict) or not isinstance(record.get("iteration"), int):
            break
        records.append(record)
    return records


def write_text(path: Path, text: str) -> None:
    """Replace a file in one step."""
    temporary = path.with_name(f".{path.name}.tmp")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def versions() -> dict[str, str | None]:
    """What this process runs with."""
    found: dict[str, str | None] = {"python": platform.python_version(), "platform": platform.platform()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    found["gpu"] = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return found


def _write_versions(path: Path, warn: bool) -> None:
    now = versions()
    if warn and path.is_file():
        before: Mapping[str, Any] = json.loads(path.read_text())
        changed = [f"{k} {before.get(k)} -> {now.get(k)}" for k in now if before.get(k) != now.get(k)]
        if changed:
            _log.warning("resuming with other versions, results may differ in the last digits: %s", ", ".join(changed))
    write_text(path, json.dumps(now, indent=1))


@contextmanager
def locked(path: Path, by: str = "process") -> Iterator[None]:
    """Nobody else trains in `path` as long as this lasts; ConfigError where another one (`by`) does."""
    try:
        file = open(path / ".lock", "w")  # noqa: SIM115  (closed below)
    except OSError as error:
        raise ConfigError(f"cannot write in {path}: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(f"another {by} is training in {path}") from error
        yield
