"""Commands of metarl as processes of their own, for tests of signals and of what is printed where."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metarl.runs.records import METRICS, read_records

TESTS = Path(__file__).parent
PATIENCE_S = 300.0  # on a machine with other work


def start(*arguments: str, environment: Mapping[str, str] | None = None, **options: Any) -> subprocess.Popen[str]:
    """`metarl ARGUMENTS`, with the toy algorithm importable, and Ctrl-C as in a shell's foreground."""
    variables = {**os.environ, "PYTHONPATH": str(TESTS), "PYTHONUNBUFFERED": "1", **(environment or {})}
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen(
        [sys.executable, "-m", "metarl", *arguments],
        env=variables,
        text=True,
        errors="replace",
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored where a script runs the tests
        **streams,
    )


def wait_for_iterations(run: Path, number: int, child: subprocess.Popen[str]) -> None:
    """Return when the run has `number` records; fails where the command ends before."""
    deadline_s = time.monotonic() + PATIENCE_S
    while len(read_records(run / METRICS)) < number:
        assert child.poll() is None, child.communicate()
        assert time.monotonic() < deadline_s, f"fewer than {number} iterations in {PATIENCE_S:g} s"
        time.sleep(0.05)
