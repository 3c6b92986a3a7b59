"""Writing files so that they reach the disk, with errors that name the path."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from metarl.errors import ConfigError


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """An OSError raised inside names `path` where it names none: a full disk is found by write, which knows no name."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def home_directory() -> Path:
    """The user's; ConfigError where there is none."""
    try:
        return Path.home()
    except RuntimeError as error:
        raise ConfigError(f"HOME is not set, and user {os.getuid()} has no entry in /etc/passwd: set HOME") from error


def write_text(path: Path, text: str) -> None:
    """Replace a file in one step, on the disk when this returns."""
    _replace(path, text, path.with_name(f".{path.name}.tmp"))


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Replace a result, which several processes may write at once; the same bytes for the same content."""
    text = json.dumps(content, sort_keys=True, indent=2, allow_nan=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        _replace(path, text, temporary)
    finally:
        temporary.unlink(missing_ok=True)


def _replace(path: Path, text: str, temporary: Path) -> None:
    with naming(path):
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)


def write_new(path: Path, data: bytes) -> None:
    """Write a file that does not exist yet, on the disk when this returns."""
    with naming(path), open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    with naming(folder):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def make_folder(folder: Path, what: str = "directory") -> None:
    """Make `folder`, a `what`, and those above it; ConfigError where that is not allowed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the {what} {folder}: {error.strerror}") from error


@contextmanager
def locked(path: Path, refusal: str) -> Iterator[None]:
    """Hold the lock file `path` of this machine; ConfigError saying `refusal` where another process holds it."""
    try:
        file = open(path, "w")  # noqa: SIM115  (closed below)
    except OSError as error:
        raise ConfigError(f"cannot write in {path.parent}: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(refusal) from error
        yield
