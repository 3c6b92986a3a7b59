"""A Ray cluster of several nodes on this machine; nodes are started and ended by handle."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ray.cluster_utils import Cluster

from metarl.distributed import connect


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """One node with one processor, connected to."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        with connect(cluster.address):
            yield cluster
    finally:
        cluster.shutdown()
