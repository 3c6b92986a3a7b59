"""One writer at a time for a run on remote storage.

The lock is a file on the storage, `.lock`: who trains (user, machine, process), since when, and a count that the owner
raises every 20 s. Storage has no locks of its own and machines' clocks differ, so a process that finds the lock watches
the count for a minute: it refuses once the count moves, and takes over a lock whose count stands still.
"""

from __future__ import annotations

import getpass
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from metarl.errors import ConfigError

LOCK_NAME = ".lock"
_BEAT_S = 20.0
_WATCH_S = 60.0
_POLL_S = 2.0
_log = logging.getLogger(__name__)


@contextmanager
def storage_lock(files: Any, root: str, url: str, owner: str | None = None) -> Iterator[None]:
    """Nobody else trains the run at `url` meanwhile, whose files are `files` (of fsspec) below `root`.

    Raises ConfigError where another process does, or the storage cannot be written.
    """
    lock = _Lock(files, f"{root}/{LOCK_NAME}", url, owner or uuid.uuid4().hex)
    lock.take()
    ended = threading.Event()
    thread = threading.Thread(target=lock.keep, args=(ended,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(_POLL_S)
        lock.release()


class _Lock:
    def __init__(self, files: Any, path: str, url: str, owner: str):
        self._files, self._path, self._url = files, path, url
        self._content: dict[str, Any] = {
            "owner": owner,
            "who": f"{_user()} on {socket.gethostname()} (process {os.getpid()})",
            "machine": _machine(),
            "pid": os.getpid(),
            "since": time.strftime("%Y-%m-%d %H:%M:%S %z"),
            "count": 0,
        }

    def take(self) -> None:
        try:
            found = self._read()
            if found is not None and not self._is_ours(found):
                self._watch(found)
            self._write()
            found = self._read() or self._content
        except OSError as error:
            raise ConfigError(f"cannot write in the run directory {self._url}: {error}") from error
        if not self._is_ours(found):
            raise self._refusal(found)

    def keep(self, ended: threading.Event) -> None:
        """Raise the count until `ended`."""
        while not ended.wait(_BEAT_S):
            self._content["count"] += 1
            try:
                self._write()
            except Exception as error:  # whatever a storage raises: the run continues
                _log.warning("could not renew the lock of %s: %s", self._url, error)

    def release(self) -> None:
        with suppress(OSError):
            if self._is_ours(self._read() or {}):
                self._files.rm_file(self._path)

    def _is_ours(self, found: dict[str, Any]) -> bool:
        return found.get("owner") == self._content["owner"]

    def _watch(self, found: dict[str, Any]) -> None:
        """Return once it is clear that the owner has ended; ConfigError once it is clear that it has not."""
        if found.get("machine") == self._content["machine"]:
            if _is_running(found.get("pid")):
                raise self._refusal(found)
            return
        _log.warning(
            "%s is locked by %s since %s; waiting %g s for a sign of life",
            self._url,
            found.get("who"),
            found.get("since"),
            _WATCH_S,
        )
        end = time.monotonic() + _WATCH_S
        while time.monotonic() < end:
            time.sleep(_POLL_S)
            now = self._read()
            if now is None:
                return
            if now and found and now != found:  # {}: read while it was being written
                raise self._refusal(now)
            found = now or found
        _log.warning("%s gave no sign of life: its lock is stale and is taken over", found.get("who"))

    def _refusal(self, found: dict[str, Any]) -> ConfigError:
        return ConfigError(
            f"{self._url} is being trained by {found.get('who')} since {found.get('since')}: wait for it, stop it, or "
            f"choose another --run-dir. If it has ended, remove {self._url.rstrip('/')}/{LOCK_NAME}"
        )

    def _read(self) -> dict[str, Any] | None:
        """What the lock says; None where there is none, {} where it cannot be understood."""
        self._files.invalidate_cache()
        try:
            content = json.loads(self._files.cat_file(self._path))
        except FileNotFoundError:
            return None
        except ValueError:
            return {}
        return content if isinstance(content, dict) else {}

    def _write(self) -> None:
        self._files.makedirs(os.path.dirname(self._path), exist_ok=True)
        self._files.pipe_file(self._path, json.dumps(self._content).encode())


def _machine() -> str:
    """An id of this machine since it was started, so that process ids mean something."""
    with suppress(OSError), open("/proc/sys/kernel/random/boot_id") as file:
        return f"{socket.gethostname()} {file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    return f"{socket.gethostname()} {uuid.getnode()}"


def _is_running(pid: Any) -> bool:
    if not isinstance(pid, int) or pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        pass
    return True


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return f"user {os.getuid()}"
