"""How the benchmarks compare: functions in turn, in one process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import torch


def median_ms_in_turn(functions: Sequence[Callable[[], object]], repeats: int, device: torch.device) -> list[float]:
    """Median milliseconds of each function, run A B A B ... after a warm-up."""
    times: list[list[float]] = [[] for _ in functions]
    for i in range(repeats + 1):
        for function, measured in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if i:
                measured.append(1e3 * (time.perf_counter() - start))
    return [statistics.median(t) for t in times]
