"""Independent pieces of work on all processors, one thread each.

Threads that share nothing need not wait for each other inside every operation, as threads within an operation
do: that is as fast on an idle machine, and on a busy one it does not stand still.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor

from metarl.errors import MetarlError

Item = TypeVar("Item")
Result = TypeVar("Result")


def parallel_map(function: Callable[[Item], Result], items: Iterable[Item], device: torch.device) -> list[Result]:
    """[function(item) for item in items], in the items' order whatever the timing. Sequential on a GPU."""
    if device.type != "cpu" or num_processors() == 1:
        return [function(item) for item in items]
    return list(_pool(num_processors()).map(function, items))


def sum_in_order(parts: Sequence[Tensor]) -> Tensor:
    """The parts' sum, always added in the same order."""
    return torch.stack(tuple(parts)).sum(0)


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """So many threads inside torch's operations of this thread, as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def num_processors() -> int:
    """Number of threads that this process computes with: by default all processors that it may use."""
    return _limit or _usable_processors()


@contextmanager
def use_processors(number: int) -> Iterator[None]:
    """Compute with `number` threads as long as the context lasts, for example because other runs share the machine."""
    global _limit
    if number < 1:
        raise MetarlError(f"use_processors: number = {number}; allowed: 1 or more")
    former, _limit = _limit, number
    try:
        yield
    finally:
        _limit = former


_limit: int | None = None


@cache
def _usable_processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _pool(num_threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(num_threads, "metarl-learner", initializer=_single_threaded)


def _single_threaded() -> None:
    """One thread inside operations, for good: at its first operation a thread takes over what any other thread set
    last, unless it has asked before. Two threads there and one here, and results would depend on who is free."""
    torch.get_num_threads()
    torch.set_num_threads(1)
