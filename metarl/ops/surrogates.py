"""Policy-gradient surrogates, each a loss per task [K] to be minimised.

Letters: K task, N stream, T time. `log_prob` is of the policy being differentiated, `old_log_prob` of
the behaviour distribution logged by the actor. Advantages are constants.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.ops.returns import masked_mean

KNT = Float[Tensor, "K N T"]


def likelihood_ratio(log_prob: KNT, old_log_prob: KNT, advantages: KNT, mask: KNT) -> Float[Tensor, " K"]:
    """-E[pi/pi_old A]. Differentiated twice it keeps grad log pi grad log pi^T A, of low variance (the
    "LVC" estimator: the cross terms between time steps are dropped). Source: Rothfuss et al. 2019, eq. 11."""
    return -masked_mean(torch.exp(log_prob - old_log_prob) * advantages, mask)


def plain(log_prob: KNT, old_log_prob: KNT, advantages: KNT, mask: KNT) -> Float[Tensor, " K"]:
    """-E[log pi A]: REINFORCE. Its second derivative ignores that the support data depend on theta
    (biased meta-gradient). Source: Finn et al. 2017, eq. 4."""
    return -masked_mean(log_prob * advantages, mask)


def dice(log_prob: KNT, old_log_prob: KNT, advantages: KNT, mask: KNT) -> Float[Tensor, " K"]:
    """-E[(box(W_t) - box(W_{t-1})) A_t], W_t = sum_{t' <= t} log pi/pi_old, box = exp: unbiased at every order.

    Sources: Foerster et al. 2018; Farquhar et al. 2019, eq. 11 (the form that admits any advantage).
    """
    ratios = (log_prob - old_log_prob) * mask
    w_t = torch.cumsum(ratios, -1)
    # with t-1 in place of t: the credit of the actions before t, so that the difference is action t's own
    return -masked_mean((torch.exp(w_t) - torch.exp(w_t - ratios)) * advantages, mask)


def clipped_ratio(log_prob: KNT, old_log_prob: KNT, advantages: KNT, mask: KNT, clip: float) -> Float[Tensor, " K"]:
    """-E[min(r A, clip(r, 1-clip, 1+clip) A)], r = pi/pi_old. Source: Schulman et al. 2017, eq. 7."""
    ratio = torch.exp(log_prob - old_log_prob)
    return -masked_mean(torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages), mask)


def exploration_credit(log_prob: KNT, mask: KNT, query_returns: Float[Tensor, " K"]) -> Float[Tensor, " K"]:
    """-E[log pi(support actions)] x the task's query return: E-MAML's term that credits the support data
    with what adaptation made of them. `query_returns` should be centred. Source: Stadie et al. 2018, eq. 5."""
    return -masked_mean(log_prob, mask) * query_returns


INNER_OBJECTIVES = {"likelihood_ratio": likelihood_ratio, "dice": dice, "plain": plain}
