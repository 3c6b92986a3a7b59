"""An embedded Ray for the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import ray

from metarl.distributed import connect
from tests.distributed.processes import wait_until, worker_pids


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with connect(None, num_cpus=3):
        yield
    assert not ray.is_initialized()


@pytest.fixture
def alone() -> Iterator[None]:
    """No worker of an earlier test is left."""
    wait_until(lambda: not worker_pids())
    yield
    wait_until(lambda: not worker_pids())
