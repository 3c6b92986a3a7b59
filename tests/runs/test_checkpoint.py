"""Nothing lost: whatever is damaged, and wherever the process dies, an intact checkpoint loads."""

from __future__ import annotations

import errno
import json
import logging
import os
from pathlib import Path

import pytest
import torch

from metarl.errors import CheckpointError
from metarl.runs import checkpoint


class Crash(BaseException):
    """Stands for the process dying: no `except Exception` or `except OSError` may catch it."""


def tensors_of(value: float) -> dict[str, torch.Tensor]:
    return {
        "theta.weight": torch.full((3, 2), value),
        "theta.weight_t": torch.arange(6.0).reshape(3, 2).T,  # not contiguous
        "steps": torch.tensor(7),
        "mean": torch.full((4,), value, dtype=torch.float64),
        "rng": torch.arange(16, dtype=torch.uint8),
    }


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) and a[n].dtype == b[n].dtype for n in a)


def save(directory: Path, iteration: int, keep: int = 3) -> Path:
    return checkpoint.save(directory, iteration, tensors_of(iteration), {"env_steps": iteration * 10}, keep)


def test_what_is_saved_is_what_loads(tmp_path: Path) -> None:
    folder = save(tmp_path, 100)
    loaded = checkpoint.load_latest(tmp_path)
    assert loaded.iteration == 100
    assert loaded.path == folder == tmp_path / "000100"
    assert loaded.meta == {"env_steps": 1000}
    assert same(loaded.tensors, tensors_of(100))
    assert sorted(f.name for f in folder.iterdir()) == ["manifest.json", "meta.json", "state.safetensors"]


def test_tensors_that_share_memory_are_saved_as_two(tmp_path: Path) -> None:
    shared = torch.arange(4.0)
    checkpoint.save(tmp_path, 1, {"a": shared, "b": shared[:2]}, {})
    assert same(checkpoint.load_latest(tmp_path).tensors, {"a": shared, "b": shared[:2]})


def test_only_the_newest_are_kept_and_order_is_by_number(tmp_path: Path) -> None:
    for iteration in (1, 999_999, 1_000_000):
        save(tmp_path, iteration, keep=2)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["1000000", "999999"]
    assert checkpoint.load_latest(tmp_path).iteration == 1_000_000


