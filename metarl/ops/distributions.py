"""Action distributions as plain tuples of tensors: densities, divergences, and the Fisher metric of their outputs.

Letters: A action dimensions (or number of discrete actions); leading axes are free and broadcast.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Gaussian(NamedTuple):
    """N(mean, diag(exp(log_std))^2); `log_std` broadcasts against `mean`."""

    mean: Float[Tensor, "*batch A"]
    log_std: Float[Tensor, "*batch_or_one A"]

    def log_prob(self, action: Float[Tensor, "*batch A"]) -> Float[Tensor, "*batch"]:
        """log pi(a) summed over action dimensions: -1/2 sum ((a - m)/s)^2 - sum log s - A/2 log 2 pi."""
        z = (action - self.mean) * torch.exp(-self.log_std)
        constant = 0.5 * action.shape[-1] * math.log(2 * math.pi)
        return -0.5 * (z * z).sum(-1) - self.log_std.sum(-1) - constant

    def kl(self, other: Gaussian) -> Float[Tensor, "*batch"]:
        """KL(self || other), summed over action dimensions."""
        variance_ratio = torch.exp(2 * (self.log_std - other.log_std))
        distance = (self.mean - other.mean) * torch.exp(-other.log_std)
        return (other.log_std - self.log_std + 0.5 * (variance_ratio + distance * distance - 1)).sum(-1)

    def entropy(self) -> Float[Tensor, "*batch_or_one"]:
        """sum log s + A/2 log(2 pi e)."""
        return (self.log_std + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)

    def fisher_product(self, tangent: Gaussian, weight: Float[Tensor, "K B"]) -> Gaussian:
        """Hessian of sum_b weight_b KL(fixed || self)_b in (mean, log_std), at equality, times a tangent:
        (weight dm / s^2, sum weight 2 d log s). `log_std` is [K, 1, A], shared by a task's samples."""
        mean = weight[..., None] * tangent.mean * torch.exp(-2 * self.log_std)
        return Gaussian(mean, 2 * weight.sum(-1)[:, None, None] * tangent.log_std)


class Categorical(NamedTuple):
    """Softmax of `logits` over A actions."""

    logits: Float[Tensor, "*batch A"]

    def log_prob(self, action: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """log softmax(logits)[a]."""
        return torch.log_softmax(self.logits, -1).gather(-1, action[..., None])[..., 0]

    def kl(self, other: Categorical) -> Float[Tensor, "*batch"]:
        """KL(self || other)."""
        p = torch.log_softmax(self.logits, -1)
        return (p.exp() * (p - torch.log_softmax(other.logits, -1))).sum(-1)

    def entropy(self) -> Float[Tensor, "*batch"]:
        """-sum p log p."""
        p = torch.log_softmax(self.logits, -1)
        return -(p.exp() * p).sum(-1)

    def fisher_product(self, tangent: Categorical, weight: Float[Tensor, "K B"]) -> Categorical:
        """weight (diag(p) - p p^T) d logits: the Hessian of sum_b weight_b KL(fixed || self)_b, times a tangent."""
        p = torch.softmax(self.logits, -1)
        weighted = weight[..., None] * p * tangent.logits
        return Categorical(weighted - p * weighted.sum(-1, keepdim=True))


def project_log_std_(params: Mapping[str, Tensor], min_std: float) -> None:
    """Raise `params["log_std"]`, where there is one, to at least log(min_std), in place: the projection that follows an
    optimiser's step.

    The floor in a policy's forward pass has derivative 0 below it: a parameter that sank there would never come back.
    At the floor itself the derivative is 1.
    """
    if "log_std" in params:
        with torch.no_grad():
            params["log_std"].clamp_(min=math.log(min_std))


def squashed_sample(
    mean: Float[Tensor, "*batch A"], log_std: Float[Tensor, "*batch A"], noise: Float[Tensor, "*batch A"]
) -> tuple[Float[Tensor, "*batch A"], Float[Tensor, "*batch"]]:
    """a = tanh(u), u = mean + std noise, and log pi(a) = log N(u) - sum log(1 - a^2). Differentiable in both.

    log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2 u)) stays exact where tanh saturates.
    Source: Haarnoja et al. 2018, appendix C.
    """
    u = mean + log_std.exp() * noise
    log_normal = (-0.5 * noise * noise - log_std).sum(-1) - 0.5 * mean.shape[-1] * math.log(2 * math.pi)
    log_slope = 2 * (math.log(2) - u - torch.nn.functional.softplus(-2 * u)).sum(-1)
    return torch.tanh(u), log_normal - log_slope


Distribution = Gaussian | Categorical


def kl_divergence(p: Distribution, q: Distribution) -> Float[Tensor, "*batch"]:
    """KL(p || q) of two distributions of the same kind."""
    if isinstance(p, Gaussian) and isinstance(q, Gaussian):
        return p.kl(q)
    assert isinstance(p, Categorical)
    assert isinstance(q, Categorical)
    return p.kl(q)
