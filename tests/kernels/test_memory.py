"""Free device memory, and chunks that are halved until they fit. No GPU: the device is a stand-in."""

from __future__ import annotations

import logging
import weakref

import pytest
import torch

from metarl.errors import TrainingError
from metarl.kernels.memory import FittingChunks, free_bytes, with_chunks_that_fit
from metarl.nets.mlp_policy import MLPPolicy

CUDA = torch.device("cuda")


class Device:
    """A device on which `fitting` tasks fit; it remembers the chunk sizes that were tried."""

    def __init__(self, fitting: int):
        self.fitting = fitting
        self.tried: list[int] = []

    def sum_of(self, chunk_size: int) -> str:
        self.tried.append(chunk_size)
        if chunk_size > self.fitting:
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {chunk_size} GiB.\nDetails follow")
        return "the sum"


@pytest.mark.parametrize(
    ("fitting", "tried"), [(40, [40]), (20, [40, 20]), (19, [40, 20, 10]), (1, [40, 20, 10, 5, 2, 1])]
)
def test_chunks_are_halved_until_they_fit(fitting, tried):
    device = Device(fitting)
    assert with_chunks_that_fit(device.sum_of, 40) == ("the sum", tried[-1])
    assert device.tried == tried


def test_the_next_work_begins_with_the_chunks_that_fitted():
    device, fitting = Device(12), FittingChunks()
    assert [fitting(device.sum_of, size) for size in (40, 40, 4)] == ["the sum"] * 3
    assert device.tried == [40, 20, 10, 10, 4]


def test_every_halving_is_logged_with_both_sizes_and_the_reason(caplog):
    with caplog.at_level(logging.WARNING, "metarl.kernels.memory"):
        with_chunks_that_fit(Device(10).sum_of, 40)
    assert [record.getMessage() for record in caplog.records] == [
        "out of device memory with chunks of 40 tasks, trying 20: CUDA out of memory. Tried to allocate 40 GiB.",
        "out of device memory with chunks of 20 tasks, trying 10: CUDA out of memory. Tried to allocate 20 GiB.",
    ]


def test_one_task_that_does_not_fit_ends_training_and_says_what_to_change():
    with pytest.raises(TrainingError, match=r"chunks of 1 task \(CUDA out of memory.*smaller network"):
        with_chunks_that_fit(Device(0).sum_of, 4)


def test_other_errors_pass_unchanged():
    def fail(chunk_size: int) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(RuntimeError, match="illegal memory access"):
        with_chunks_that_fit(fail, 4)


def test_a_failed_attempts_tensors_are_freed_before_the_next_one():
    kept: list[weakref.ref[torch.Tensor]] = []

    def work(chunk_size: int) -> bool:
        if kept:
            return kept[0]() is None
        activations = torch.zeros(8)
        kept.append(weakref.ref(activations))
        raise torch.OutOfMemoryError("CUDA out of memory.")

    assert with_chunks_that_fit(work, 2) == (True, 1)


@pytest.fixture
def cuda_memory(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """What CUDA and PyTorch's allocator report, in bytes."""
    reported = {"free": 0, "reserved": 0, "allocated": 0}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (reported["free"], 80 * 2**30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: reported["reserved"])
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: reported["allocated"])
    return reported


def test_what_the_allocator_holds_without_a_tensor_counts_as_free(cuda_memory):
    cuda_memory.update(free=100, reserved=30, allocated=10)
    assert free_bytes(CUDA) == 120


def test_fewer_tasks_fit_where_others_use_the_device_and_one_always_does(cuda_memory):
    net = MLPPolicy(17, 6, False, (64, 64), 0.3, 0.05)
    cuda_memory.update(free=2**34)
    task_bytes = 60 * 4 * 2000 * 64  # activations of 2000 samples by 64 units in float32
    assert net.tasks_that_fit(2000, CUDA) == 2**33 // task_bytes
    cuda_memory.update(free=2**33)
    assert net.tasks_that_fit(2000, CUDA) == 2**32 // task_bytes
    cuda_memory.update(free=0)
    assert net.tasks_that_fit(2000, CUDA) == 1