@pytest.mark.parametrize("name", ["state.safetensors", "meta.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["truncated", "bit flipped", "missing", "empty"])
def test_a_damaged_checkpoint_is_skipped_and_named(
    tmp_path: Path, name: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, 1)
    path = save(tmp_path, 2) / name
    data = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    else:
        data[len(data) // 2] ^= 0x04
        new = {"truncated": bytes(data[: len(data) // 2]), "bit flipped": bytes(data), "empty": b""}
        path.write_bytes(new[damage])
    with caplog.at_level(logging.WARNING):
        assert checkpoint.load_latest(tmp_path).iteration == 1
    assert str(tmp_path / "000002") in caplog.text


def test_every_bit_flip_in_the_manifest_is_harmless(tmp_path: Path) -> None:
    save(tmp_path, 1)
    path = save(tmp_path, 2) / "manifest.json"
    data = path.read_bytes()
    for position in range(0, len(data), 3):
        flipped = bytearray(data)
        flipped[position] ^= 1 << (position % 8)
        path.write_bytes(bytes(flipped))
        loaded = checkpoint.load_latest(tmp_path)
        assert same(loaded.tensors, tensors_of(loaded.iteration))


def test_no_intact_checkpoint_is_an_error_that_says_why(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoints in"):
        checkpoint.load_latest(tmp_path / "nothing")
    (save(tmp_path, 1) / "meta.json").write_text("{}")
    assert checkpoint.has_checkpoints(tmp_path)
    with pytest.raises(CheckpointError, match=r"meta\.json: 2 bytes instead of"):
        checkpoint.load_latest(tmp_path)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_tensor_that_is_not_finite_is_never_saved(tmp_path: Path, bad: float) -> None:
    save(tmp_path, 1)
    tensors = tensors_of(2.0)
    tensors["mean"][1] = bad
    with pytest.raises(CheckpointError, match="'mean' holds 1 of 4"):
        checkpoint.save(tmp_path, 2, tensors, {})
    assert [f.name for f in tmp_path.iterdir()] == ["000001"]


def _die_at(monkeypatch: pytest.MonkeyPatch, countdown: list[int], error: BaseException) -> None:
    """Raise `error` at the n-th of all fsync, rename and replace calls."""
    for name in ("fsync", "rename", "replace"):
        original = getattr(os, name)

        def call(*args: object, original: object = original) -> object:
            countdown[0] -= 1
            if countdown[0] == 0:
                raise error
            return original(*args)  # type: ignore[operator]

        monkeypatch.setattr(os, name, call)


@pytest.mark.parametrize(
    "error", [Crash(), OSError(errno.ENOSPC, "No space left on device")], ids=["crash", "no space"]
)
@pytest.mark.parametrize("iteration", [2, 1], ids=["next", "same again"])
def test_dying_at_any_step_of_a_write_leaves_the_previous_or_the_new_one(
    tmp_path: Path, error: BaseException, iteration: int
) -> None:
    for step in range(1, 40):
        directory = tmp_path / str(step)
        save(directory, 0)
        save(directory, 1)
        with pytest.MonkeyPatch.context() as patch:
            countdown = [step]
            _die_at(patch, countdown, error)
            try:
                checkpoint.save(directory, iteration, tensors_of(5.0), {"new": True}, keep=1)
            except (Crash, OSError):
                pass
            else:
                if countdown[0] > 0:
                    assert step > 6  # three files, the folder, the rename and the parent at the least
                    return
        loaded = checkpoint.load_latest(directory)
        if loaded.meta == {"new": True}:
            assert loaded.iteration == iteration
            assert same(loaded.tensors, tensors_of(5.0))
        else:
            assert loaded.iteration == 1
            assert same(loaded.tensors, tensors_of(1))
        save(directory, 3, keep=1)
        assert [f.name for f in directory.iterdir()] == ["000003"], "leftovers must go with the next save"
    pytest.fail("a save should take fewer steps")


def test_no_space_while_writing_a_file_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 1)

    def full(path: Path, data: bytes) -> None:
        path.write_bytes(data[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_new", full)
    with pytest.raises(OSError, match="No space"):
        save(tmp_path, 2)
    assert [f.name for f in tmp_path.iterdir()] == ["000001"]


def test_a_damaged_later_checkpoint_does_not_push_out_the_one_just_written(tmp_path: Path) -> None:
    save(tmp_path, 80)
    (save(tmp_path, 100) / "state.safetensors").write_bytes(b"")
    save(tmp_path, 90, keep=1)
    assert checkpoint.load_latest(tmp_path).iteration == 90
    save(tmp_path, 100, keep=1)
    assert [f.name for f in tmp_path.iterdir()] == ["000100"]
    assert checkpoint.load_latest(tmp_path).iteration == 100


def test_names_in_a_manifest_cannot_lead_outside(tmp_path: Path) -> None:
    folder = save(tmp_path / "checkpoints", 1)
    (tmp_path / "secret").write_bytes((folder / "state.safetensors").read_bytes())
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["../../secret"] = manifest["files"].pop("state.safetensors")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="not a manifest"):
        checkpoint.load_latest(tmp_path / "checkpoints")
    for value in (-1, -100):
        with pytest.raises(CheckpointError, match="at least 0"):
            save(tmp_path, value)


def test_other_files_are_not_taken_for_checkpoints(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "000800").write_text("a file")
    (tmp_path / "000700").symlink_to(tmp_path / "purged")
    assert checkpoint.load_latest(tmp_path).iteration == 1


def test_links_to_checkpoints_are_followed_and_pruning_removes_the_links_alone(tmp_path: Path) -> None:
    for iteration in (1, 2):
        save(tmp_path / "archive", iteration)
        (tmp_path / f"00000{iteration}").symlink_to(tmp_path / "archive" / f"00000{iteration}")
    assert checkpoint.load_latest(tmp_path).iteration == 2
    save(tmp_path, 3, keep=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000003", "archive"]
    assert checkpoint.load_latest(tmp_path / "archive").iteration == 2


def test_a_checkpoint_is_loaded_by_its_iteration(tmp_path: Path) -> None:
    for iteration in (1, 2):
        save(tmp_path, iteration)
    assert checkpoint.load(tmp_path, 1).iteration == 1
    with pytest.raises(CheckpointError, match=r"no checkpoint of iteration 3 in .*; there are: 1, 2"):
        checkpoint.load(tmp_path, 3)
