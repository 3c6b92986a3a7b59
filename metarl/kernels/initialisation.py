"""Initial weights that depend on nothing but the generator."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.kernels.parallel import torch_threads


def orthogonal(shape: tuple[int, int], generator: torch.Generator, gain: float = 1.0) -> Float[Tensor, "F D"]:
    """A random matrix with orthonormal rows or columns, whichever are fewer, times `gain`. Source: Saxe et al. 2014.

    Computed on one thread: the last bits of a QR decomposition depend on the number of threads, and a run must not.
    """
    with torch_threads(1):
        return torch.nn.init.orthogonal_(torch.empty(shape), gain, generator=generator)
