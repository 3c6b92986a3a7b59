"""Runs that were damaged or moved before they are resumed: nothing is dropped without a word."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from metarl import files
from metarl.runs import checkpoint
from metarl.runs.records import METRICS, read_records
from tests.field.conftest import command

if TYPE_CHECKING:
    from tests import toy_algorithm
else:
    import toy_algorithm  # the module that configurations name

LONGER = ("train", "small.yaml", "training.iterations=6", "--resume")


def iterations_of(run: Path) -> list[int]:
    return [record["iteration"] for record in read_records(run / METRICS)]


@pytest.mark.parametrize("damage", ["\0" * 200, "{", "[1, 2]", '{"kind": "train"}', "\ufffd\ufffd"])
def test_a_damaged_line_costs_that_line_and_is_named(run: Path, damage: str) -> None:
    """A power cut leaves a block of NUL bytes in the middle of metrics.jsonl."""
    lines = (run / METRICS).read_text().splitlines()
    (run / METRICS).write_text("\n".join([lines[0], damage, *lines[2:]]) + "\n")
    result = command(*LONGER)
    assert result.exit_code == 0, result.output
    assert "line 2: no record, skipped" in result.stderr
    assert iterations_of(run) == [1, 3, 4, 5, 6]


def test_a_run_whose_records_are_gone_says_so_and_goes_on(run: Path) -> None:
    (run / METRICS).unlink()
    result = command(*LONGER)
    assert result.exit_code == 0, result.output
    assert "runs/small/metrics.jsonl is missing: its records are lost" in result.stderr
    assert iterations_of(run) == [5, 6]


def test_a_run_whose_checkpoints_are_gone_is_not_begun_anew(run: Path) -> None:
    """A purge of old files on scratch storage takes checkpoints/ away."""
    (run / "checkpoints").rename("archive")
    before = (run / METRICS).read_bytes()
    result = command(*LONGER)
    assert result.exit_code == 2
    assert "4 records up to iteration 4" in result.stderr
    assert "put the checkpoints back" in result.stderr
    assert (run / METRICS).read_bytes() == before


@pytest.mark.parametrize("linked", ["all", "each"])
def test_checkpoints_that_were_moved_and_linked_are_found(run: Path, linked: str) -> None:
    """Checkpoints moved to larger storage, with symbolic links in their place."""
    archive = Path("archive").absolute()
    (run / "checkpoints").rename(archive)
    if linked == "all":
        (run / "checkpoints").symlink_to(archive)
    else:
        (run / "checkpoints").mkdir()
        for folder in archive.iterdir():
            (run / "checkpoints" / folder.name).symlink_to(folder)
    result = command(*LONGER)
    assert result.exit_code == 0, result.output
    assert iterations_of(run) == [1, 2, 3, 4, 5, 6]
    assert checkpoint.load_latest(run / "checkpoints").iteration == 6


def test_a_run_killed_before_its_first_checkpoint_begins_anew_and_says_so(run: Path) -> None:
    for folder in (run / "checkpoints").iterdir():
        folder.rename(Path(folder.name))
    (run / METRICS).write_text((run / METRICS).read_text().splitlines()[0] + "\n")
    result = command(*LONGER)
    assert result.exit_code == 0, result.output
    assert "no checkpoint yet, training begins anew; its 1 records are dropped" in result.stderr
    assert iterations_of(run) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("content", ["", "{", "[]", "null"])
def test_versions_that_cannot_be_read_are_a_warning(run: Path, content: str) -> None:
    """An empty versions.json, as a full disk leaves it."""
    (run / "versions.json").write_text(content)
    result = command(*LONGER)
    assert result.exit_code == 0, result.output
    assert "versions.json: not readable" in result.stderr
    assert json.loads((run / "versions.json").read_text())["processor"]["machine"]


def test_other_versions_are_named_one_by_one(run: Path) -> None:
    versions = json.loads((run / "versions.json").read_text())
    versions["torch"], versions["processor"]["model"] = "1.0", "Another"
    (run / "versions.json").write_text(json.dumps(versions))
    result = command(*LONGER)
    assert "torch 1.0 -> " in result.stderr
    assert "processor model Another -> " in result.stderr
    assert "numpy" not in result.stderr


def test_a_full_disk_is_named_by_its_path(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """write() and fsync() know no path: their "No space left on device" alone does not say on which disk."""
    fsync, calls = os.fsync, []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 8:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(files.os, "fsync", full)
    result = command("train", config)
    assert result.exit_code == 1
    assert "No space left on device: 'runs/small/" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_plug_ins_exit_ends_the_run_with_a_message_and_saves_it(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """sys.exit() in somebody's learner would end the command with code 0 and no word."""
    update = toy_algorithm.Toy.update

    def leaving(self: toy_algorithm.Toy, *arguments: object) -> dict[str, float]:
        if self._updates == 3:
            raise SystemExit(0)
        return update(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(toy_algorithm.Toy, "update", leaving)
    result = command("train", config)
    assert result.exit_code == 1
    assert "SystemExit" in result.stderr
    assert f"{Path(__file__).name}, line" in result.stderr
    assert checkpoint.load_latest(Path("runs/small/checkpoints")).iteration == 2, "the update that left is incomplete"
