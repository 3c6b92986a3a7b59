"""Gaussian beliefs over a latent task variable: products, divergences, and a loss that shapes their space.

Letters: K task, C context transitions, Z latent dimension.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Evidence(NamedTuple):
    """What Gaussian factors N(mu_n, var_n) add up to; evidence of two contexts adds."""

    precision: Float[Tensor, "*batch Z"]  # sum_n 1 / var_n
    weighted_mean: Float[Tensor, "*batch Z"]  # sum_n mu_n / var_n
    number: Float[Tensor, "*batch 1"]  # of factors


def gather_evidence(
    mu: Float[Tensor, "*batch C Z"], var: Float[Tensor, "*batch C Z"], mask: Float[Tensor, "*batch C"] | None = None
) -> Evidence:
    """Sums over the context axis, where `mask` is 1; their order does not matter. They are formed in double precision:
    precisions may differ by orders of magnitude."""
    mask = torch.ones_like(mu[..., 0]) if mask is None else mask
    precision = mask[..., None] / var
    total, weighted = (terms.sum(-2, dtype=torch.float64).to(mu.dtype) for terms in (precision, mu * precision))
    return Evidence(total, weighted, mask.sum(-1, keepdim=True))


def posterior(evidence: Evidence, most: int) -> tuple[Float[Tensor, "*batch Z"], Float[Tensor, "*batch Z"]]:
    """Mean and variance of N(0, 1) times the factors: 1/var = 1 + s sum 1/var_n, mean = var s sum mu_n / var_n.

    s = min(1, most / number): evidence counts as that of at most so many transitions. Without it the variance goes
    as 1 / number, and a context longer than those of training gives a certainty that training never saw. No
    evidence gives the prior. Source: Rakelly et al. 2019, eq. 3, with the prior as a factor.
    """
    scale = (most / evidence.number.clamp_min(1)).clamp_max(1)
    var = 1 / (1 + scale * evidence.precision)
    return var * scale * evidence.weighted_mean, var


def kl_from_standard_normal(mean: Float[Tensor, "*batch Z"], var: Float[Tensor, "*batch Z"]) -> Float[Tensor, "*batch"]:
    """KL(N(mean, var) || N(0, 1)), summed over latent dimensions."""
    return 0.5 * (var + mean * mean - 1 - torch.log(var)).sum(-1)


def contrastive_loss(one: Float[Tensor, "K Z"], other: Float[Tensor, "K Z"], temperature: float) -> Float[Tensor, ""]:
    """-mean_k log softmax_j(-|one_k - other_j|^2 / temperature)_k: two contexts of a task are nearer than two tasks'.

    Source: Oord et al. 2018 (InfoNCE), with the distances of Li et al. 2021 (FOCAL).
    """
    distances = torch.cdist(one, other) ** 2
    return torch.nn.functional.cross_entropy(-distances / temperature, torch.arange(len(one), device=one.device))
