"""A Ray head with job server and token on this machine, in processes of its own, started and ended by handle.

Its Python has this environment's packages, but not this library, as far as that is installed by reference (editable):
what jobs import of it has travelled with them.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import requests

from tests.distributed.processes import HANG_S

TOKEN = "a-token-for-tests-0123456789"
_END_S = 20.0


@dataclass(frozen=True)
class Head:
    """`home`: the home directory of its processes."""

    address: str
    home: Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def started_head(home: Path, num_cpus: int = 2) -> Iterator[Head]:
    (home / "bin").mkdir()
    python = home / "bin" / "python"
    python.symlink_to(sys._base_executable)  # type: ignore[attr-defined]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "PYTHON"))}
    environment |= {
        "HOME": str(home),
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": sysconfig.get_path("purelib"),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": TOKEN,
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="metarl-head-", ignore_cleanup_errors=True) as folder:  # short: sockets
        command = [str(python), "-m", "ray.scripts.scripts", "start", "--head", "--block"]
        command += ["--port=0", f"--dashboard-port={port}", f"--ray-client-server-port={free_port()}"]
        command += ["--dashboard-agent-listen-port=0", "--dashboard-agent-grpc-port=0", "--metrics-export-port=0"]
        command += ["--min-worker-port=0", "--max-worker-port=0", f"--temp-dir={folder}", "--disable-usage-stats"]
        command += [f"--num-cpus={num_cpus}", "--num-gpus=0", "--object-store-memory=100000000"]
        with open(home / "head.log", "w") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            _wait_until_it_answers(process, f"http://127.0.0.1:{port}", home / "head.log")
            yield Head(f"http://127.0.0.1:{port}", home)
        finally:
            end(process)


def _wait_until_it_answers(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    end = time.monotonic() + HANG_S
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.2)
        try:
            found = requests.get(
                f"{address}/api/v0/nodes", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=5
            ).json()
        except requests.RequestException:
            continue
        if found["data"]["result"]["total"]:
            return


def end(process: subprocess.Popen[bytes]) -> None:
    """The process and all below it."""
    below = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for left in psutil.wait_procs(below, timeout=2)[1]:
        left.kill()
    psutil.wait_procs(below, timeout=_END_S)
