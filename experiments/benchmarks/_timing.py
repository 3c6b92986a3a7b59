"""How the benchmarks measure: functions in turn, in one process, with what else the machine was doing."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from metarl.kernels.processor import processor_description


@contextmanager
def reported() -> Iterator[dict[str, Any]]:
    """The result of a benchmark, to be filled inside; its last line of output, as one JSON object, after that.

    Prints the processor with its features, and the load (processes that run or wait to, mean of the last minute) before
    and after. The result holds all three, as `processor`, `load_before` and `load_after`.
    """
    processor, before = processor_description(), _load()
    print(f"{processor['model']}, {os.cpu_count()} processors: {', '.join(processor['features']) or 'no features'}")
    print(f"load before: {before:.2f}", flush=True)
    result: dict[str, Any] = {}
    yield result
    after = _load()
    print(f"load after: {after:.2f}")
    print(json.dumps({**result, "processor": processor, "load_before": before, "load_after": after}))


def _load() -> float:
    return round(os.getloadavg()[0], 2)


def ms_in_turn(functions: Sequence[Callable[[], object]], repeats: int, device: torch.device) -> list[list[float]]:
    """Milliseconds of each function, `repeats` times each, run A B A B ... after a warm-up."""
    times: list[list[float]] = [[] for _ in functions]
    for i in range(repeats + 1):
        for function, measured in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if i:
                measured.append(1e3 * (time.perf_counter() - start))
    return times


def paired_ratio(a: Sequence[float], b: Sequence[float]) -> float:
    """The median of a_i / b_i: what slows both of a pair down leaves it as it is."""
    return statistics.median(x / y for x, y in zip(a, b, strict=True))
