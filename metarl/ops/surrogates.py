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


def exploration_credit(
    log_ratio: Float[Tensor, " K"],
    credit: Float[Tensor, " K"],
    num_steps: Float[Tensor, " K"],
    clip: float | None = None,
) -> Float[Tensor, " K"]:
    """-rho credit / num_steps: E-MAML's term, which credits the support data with what adaptation made of them.

    The whole support data count as one action of the policy that collected them: `log_ratio` is log rho = sum of
    log pi/pi_old over all steps of all support episodes (log-probabilities of independent actions add up), and `credit`
    its advantage, the centred query return. At pi = pi_old the gradient is the score function's, with rho it stays
    exact in later outer steps, and `clip` clips it as PPO does. `num_steps`, the mean length of the query episodes,
    puts the term on the scale of the other surrogates, which are means over steps. Source: Stadie et al. 2018, eq. 5.
    """
    one = torch.ones_like(log_ratio)[:, None, None]
    action = (log_ratio[:, None, None], 0 * one, credit[:, None, None], one)
    return (likelihood_ratio(*action) if clip is None else clipped_ratio(*action, clip)) / num_steps


INNER_OBJECTIVES = {"likelihood_ratio": likelihood_ratio, "dice": dice, "plain": plain}
