"""Two hosts on this machine, of a network namespace each, and the link between them; a program that a test starts.

    unshare -rn python two_hosts.py CONFIG RUN

Trains CONFIG in RUN, on one worker of this host and one of the other, and takes the link down for good while both run
units. Prints JSON: the longest time between two iterations, in seconds, and whether the link did go down. All of it
ends with this process.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray.cluster_utils import Cluster

from metarl.config import load_config
from metarl.distributed import RayExecutor, connect
from metarl.training.loop import train
from metarl.training.progress import SilentReporter
from tests.distributed.head import end
from tests.distributed.processes import wait_until, worker_pids

HERE, THERE = "10.77.0.1", "10.77.0.2"


def call(*command: str) -> None:
    subprocess.run(command, check=True)


@contextmanager
def other_host() -> Iterator[list[str]]:
    """The command that runs another one there."""
    call("ip", "link", "set", "dev", "lo", "up")
    process = subprocess.Popen(["unshare", "-n", "sh", "-c", "echo ready; exec sleep 3600"], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        there = ["nsenter", "-t", str(process.pid), "-n"]
        call("ip", "link", "add", "name", "here", "type", "veth", "peer", "name", "there", "netns", str(process.pid))
        call("ip", "addr", "add", f"{HERE}/24", "dev", "here")
        call("ip", "link", "set", "dev", "here", "up")
        call(*there, "ip", "addr", "add", f"{THERE}/24", "dev", "there")
        call(*there, "ip", "link", "set", "dev", "there", "up")
        call(*there, "ip", "link", "set", "dev", "lo", "up")
        yield there
    finally:
        process.kill()
        process.communicate()


@contextmanager
def two_nodes(there: list[str]) -> Iterator[None]:
    """A Ray cluster of this host and the other, connected to."""
    head = {"num_cpus": 1, "include_dashboard": False, "node_ip_address": HERE}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    with tempfile.TemporaryDirectory(prefix="metarl-there-", ignore_cleanup_errors=True) as folder:
        command = [*there, sys.executable, "-m", "ray.scripts.scripts", "start", f"--address={cluster.address}"]
        command += [f"--node-ip-address={THERE}", "--num-cpus=1", f"--temp-dir={folder}", "--block"]
        with open(Path(folder) / "node.log", "w") as log:
            node = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            with connect(cluster.address):
                yield
        finally:
            end(node)
            cluster.shutdown()


class Cutting(SilentReporter):
    """Takes the link down when both workers run units, after the third iteration; the longest iteration since."""

    def __init__(self) -> None:
        self.is_down, self.longest_s, self._last_s = False, 0.0, 0.0
        self._thread = threading.Thread(target=self._cut)

    def _cut(self) -> None:
        wait_until(lambda: len(worker_pids("ray::RolloutActor.run")) == 2)
        call("ip", "link", "set", "dev", "here", "down")
        self.is_down = True

    def train(self, record: Mapping[str, Any], iterations: int, eta_s: float) -> None:
        now = time.monotonic()
        if record["iteration"] == 3:
            wait_until(lambda: len(worker_pids()) == 2)
            self._thread.start()
        elif record["iteration"] > 3:
            self.longest_s = max(self.longest_s, now - self._last_s)
        self._last_s = time.monotonic()


def main() -> None:
    config, run = load_config(Path(sys.argv[1])), Path(sys.argv[2])
    cutting = Cutting()
    with other_host() as there, two_nodes(there):
        train(config, run, lambda d, p: RayExecutor(d, p, num_workers=2), reporter=cutting)
    sys.stdout.write(json.dumps({"is_down": cutting.is_down, "longest_s": cutting.longest_s}))


if __name__ == "__main__":
    main()
