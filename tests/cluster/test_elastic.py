"""Workers come and go with the nodes of the cluster; what they yield stays the same."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
import ray
from ray.cluster_utils import Cluster

from metarl.distributed import RayExecutor, nodes, pool
from tests.distributed.comparison import WEIGHTS, assert_same, reference
from tests.distributed.processes import wait_until
from tests.toy import Point, make_units, point_policy

pytestmark = pytest.mark.slow


def working(executor: RayExecutor, condition: Callable[[], bool]) -> Callable[[], bool]:
    """`condition`, looked at between collections of a unit that must come out right each time."""

    def check() -> bool:
        assert_same(executor.collect(make_units(Point(), 1), WEIGHTS, 0), reference(1))
        return condition()

    return check


def drain(node_id: str) -> None:
    """What a cloud does to a spot instance before it takes it away."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "drain-node", "--node-id", node_id]
    command += ["--address", ray.get_runtime_context().gcs_address, "--deadline-remaining-seconds", "3600"]
    command += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_workers_come_with_a_node_and_go_with_it(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_PLACED_WITHIN_S", 2.0)
    with RayExecutor(Point(), point_policy()) as executor:
        assert executor.num_workers == 1
        node = cluster.add_node(num_cpus=2)
        wait_until(working(executor, lambda: executor.num_workers == 3))
        assert_same(executor.collect(make_units(Point(), 12), WEIGHTS, 0), reference(12))
        slow = Point("slow", above=-2)
        executor.submit(make_units(slow, 9), WEIGHTS, 0)
        cluster.remove_node(node)
        wait_until(working(executor, lambda: executor.num_workers == 1))


def test_units_on_a_node_that_is_taken_away_do_not_count_as_lost(cluster: Cluster) -> None:
    node = cluster.add_node(num_cpus=2)
    distribution = Point("slow", above=-2)
    with RayExecutor(distribution, point_policy(), num_workers=3, max_losses=1) as executor:
        executor.collect(make_units(distribution, 3), WEIGHTS, 0)  # all are up
        executor.submit(make_units(distribution, 12), WEIGHTS, 0)
        drain(node.node_id)
        wait_until(lambda: node.node_id not in nodes.look().staying)
        cluster.remove_node(node, allow_graceful=False)
        trials = [trial for _ in range(12) for trial in executor.ready(0.1)]
        while len(trials) < 12:
            trials += executor.ready(60.0)
    assert_same(sorted(trials, key=lambda t: t.unit), reference(12))
