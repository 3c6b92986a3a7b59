"""Running mean and variance of streams of vectors, joined batch by batch; float64 throughout."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Moments(NamedTuple):
    """Number, mean and sum of squared deviations of all vectors seen."""

    num: Float[Tensor, ""]
    mean: Float[Tensor, " D"]
    m2: Float[Tensor, " D"]

    @staticmethod
    def empty(dim: int, device: torch.device) -> Moments:
        zeros = torch.zeros(dim, dtype=torch.float64, device=device)
        return Moments(zeros.new_zeros(()), zeros, zeros.clone())

    def including(self, x: Float[Tensor, "M D"]) -> Moments:
        """The moments of all so far and `x`. Source: Chan et al. 1983, eq. 2.1 (stable for large counts)."""
        x = x.double()
        mean = x.mean(0)
        num = self.num + len(x)
        delta = mean - self.mean
        m2 = self.m2 + ((x - mean) ** 2).sum(0) + delta**2 * (self.num * len(x) / num)
        return Moments(num, self.mean + delta * (len(x) / num), m2)

    def forgetting(self, keep: float) -> Moments:
        """The same mean and spread with `keep` times the weight, so that what comes counts for more."""
        return Moments(self.num * keep, self.mean, self.m2 * keep)

    def std(self, floor: float = 1e-4) -> Float[Tensor, " D"]:
        """Population standard deviation, at least `floor`; ones before anything was seen."""
        if float(self.num) == 0:
            return torch.ones_like(self.mean)
        return (self.m2 / self.num).sqrt().clamp_min(floor)
