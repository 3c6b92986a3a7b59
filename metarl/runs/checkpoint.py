"""Checkpoints: a folder each, hashed, appearing whole or not at all. safetensors and JSON, never pickle.

        checkpoints/000100/state.safetensors   tensors by name
                           meta.json           counters and whatever else is plain data
                           manifest.json       size and sha256 of the two, the iteration
        checkpoints/.tmp-*                      half-written or half-removed: never read, removed by the next save
        checkpoints/000100.replaced             the former 000100 while a new one takes its place

A folder gets its name by one rename, after each file and the folder itself have reached the disk.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes

from metarl.errors import CheckpointError
from metarl.files import naming, sync_folder, write_new

_FORMAT = 1
_STATE, _META, _MANIFEST = "state.safetensors", "meta.json", "manifest.json"
_NAME = re.compile(r"(\d{6,})(\.replaced)?")
_TEMPORARY = ".tmp-"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose hashes were right when it was read. Tensors are on the CPU."""

    iteration: int
    tensors: dict[str, torch.Tensor]
    meta: dict[str, Any]
    path: Path


def save(
    directory: Path, iteration: int, tensors: Mapping[str, torch.Tensor], meta: Mapping[str, Any], keep: int = 3
) -> Path:
    """Write the checkpoint of `iteration` and remove all but the newest `keep`; the folder written.

    Raises CheckpointError where a tensor is not finite (nothing is written then) and OSError where
    the disk refuses; whatever happens, and wherever the process dies, earlier checkpoints stay whole.
    """
    if iteration < 0 or keep < 1:
        raise CheckpointError(f"iteration must be at least 0 and keep at least 1, got {iteration} and {keep}")
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            bad = int((~torch.isfinite(tensor)).sum())
            raise CheckpointError(
                f"iteration {iteration}: {name!r} holds {bad} of {tensor.numel()} values that are not finite; not saved"
            )
    files = {
        _STATE: tensors_to_bytes({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}),
        _META: json.dumps(dict(meta), indent=1, allow_nan=False).encode(),
    }
    hashes = {name: {"bytes": len(data), "sha256": _sha256(data)} for name, data in files.items()}
    files[_MANIFEST] = json.dumps({"format": _FORMAT, "iteration": iteration, "files": hashes}, indent=1).encode()

    with naming(directory):
        directory.mkdir(parents=True, exist_ok=True)
        _remove_temporary(directory)
        temporary = Path(tempfile.mkdtemp(prefix=f"{_TEMPORARY}{iteration:06d}-", dir=directory))
    try:
        temporary.chmod(0o755)
        for name, data in files.items():
            write_new(temporary / name, data)
        sync_folder(temporary)
        final = directory / f"{iteration:06d}"
        _make_way(final)
        os.rename(temporary, final)
        sync_folder(directory)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _prune(directory, iteration, keep)
    return final


def has_checkpoints(directory: Path) -> bool:
    """Whether there is any checkpoint folder, intact or not."""
    return bool(_folders(directory))


def load(directory: Path, iteration: int) -> Checkpoint:
    """The checkpoint of an iteration; CheckpointError where there is none, naming those there are, or it is damaged."""
    folders = [folder for folder in _folders(directory) if _iteration_of(folder) == iteration]
    if not folders:
        there = ", ".join(str(number) for number in sorted({_iteration_of(folder) for folder in _folders(directory)}))
        raise CheckpointError(f"no checkpoint of iteration {iteration} in {directory}; there are: {there or 'none'}")
    return _load(folders[-1])


def load_latest(directory: Path) -> Checkpoint:
    """The newest intact checkpoint; damaged ones are skipped with a warning that says what is wrong.

    Changes nothing on disk. CheckpointError where none is intact.
    """
    folders = _folders(directory)
    reasons = []
    for folder in reversed(folders):
        try:
            return _load(folder)
        except CheckpointError as error:
            reasons.append(str(error))
            _log.warning("skipping a damaged checkpoint: %s", error)
    if not folders:
        raise CheckpointError(f"no checkpoints in {directory}")
    raise CheckpointError(f"no intact checkpoint in {directory}: " + "; ".join(reasons))


def _load(folder: Path) -> Checkpoint:
    """Read, verify, and only then decode; every byte decoded is a byte that was hashed."""
    try:
        manifest = json.loads(_read(folder / _MANIFEST))
        if manifest["format"] != _FORMAT:
            raise CheckpointError(f"{folder / _MANIFEST}: format {manifest['format']!r}, this version reads {_FORMAT}")
        iteration = int(manifest["iteration"])
        expected = {
            name: (manifest["files"][name]["bytes"], manifest["files"][name]["sha256"]) for name in (_STATE, _META)
        }
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{folder / _MANIFEST}: not a manifest ({error!r})") from error
    if iteration != _iteration_of(folder):
        raise CheckpointError(f"{folder / _MANIFEST}: says iteration {iteration}")
    data = {name: _read(folder / name) for name in (_STATE, _META)}
    for name, (size, digest) in expected.items():
        if len(data[name]) != size:
            raise CheckpointError(f"{folder / name}: {len(data[name])} bytes instead of {size}")
        if _sha256(data[name]) != digest:
            raise CheckpointError(f"{folder / name}: its sha256 is not the one in {_MANIFEST}")
    try:
        return Checkpoint(iteration, tensors_from_bytes(data[_STATE]), json.loads(data[_META]), folder)
    except (ValueError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{folder}: cannot be decoded ({error})") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from error


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _iteration_of(folder: Path) -> int:
    match = _NAME.fullmatch(folder.name)
    assert match is not None
    return int(match[1])


def _folders(directory: Path) -> list[Path]:
    """Checkpoint folders, oldest first; of one iteration, the replaced one before its replacement."""
    if not directory.is_dir():
        return []
    with os.scandir(directory) as entries:
        names = [entry.name for entry in entries if _NAME.fullmatch(entry.name) and entry.is_dir()]
    folders = [directory / name for name in names]
    return sorted(folders, key=lambda folder: (_iteration_of(folder), not folder.name.endswith(".replaced")))


def _make_way(final: Path) -> None:
    """A rename cannot replace a full folder: set an existing one aside, where `load_latest` still finds it."""
    if final.exists():
        aside = final.with_name(final.name + ".replaced")
        if aside.exists():
            _remove(aside)
        os.rename(final, aside)


def _prune(directory: Path, iteration: int, keep: int) -> None:
    """Remove the replaced ones and all but the newest `keep` up to `iteration`.

    Folders of later iterations are ones that could not be loaded: they neither count nor go.
    """
    plain = [f for f in _folders(directory) if not f.name.endswith(".replaced") and _iteration_of(f) <= iteration]
    replaced = [f for f in _folders(directory) if f.name.endswith(".replaced") and _iteration_of(f) <= iteration]
    for folder in (*plain[:-keep], *replaced):
        try:
            _remove(folder)
        except OSError as error:
            _log.warning("cannot remove the old checkpoint %s: %s", folder, error)


def _remove(folder: Path) -> None:
    """Rename first, so that a half-removed folder is never taken for a checkpoint. Of a link, only the link goes."""
    if folder.is_symlink():
        folder.unlink()
        return
    doomed = folder.with_name(f"{_TEMPORARY}{folder.name}-removed")
    if doomed.exists():
        shutil.rmtree(doomed)
    os.rename(folder, doomed)
    shutil.rmtree(doomed)


def _remove_temporary(directory: Path) -> None:
    for leftover in directory.glob(f"{_TEMPORARY}*"):
        shutil.rmtree(leftover, ignore_errors=True)
