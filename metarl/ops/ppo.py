"""Proximal policy optimisation: the loss of a minibatch, and what is reported of it.

    L = mean over real steps of  -min(r A, clip(r, 1 - c, 1 + c) A)     r = pi(a | h) / pi_old(a | h)
                                 + c_v / 2 (v - v*)^2                    v* the critic's target
                                 - c_e H[pi]
                                 + c_b sum_i max(|mu_i| - limit_i, 0)^2  means of a Gaussian beyond the action range

Source: Schulman et al. 2017, eq. 7 and 9; the last term is ours (see `metarl/algorithms/rl2/learner.py`).
Letters: T time, B rows, A action. `mask` is 1 on real steps and 0 on padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.ops.distributions import Distribution, Gaussian, kl_divergence
from metarl.ops.surrogates import clipped_ratio


class PPOBatch(NamedTuple):
    """What the loss needs of the data; constants to the gradient."""

    actions: Tensor  # [T, B, A], or [T, B] int64
    behaviour: Distribution  # over [T, B]; `log_std` may be [A]
    old_log_prob: Float[Tensor, "T B"]
    advantages: Float[Tensor, "T B"]
    targets: Float[Tensor, "T B"]  # of the critic
    mask: Float[Tensor, "T B"]


@dataclass(frozen=True)
class PPOCoefficients:
    """c, c_v, c_e and c_b of the equation above."""

    clip: float
    value: float
    entropy: float
    bound: float


class PPOMetrics(NamedTuple):
    """Means over real steps. `kl` is KL(behaviour || policy), `clip_fraction` the share of ratios beyond the clip."""

    policy_loss: Float[Tensor, ""]
    value_loss: Float[Tensor, ""]  # (v - v*)^2
    entropy: Float[Tensor, ""]
    kl: Float[Tensor, ""]
    clip_fraction: Float[Tensor, ""]


def ppo_loss(
    distribution: Distribution,
    values: Float[Tensor, "T B"],
    batch: PPOBatch,
    coefficients: PPOCoefficients,
    limits: Float[Tensor, " A"] | None = None,
    num_steps: Float[Tensor, ""] | None = None,
) -> tuple[Float[Tensor, ""], PPOMetrics]:
    """The loss of the module's first lines, differentiable in `distribution` and `values`, and its metrics.

    limits: where the penalty of a Gaussian's means begins, per dimension; infinite for dimensions without a range.
        None: 1 everywhere.
    num_steps: what sums are divided by; None: the batch's own real steps. A chunk of a minibatch is given those of the
        whole minibatch, so that the chunks' losses, metrics and gradients add up to the minibatch's.
    """
    mask = batch.mask
    total = mask.sum() if num_steps is None else num_steps
    log_prob = distribution.log_prob(batch.actions)
    surrogate = clipped_ratio(
        log_prob[None], batch.old_log_prob[None], batch.advantages[None], mask[None], coefficients.clip
    )
    policy_loss = surrogate.sum() * (mask.sum() / total)
    value_loss = ((values - batch.targets) ** 2 * mask).sum() / total
    entropy = (distribution.entropy() * mask).sum() / total
    loss = policy_loss + 0.5 * coefficients.value * value_loss - coefficients.entropy * entropy
    if isinstance(distribution, Gaussian):
        loss = loss + coefficients.bound * (bound_penalty(distribution.mean, limits) * mask).sum() / total
    with torch.no_grad():
        kl = (kl_divergence(batch.behaviour, distribution) * mask).sum() / total
        is_clipped = ((log_prob - batch.old_log_prob).exp() - 1).abs() > coefficients.clip
        clip_fraction = (is_clipped * mask).sum() / total
    return loss, PPOMetrics(policy_loss.detach(), value_loss.detach(), entropy.detach(), kl, clip_fraction)


def bound_penalty(
    mean: Float[Tensor, "*batch A"], limits: Float[Tensor, " A"] | None = None
) -> Float[Tensor, "*batch"]:
    """sum_i max(|mu_i| - limit_i, 0)^2; `limits` None: 1 everywhere."""
    excess = mean.abs() - (1 if limits is None else limits)
    return excess.clamp_min(0).square().sum(-1)


def explained_variance(returns: Float[Tensor, " M"], values: Float[Tensor, " M"]) -> float:
    """1 - Var(returns - values) / Var(returns): 1 for a perfect critic, 0 for a constant one. 0 where the returns are
    all equal: there is nothing to explain. Population variances in float64, so that any scale will do."""
    returns, values = returns.double(), values.double()
    spread = float(returns.var(correction=0))
    return 1 - float((returns - values).var(correction=0)) / spread if spread > 0 else 0.0
