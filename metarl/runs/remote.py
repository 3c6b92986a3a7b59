"""Run directories on remote storage, any that fsspec knows: s3://, gs://, file://, ...

    training   s3://bucket/runs/x  --fetch-->  a local copy  --send-->  after every checkpoint and at the end
    reading    s3://bucket/runs/x  --fetch-->  a temporary copy  --send-->  new files alone, at the end

The storage decides: a copy left on this machine is thrown away. Files that were sent in part are found by their hash.
One process at a time trains a run: see metarl.runs.storage_lock.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import fsspec

from metarl.errors import ConfigError
from metarl.files import home_directory, locked, make_folder
from metarl.runs.storage_lock import LOCK_NAME, storage_lock

_log = logging.getLogger(__name__)
_FETCH_ATTEMPTS = 5  # files may be removed while they are listed and read


def is_url(run: str) -> bool:
    """Whether a run lies on a storage, and not in a directory."""
    return "://" in run


@contextmanager
def local_copy(run: str, owner: str | None = None) -> Iterator[tuple[Path, Callable[[], None]]]:
    """Where to train a run, and what to call after each checkpoint; a URL's copy is sent once more at the end.

    `owner`: takes over the lock of a process with the same one, which has ended (a learner that is started again).
    Raises ConfigError where the storage is unknown or refuses, or another process trains the run; OSError where the
    last sending fails.
    """
    if not is_url(run):
        yield Path(run), lambda: None
        return
    copy = _cache() / hashlib.sha256(run.encode()).hexdigest()[:16]
    storage = _Storage(run, copy)
    make_folder(copy.parent)
    refusal = f"another process of this machine trains {run}: wait for it, or stop it"
    with (
        locked(copy.with_name(f"{copy.name}.lock"), refusal),
        storage_lock(storage.files, storage.root, run, owner),
    ):
        storage.fetch()
        try:
            yield copy, storage.try_send
        except BaseException:
            storage.try_send()  # why the work ended is what is to be told
            raise
        storage.send()


@contextmanager
def reading_copy(run: str) -> Iterator[Path]:
    """Where to read a run; it may be in training. New files in a URL's copy are sent at the end."""
    if not is_url(run):
        yield Path(run)
        return
    with tempfile.TemporaryDirectory(prefix="metarl-run-") as folder:
        storage = _Storage(run, Path(folder))
        storage.fetch()
        yield storage.copy
        storage.send(removed=False)


class _Storage:
    def __init__(self, url: str, copy: Path):
        self.url, self.copy = url, copy
        try:
            self.files, self.root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise ConfigError(f"run directory {url!r}: {error}") from error
        self._sent: dict[str, tuple[int, int]] = {}  # name -> size and time of what is there

    def fetch(self) -> None:
        """A fresh copy of what is there, which may be nothing."""
        for attempt in range(_FETCH_ATTEMPTS):
            try:
                self._fetch()
                break
            except FileNotFoundError as error:
                if attempt == _FETCH_ATTEMPTS - 1:
                    raise ConfigError(f"cannot read the run directory {self.url}: {error}") from error
            except OSError as error:
                raise ConfigError(f"cannot read the run directory {self.url}: {error}") from error
        self._sent = self._stamps()

    def _fetch(self) -> None:
        shutil.rmtree(self.copy, ignore_errors=True)
        self.copy.mkdir(parents=True)
        self.files.invalidate_cache()
        for remote in self.files.find(self.root) if self.files.exists(self.root) else []:
            name = os.path.relpath(remote, self.root)
            if name.startswith(os.pardir):  # an object store takes any name
                raise ConfigError(f"{self.url} holds {remote!r}, whose name leads out of the run directory")
            if name == LOCK_NAME:
                continue
            target = self.copy / name
            target.parent.mkdir(parents=True, exist_ok=True)
            self.files.get_file(remote, str(target))

    def send(self, removed: bool = True) -> None:
        """Send what has changed, manifests last; with `removed`, remove there what is no longer here."""
        stamps = self._stamps()
        changed = [name for name, stamp in stamps.items() if self._sent.get(name) != stamp]
        for name in sorted(changed, key=lambda name: (name.endswith("manifest.json"), name)):
            remote = f"{self.root}/{name}"
            self.files.makedirs(os.path.dirname(remote), exist_ok=True)
            self.files.put_file(str(self.copy / name), remote)
            self._sent[name] = stamps[name]
        gone = [name for name in self._sent if name not in stamps] if removed else []
        for name in sorted(gone, key=lambda name: (not name.endswith("manifest.json"), name)):
            with suppress(FileNotFoundError):
                self.files.rm_file(f"{self.root}/{name}")
            del self._sent[name]
        for folder in {os.path.dirname(name) for name in gone}:
            if not (self.copy / folder).exists():
                with suppress(OSError, NotImplementedError):  # an object store has no folders
                    self.files.rmdir(f"{self.root}/{folder}")

    def try_send(self) -> None:
        """As `send`, but a failure is only a warning: the next checkpoint tries again."""
        try:
            self.send()
        except OSError as error:
            _log.warning("could not send to %s, trying again after the next checkpoint: %s", self.url, error)

    def _stamps(self) -> dict[str, tuple[int, int]]:
        names = [path for path in self.copy.rglob("*") if path.is_file()]
        kept = [path for path in names if not any(part.startswith(".") for part in path.relative_to(self.copy).parts)]
        return {path.relative_to(self.copy).as_posix(): (path.stat().st_size, path.stat().st_mtime_ns) for path in kept}


def _cache() -> Path:
    if given := os.environ.get("XDG_CACHE_HOME"):
        return Path(given) / "metarl"
    return home_directory() / ".cache" / "metarl"
