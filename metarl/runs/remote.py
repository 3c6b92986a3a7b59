"""Run directories on remote storage, any that fsspec knows: s3://, gs://, file://, ...

    s3://bucket/runs/x  --fetch-->  a local copy  --train, evaluate-->  send after every checkpoint and at the end

The storage is the truth: a copy that is left over here is thrown away. What is sent half is found by its hash.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec

from metarl.errors import ConfigError

_log = logging.getLogger(__name__)


@contextmanager
def local_copy(run: str) -> Iterator[tuple[Path, Callable[[], None]]]:
    """Where to work on a run, and what to call after each checkpoint; a URL's copy is sent once more at the end.

    Raises ConfigError where the storage is unknown or refuses, OSError where the last sending fails.
    """
    if "://" not in run:
        yield Path(run), lambda: None
        return
    storage = _Storage(run)
    storage.fetch()
    try:
        yield storage.copy, storage.try_send
    except BaseException:
        storage.try_send()  # why the work ended is what is to be told
        raise
    storage.send()


class _Storage:
    def __init__(self, url: str):
        self.url = url
        try:
            self._files, self._root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise ConfigError(f"run directory {url!r}: {error}") from error
        cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        self.copy = cache / "metarl" / hashlib.sha256(url.encode()).hexdigest()[:16]
        self._sent: dict[str, tuple[int, int]] = {}  # name -> size and time of what is there

    def fetch(self) -> None:
        """A fresh copy of what is there, which may be nothing."""
        shutil.rmtree(self.copy, ignore_errors=True)
        self.copy.mkdir(parents=True)
        try:
            found = self._files.find(self._root) if self._files.exists(self._root) else []
            for remote in found:
                name = os.path.relpath(remote, self._root)
                if name.startswith(os.pardir):  # an object store takes any name
                    raise ConfigError(f"{self.url} holds {remote!r}, whose name leads out of the run directory")
                target = self.copy / name
                target.parent.mkdir(parents=True, exist_ok=True)
                self._files.get_file(remote, str(target))
        except OSError as error:
            raise ConfigError(f"cannot read the run directory {self.url}: {error}") from error
        self._sent = self._stamps()

    def send(self) -> None:
        """Send what has changed, manifests last; remove what is no longer here."""
        stamps = self._stamps()
        changed = [name for name, stamp in stamps.items() if self._sent.get(name) != stamp]
        for name in sorted(changed, key=lambda name: (name.endswith("manifest.json"), name)):
            remote = f"{self._root}/{name}"
            self._files.makedirs(os.path.dirname(remote), exist_ok=True)
            self._files.put_file(str(self.copy / name), remote)
            self._sent[name] = stamps[name]
        for name in [name for name in self._sent if name not in stamps]:
            if self._files.exists(f"{self._root}/{name}"):
                self._files.rm_file(f"{self._root}/{name}")
            del self._sent[name]

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
