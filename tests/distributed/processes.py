"""The worker processes below this one, and waiting with a bound."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

HANG_S = 240.0  # far more than anything here takes, on a busy machine too


def worker_pids(title: str = "ray::RolloutActor") -> list[int]:
    """The rollout workers below this process; with title "ray::RolloutActor.run" those that run a unit."""
    parents, workers = {}, []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                if (entry / "cmdline").read_text().startswith(title):
                    workers.append(int(entry.name))
            except OSError:
                continue

    def is_below(pid: int) -> bool:
        return pid == os.getpid() or (pid in parents and is_below(parents[pid]))

    return [pid for pid in workers if is_below(pid)]


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + HANG_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)
