"""A run directory: what a run is, how it went, and what it learned.

config.yaml          the resolved configuration
origin.json          whose weights it began with, see metarl.runs.warm_start
versions.json        what it ran with
metrics.jsonl        see metarl.runs.records
events.out.tfevents* the same for TensorBoard
checkpoints/         see metarl.runs.checkpoint
evaluations/         one folder per evaluation
.lock                held by the process that trains
"""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from metarl.config import RunConfig, differences, load_stored_config, to_yaml
from metarl.errors import ConfigError
from metarl.files import locked, make_folder, write_text
from metarl.kernels.processor import processor_description
from metarl.runs import checkpoint
from metarl.runs.checkpoint import Checkpoint
from metarl.runs.records import METRICS, Record, RecordWriter, open_records, read_records

_LONGEST_NAME = 120  # of folders; file systems allow 255 bytes
_PACKAGES = ("metarl", "torch", "numpy", "ray", "gymnasium", "mujoco", "mjbatch")
_log = logging.getLogger(__name__)


@dataclass
class RunDirectory:
    """An open run directory, locked by this process. Get one from `open_run`."""

    path: Path
    restored: Checkpoint | None
    evaluated: set[int]  # iterations that have an evaluation record
    records: RecordWriter

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def evaluation_folder(self, split: str, iteration: int) -> Path:
        return evaluation_folder(self.path, split, iteration)

    def write(self, record: Record) -> None:
        """Append a record to metrics.jsonl and TensorBoard. Its values must be finite."""
        self.records.write(record)
        if record["kind"] == "evaluation":
            self.evaluated.add(record["iteration"])


def evaluation_folder(run: Path, split: str, iteration: int, changes: Sequence[str] = ()) -> Path:
    """Where the evaluation of an iteration on a split goes; `changes` (`key=value`) name one that differs from it."""
    name = re.sub(r"[^\w.=,+-]", "_", "-".join((f"{split}-{iteration:06d}", *changes)))
    if len(name.encode()) > _LONGEST_NAME:
        name = (
            f"{name.encode()[:_LONGEST_NAME].decode(errors='ignore')}~{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        )
    return run / "evaluations" / name


@contextmanager
def open_run(path: Path, config: RunConfig, resume: bool) -> Iterator[RunDirectory]:
    """Start a run in `path`, or continue the one there where `resume`; a directory without a run starts one.

    Records beyond the restored checkpoint are dropped. ConfigError where the directory holds a run and
    `resume` is off, where that run has another configuration, or while another process trains in it.
    """
    make_folder(path, "run directory")
    with locked(path / ".lock", f"another process is training in {path}"):
        restored = _check(path, config, resume)
        iteration = restored.iteration if restored else 0
        kept = [r for r in read_records(path / METRICS) if restored and r["iteration"] <= iteration]
        _write_versions(path / "versions.json", warn=restored is not None)
        write_text(path / "config.yaml", to_yaml(config))
        evaluated = {r["iteration"] for r in kept if r["kind"] == "evaluation"}
        with open_records(path, kept, iteration) as records:
            yield RunDirectory(path, restored, evaluated, records)


def _check(path: Path, config: RunConfig, resume: bool) -> Checkpoint | None:
    """The checkpoint to continue from, None to start afresh."""
    check_run(path, config, resume)
    if checkpoint.has_checkpoints(path / "checkpoints"):
        if not (path / METRICS).is_file():
            _log.warning("%s is missing: its records are lost, training goes on with new ones", path / METRICS)
        return checkpoint.load_latest(path / "checkpoints")
    records = read_records(path / METRICS)
    if records:
        _refuse_lost_checkpoints(path, records, config.training.checkpoint_every)
    return None


def check_run(path: Path, config: RunConfig, resume: bool) -> None:
    """ConfigError where `path` holds a run and `resume` is off, or a run with another configuration."""
    if not _holds_run(path):
        return
    if not resume:
        raise ConfigError(f"{path} already holds a run: add --resume to continue it, or choose another --run-dir")
    if not (path / "config.yaml").is_file():
        raise ConfigError(f"{path} holds results but no config.yaml: choose another --run-dir")
    changed = differences(load_stored_config(path / "config.yaml"), as_begun(config, path))
    if changed:
        lines = "\n  ".join(changed)
        raise ConfigError(
            f"{path} holds a run with another configuration: choose another --run-dir, or undo\n  {lines}"
        )


def _holds_run(path: Path) -> bool:
    """Whether anything has happened there yet."""
    return checkpoint.has_checkpoints(path / "checkpoints") or bool(read_records(path / METRICS))


def as_begun(config: RunConfig, path: Path) -> RunConfig:
    """`config` with the splits of the run in `path`: one of an earlier version continues with those of then."""
    if not (path / "config.yaml").is_file() or not _holds_run(path):
        return config
    stored = load_stored_config(path / "config.yaml")
    if stored.task_distribution.hold_out_validation:
        return config
    tasks = config.task_distribution.model_copy(update={"hold_out_validation": False})
    evaluation = config.evaluation
    if evaluation.split == "validation":
        evaluation = evaluation.model_copy(update={"split": stored.evaluation.split})
    return config.model_copy(update={"task_distribution": tasks, "evaluation": evaluation})


def _refuse_lost_checkpoints(path: Path, records: Sequence[Record], checkpoint_every: int) -> None:
    """ConfigError where the records go further than a run gets before its first checkpoint."""
    last = max(record["iteration"] for record in records)
    if last > checkpoint_every:
        raise ConfigError(
            f"{path / METRICS} holds {len(records)} records up to iteration {last}, but {path / 'checkpoints'} holds "
            "no checkpoint: put the checkpoints back (links to them are followed), or choose another --run-dir"
        )
    _log.warning("%s: no checkpoint yet, training begins anew; its %d records are dropped", path, len(records))


def versions() -> dict[str, Any]:
    """What this process runs with."""
    found: dict[str, Any] = {"python": platform.python_version(), "platform": platform.platform()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    found["gpu"] = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {**found, "processor": processor_description()}


def _write_versions(path: Path, warn: bool) -> None:
    now = versions()
    before = _read_versions(path) if warn else {}
    changed = _differing(before, now)
    if changed:
        _log.warning("resuming with other versions, results may differ in the last digits: %s", ", ".join(changed))
    write_text(path, json.dumps(now, indent=1))


def _differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """`torch 2.4.0 -> 2.5.0` of every version that both know and that differs."""
    found = []
    for key, value in now.items():
        old = before.get(key, value)
        if isinstance(value, dict) and isinstance(old, dict):
            found += [f"{key} {line}" for line in _differing(old, value)]
        elif old != value:
            found.append(f"{key} {old} -> {value}")
    return found


def _read_versions(path: Path) -> dict[str, Any]:
    """What the run was trained with so far; empty, with a warning, where the file does not say."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        content = None
    if not isinstance(content, dict):
        _log.warning("%s: not readable, so that versions cannot be compared", path)
        return {}
    return content
