"""Ends itself at the n-th step of a training run towards the disk, for every n; a program that tests start.

    python tests/dying.py CONFIG START FOLDER killed|power|full

START is a run directory to go on from. For n = 1, 2, ... FOLDER/n becomes a copy of it in which a process of its own
goes on and, at its n-th step, `killed`: kills itself; `power`: the same, and what no fsync has brought to the disk is
gone; `full`: finds the disk full once (ENOSPC). The first n that is beyond the last step is printed.

A step is about to happen to a file of the run: opened for writing, half written, synced, renamed or removed.
"""

from __future__ import annotations

import builtins
import errno
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

from metarl import files
from metarl.config import load_config
from metarl.errors import ConfigError
from metarl.rollout.local import LocalExecutor
from metarl.runs import directory, records
from metarl.training.loop import train

Mode = Literal["killed", "power", "full"]
DONE, FULL, IN_SPITE = 0, 3, 4  # exit codes: did not come to the n-th step; ended by it; got over it


class Steps:
    """Counts steps, and ends the process, or raises, at the chosen one."""

    def __init__(self, fatal: int, mode: Mode):
        self.left, self._mode = fatal, mode
        self._handles: dict[int, int] = {}  # inode: a descriptor of ours of each file opened for writing
        self._synced: dict[int, int] = {}  # inode: bytes that are on the disk

    def install(self) -> None:
        for module in (files, directory, records):
            module.open = self._open  # type: ignore[attr-defined]
        for name in ("rename", "replace", "unlink", "rmdir"):
            setattr(os, name, self._before(getattr(os, name)))
        fsync = os.fsync

        def synced(descriptor: int) -> None:
            self.step()
            fsync(descriptor)
            found = os.fstat(descriptor)
            self._synced[found.st_ino] = found.st_size

        setattr(os, "fsync", synced)  # noqa: B010

    def step(self) -> None:
        self.left -= 1
        if self.left:
            return
        if self._mode == "full":
            raise OSError(errno.ENOSPC, "No space left on device")
        if self._mode == "power":
            for inode, descriptor in self._handles.items():
                os.ftruncate(descriptor, min(self._synced.get(inode, 0), os.fstat(descriptor).st_size))
        os.kill(os.getpid(), signal.SIGKILL)

    def _before(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.step()
            return function(*args, **kwargs)

        return call

    def _open(self, path: Any, mode: str = "r", **kwargs: Any) -> Any:
        if not set(mode) & set("wax"):
            return builtins.open(path, mode, **kwargs)
        self.step()
        file = builtins.open(path, mode, **kwargs)  # noqa: SIM115
        inode = os.fstat(file.fileno()).st_ino
        self._handles[inode] = os.dup(file.fileno())
        if "a" in mode:
            self._synced.setdefault(inode, os.fstat(file.fileno()).st_size)
        return _Halting(file, self.step)


class _Halting:
    """A file that stops half way through every write."""

    def __init__(self, file: Any, step: Callable[[], None]):
        self._file, self._step = file, step

    def write(self, data: Any) -> int:
        half = len(data) // 2
        self._file.write(data[:half])
        self._file.flush()
        self._step()
        return half + int(self._file.write(data[half:]))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _Halting:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def main() -> None:
    config, start, folder, mode = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
    assert mode in get_args(Mode)
    for n in range(1, 1000):
        shutil.copytree(start, folder / str(n))
        child = os.fork()
        if not child:
            os._exit(_go_on(config, folder / str(n), Steps(n, mode)))  # type: ignore[arg-type]
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code == DONE:
            sys.stdout.write(str(n))
            return
        assert code in ((FULL, IN_SPITE) if mode == "full" else (-signal.SIGKILL,)), f"step {n}: exit code {code}"


def _go_on(config: Path, run: Path, steps: Steps) -> int:
    try:
        steps.install()
        train(load_config(config), run, LocalExecutor, resume=True)
    except (OSError, ConfigError) as error:  # a run directory that cannot be locked is said as a ConfigError
        cause = error.__cause__ if isinstance(error, ConfigError) else error
        return FULL if isinstance(cause, OSError) and cause.errno == errno.ENOSPC else 1
    except BaseException:
        traceback.print_exc()
        return 1
    return DONE if steps.left > 0 else IN_SPITE


if __name__ == "__main__":
    main()
