"""A node is taken away in the middle of a run and another one comes: the run ends as if nothing had happened."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster

from metarl.config import load_config
from metarl.distributed import RayExecutor, pool
from metarl.rollout.local import LocalExecutor
from metarl.training.loop import train
from metarl.training.progress import SilentReporter
from tests.distributed.processes import wait_until, worker_pids
from tests.run_contents import left_by

pytestmark = pytest.mark.slow

ITERATIONS = 12
CONFIG = f"""seed: 5
task_distribution: {{name: HalfCheetahVel, options: {{horizon: 100}}}}
algorithm: {{name: maml, tasks_per_iteration: 6, num_streams: 4, outer: {{steps: 1}}}}
training: {{iterations: {ITERATIONS}, tasks_per_unit: 1, evaluate_every: 0}}
device: cpu
"""


class Replacing(SilentReporter):
    """Ends a node while its worker and the other one run units; later adds one, and waits for its worker."""

    def __init__(self, cluster: Cluster, node: Any):
        self._cluster, self._node = cluster, node
        self._removal = threading.Thread(target=self._remove)

    def _remove(self) -> None:
        wait_until(lambda: len(worker_pids("ray::RolloutActor.run")) == 2)
        self._cluster.remove_node(self._node, allow_graceful=False)

    def train(self, record: Mapping[str, Any], iterations: int, eta_s: float) -> None:
        if record["iteration"] == 2:
            wait_until(lambda: len(worker_pids()) == 2)
            self._removal.start()
        if record["iteration"] == 8:
            self._removal.join()
            wait_until(lambda: len(worker_pids()) == 1)
            self._cluster.add_node(num_cpus=1)
            wait_until(lambda: len(worker_pids()) == 2)


def test_a_node_that_goes_and_one_that_comes_change_nothing(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "_PLACED_WITHIN_S", 600.0)  # the worker that lost its place waits for the new node
    (tmp_path / "config.yaml").write_text(CONFIG)
    config = load_config(tmp_path / "config.yaml")
    train(config, tmp_path / "undisturbed", LocalExecutor)
    replacing = Replacing(cluster, cluster.add_node(num_cpus=1))
    outcome = train(config, tmp_path / "run", RayExecutor, reporter=replacing)
    assert outcome.env_steps == ITERATIONS * 6 * 4 * 2 * 100
    assert left_by(tmp_path / "run", ITERATIONS) == left_by(tmp_path / "undisturbed", ITERATIONS)
