"""How many threads a process computes with, and that it has no say in the result."""

from __future__ import annotations

import threading

import pytest
import torch

from metarl.errors import MetarlError
from metarl.kernels.parallel import num_processors, parallel_map, use_processors

CPU = torch.device("cpu")


def test_a_context_sets_the_number_of_threads_and_gives_it_back() -> None:
    before = num_processors()
    with use_processors(3):
        assert num_processors() == 3
        with use_processors(1):
            assert num_processors() == 1
        assert num_processors() == 3
    assert num_processors() == before


def test_work_runs_on_as_many_threads_as_are_set() -> None:
    barrier = threading.Barrier(3, timeout=60)  # passes only where three threads wait at once

    def meet(item: int) -> int:
        barrier.wait()
        return item

    with use_processors(3):
        assert parallel_map(meet, range(3), CPU) == [0, 1, 2]
    with use_processors(1):
        assert set(parallel_map(lambda _: threading.get_ident(), range(3), CPU)) == {threading.get_ident()}


def test_no_processors_are_refused() -> None:
    with pytest.raises(MetarlError, match="number = 0; allowed: 1 or more"), use_processors(0):
        pass
