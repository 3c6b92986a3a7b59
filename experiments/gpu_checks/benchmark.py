"""Updates per second, by device and mode."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from unittest import mock

import torch

from gpu_checks.learners import Learner

CPU = torch.device("cpu")
_SECONDS = 1.5  # of measured updates in a mode
_MIN_REPEATS, _MAX_REPEATS = 5, 50


@contextmanager
def tf32() -> Iterator[None]:
    """Matrix products of float32 in TF32: 10 bits of mantissa in the factors."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def without_cuda_graphs() -> Iterator[None]:
    """`torch.compile` compiles, and does not record CUDA graphs."""
    compile_ = torch.compile
    with mock.patch.object(torch, "compile", lambda function, **_: compile_(function, mode="default")):
        yield


@dataclass(frozen=True)
class Mode:
    """Keys of the algorithm's section to set, and what holds around the updates."""

    keys: dict[str, Any] = field(default_factory=dict)
    around: Callable[[], AbstractContextManager[None]] = nullcontext
    needs_gpu: bool = False


MODES = {
    "eager": Mode(),
    "TF32": Mode(around=tf32, needs_gpu=True),
    "bfloat16": Mode({"autocast": True}),
    "torch.compile": Mode({"compile": True}, without_cuda_graphs, needs_gpu=True),
    "CUDA graphs": Mode({"compile": True}, needs_gpu=True),
    "CUDA graphs, bfloat16": Mode({"compile": True, "autocast": True}, needs_gpu=True),
}


def benchmark(
    name: str, learner: Learner, device: torch.device, is_rehearsal: bool
) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """(name / device / mode, measurement) of every mode that the learner and the device have."""
    seconds, repeats = (0.0, 1) if is_rehearsal else (_SECONDS, _MIN_REPEATS)
    yield f"{name} / cpu / eager", lambda: measure(learner, CPU, Mode(), seconds, repeats)
    for label, mode in MODES.items():
        lacking = [key for key in mode.keys if not learner.has_key(key)]
        place = "gpu" if device.type == "cuda" else "cpu instead of gpu"
        key = f"{name} / {place} / {label}"
        if lacking:
            yield key, partial(dict, skipped=f"the algorithm has no key {', '.join(lacking)}")
        elif mode.needs_gpu and device.type == "cpu":
            yield key, lambda: {"skipped": "needs a GPU"}
        else:
            yield key, partial(measure, learner, device, mode, seconds, repeats)


def measure(learner: Learner, device: torch.device, mode: Mode, seconds: float, min_repeats: int) -> dict[str, Any]:
    """Median time of an update from arrays on the host to metrics on the host, each from the same state.

    `first_s` is the first update's, compilation included.
    """
    trials = learner.trials
    with mode.around():
        algorithm = learner.build(device, **mode.keys)
        state = algorithm.state_dict()

        def update_s() -> float:
            algorithm.load_state_dict(state)
            _synchronise(device)
            start = time.perf_counter()
            algorithm.update(trials, 0.0)
            _synchronise(device)
            return time.perf_counter() - start

        first_s = update_s()
        update_s()  # CUDA graphs are recorded in the second
        times: list[float] = []
        while len(times) < min_repeats or (sum(times) < seconds and len(times) < _MAX_REPEATS):
            times.append(update_s())
    median = statistics.median(times)
    return {"updates_per_s": 1 / median, "update_ms": 1e3 * median, "first_s": first_s, "repeats": len(times)}


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
