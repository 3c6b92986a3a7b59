"""Running mean and variance of streams of vectors, joined batch by batch; float64 throughout."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

_RELATIVE_FLOOR = 1e-6  # of |mean|: float32 hardly tells apart what lies closer together
_SMALLEST = 1e-30  # below it float32 runs out of numbers


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

    def std(self) -> Float[Tensor, " D"]:
        """Population standard deviation, at least 1e-6 of the mean's size.

        The floor is relative: numbers of any scale are normalised alike. 1 where there is no scale to go by: before
        anything was seen, and where all was 0.
        """
        spread = (self.m2 / self.num.clamp_min(_SMALLEST)).sqrt()
        spread = torch.maximum(spread, _RELATIVE_FLOOR * self.mean.abs())
        return torch.where(spread > _SMALLEST, spread, torch.ones_like(spread))


def rescale_output_(
    weight: Float[Tensor, "F H"],
    bias: Float[Tensor, " F"],
    before: tuple[float, float],
    after: tuple[float, float],
) -> None:
    """Correct a linear layer in place, so that mean + std (W h + b) is the same with (mean, std) of `before` and of
    `after`. Source: van Hasselt et al. 2016, eq. 9 and 10 (the "POP" of PopArt)."""
    (old_mean, old_std), (mean, std) = before, after
    with torch.no_grad():
        weight.mul_(old_std / std)
        bias.mul_(old_std / std).add_((old_mean - mean) / std)
