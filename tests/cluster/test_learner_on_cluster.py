"""The learner as an actor of the cluster: killed, it goes on from its checkpoint; asked to, it stops and saves."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster

from metarl.config import RunConfig, load_config
from metarl.distributed import restartable
from metarl.distributed.learner import train_on_cluster
from metarl.errors import ConfigError, EnvironmentFault
from metarl.runs import checkpoint
from metarl.training.progress import SilentReporter
from tests.distributed.processes import wait_until, worker_pids
from tests.run_contents import left_by

pytestmark = pytest.mark.slow

ITERATIONS = 60  # some seconds: long enough to be killed in the middle
CONFIG = """
seed: 3
task_distribution: {name: PointGoal}
algorithm: {name: maml, tasks_per_iteration: 4, num_streams: 2}
training: {iterations: %d, checkpoint_every: 2, evaluate_every: 5, tasks_per_unit: 2}
evaluation: {num_tasks: 2}
executor: {num_workers: 1}
device: cpu
"""


class Watching(SilentReporter):
    """Calls `act` at the given iteration, once."""

    def __init__(self, iteration: int, act: Any):
        self._iteration, self._act, self.seen = iteration, act, list[int]()

    def train(self, record: Mapping[str, Any], iterations: int, eta_s: float) -> None:
        self.seen.append(record["iteration"])
        if record["iteration"] >= self._iteration and self._act is not None:
            act, self._act = self._act, None
            act()


def config_for(folder: Path, iterations: int, text: str = CONFIG) -> RunConfig:
    path = folder / "config.yaml"
    path.write_text(text % iterations)
    return load_config(path)


def kill_the_learner() -> None:
    (pid,) = worker_pids("ray::Restartable")
    os.kill(pid, signal.SIGKILL)


def test_a_learner_that_is_killed_goes_on_and_learns_bitwise_the_same(cluster: Cluster, tmp_path: Path) -> None:
    config = config_for(tmp_path, ITERATIONS)
    calm, disturbed = Watching(ITERATIONS, None), Watching(5, kill_the_learner)
    for name, reporter in (("calm", calm), ("disturbed", disturbed)):
        outcome = train_on_cluster(config, str(tmp_path / name), cluster.address, False, reporter)
        assert (outcome.reason, outcome.iteration) == ("done", ITERATIONS)
    assert calm.seen == list(range(1, ITERATIONS + 1))
    processes = [len(list((tmp_path / name).glob("events.out.*"))) for name in ("calm", "disturbed")]
    assert processes == [1, 2]  # each that trains writes a file of its own
    assert left_by(tmp_path / "calm", ITERATIONS) == left_by(tmp_path / "disturbed", ITERATIONS)


def test_a_signal_stops_the_learner_which_saves(cluster: Cluster, tmp_path: Path) -> None:
    stopped = Watching(3, lambda: os.kill(os.getpid(), signal.SIGTERM))
    outcome = train_on_cluster(config_for(tmp_path, 10_000), str(tmp_path / "run"), cluster.address, False, stopped)
    assert (outcome.reason, outcome.signal_number) == ("interrupted", signal.SIGTERM)
    assert checkpoint.load_latest(tmp_path / "run" / "checkpoints").iteration == outcome.iteration >= 3
    wait_until(lambda: not worker_pids("ray::Restartable"))


def test_an_environments_fault_arrives_as_such(cluster: Cluster, tmp_path: Path) -> None:
    text = CONFIG.replace("{name: PointGoal}", '{name: "tests.toy:Point", options: {fault: raise, above: -2}}')
    with pytest.raises(EnvironmentFault, match="the motor came off"):
        train_on_cluster(config_for(tmp_path, 5, text), str(tmp_path / "run"), cluster.address, False, SilentReporter())


def test_a_gpu_that_no_node_has_is_said(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restartable, "_RESOURCES_DEADLINE_S", 3.0)
    config = config_for(tmp_path, 5, CONFIG.replace("device: cpu", "device: cuda"))
    with pytest.raises(ConfigError, match="wants 1 GPU, and the cluster has 0"):
        train_on_cluster(config, str(tmp_path / "run"), cluster.address, False, SilentReporter())
