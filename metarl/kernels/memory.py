"""The learner's device memory: how much is free, and what to do when it is not enough."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import torch

from metarl.errors import TrainingError

Result = TypeVar("Result")

_log = logging.getLogger(__name__)


def free_bytes(device: torch.device) -> int:
    """Bytes of a CUDA device that this process can still take: those free on the device, and those that PyTorch's
    allocator holds without a tensor in them."""
    free, _ = torch.cuda.mem_get_info(device)
    return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))


def with_chunks_that_fit(work: Callable[[int], Result], chunk_size: int) -> tuple[Result, int]:
    """`work(chunk_size)` and the chunk size, which is halved, with a warning in the log, as often as the device runs
    out of memory.

    `work` must leave nothing behind where it fails. Other chunks add up in another order: the result's last bits may
    differ. TrainingError where chunks of one do not fit.
    """
    while True:
        try:
            return work(chunk_size), chunk_size
        except torch.cuda.OutOfMemoryError as error:
            reason = str(error).splitlines()[0] if str(error) else "out of memory"
        # Outside of the handler: while the error lives, its traceback holds the tensors of the failed attempt.
        if chunk_size <= 1:
            raise TrainingError(
                f"the learner's device is out of memory with chunks of 1 task ({reason}). Use a smaller network or "
                "fewer episodes, or device=cpu"
            )
        _log.warning("out of device memory with chunks of %d tasks, trying %d: %s", chunk_size, chunk_size // 2, reason)
        chunk_size //= 2
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()


class FittingChunks:
    """`with_chunks_that_fit` again and again, beginning with the size that fitted last."""

    def __init__(self) -> None:
        self._largest: int | None = None

    def __call__(self, work: Callable[[int], Result], chunk_size: int) -> Result:
        """`work` with chunks of at most `chunk_size` tasks."""
        size = chunk_size if self._largest is None else min(chunk_size, self._largest)
        result, fitting = with_chunks_that_fit(work, size)
        if fitting < size:
            self._largest = fitting
        return result
