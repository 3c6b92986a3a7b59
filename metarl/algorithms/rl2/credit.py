"""Credit over a trial: what a step's action is paid for, within its episode and across the episodes after it.

Generalised advantages (Schulman et al. 2016, eq. 16) with a discount g_t of their own at every step:

    delta_t = r_t + g_t v_{t+1} - v_t          A_t = delta_t + lambda g_t A_{t+1}

Within an episode g_t = gamma, and v_{t+1} is the critic's value of the next step. At an episode's last step, l steps
long of at most H, followed by another episode of the trial:

    horizon    g_t = gamma^(1 + H - l) g_e after a terminal state, gamma g_e after a time limit;
               v_{t+1} is that of the next episode's first step
    elapsed    g_t = gamma g_e, the same v_{t+1}
    none       A_{t+1} is left out; v_{t+1} is 0 after a terminal state, and of the last observation after a time limit

g_e is `episode_gamma`. The trial's last step is as with `none`, whatever was chosen. Without `bootstrap_truncated`
v_{t+1} is 0 after a time limit too: the length of the trial is then part of the problem.

Why `horizon` is the default: it is the credit of the same trial with every episode filled up to H by steps that pay
nothing. A robot that falls at step 10 loses what the other steps would have paid. With `elapsed` it loses next to
nothing, for a fresh episode begins at once: where the critic's values are the same before and after, the advantage of
falling is 0. `none` is right where the next episode cannot depend on this one (no memory, or nothing to find out): all
that later episodes add then is noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from metarl.algorithms.rl2.config import EpisodeCredit
from metarl.algorithms.rl2.sequences import Sequences


@dataclass(frozen=True)
class Credit:
    """How steps are credited. `horizon` H is the longest that an episode can be."""

    across: EpisodeCredit
    gamma: float
    episode_gamma: float
    gae_lambda: float
    horizon: int
    bootstrap_truncated: bool = True


def trial_advantages(
    s: Sequences, values: np.ndarray, last_values: np.ndarray, credit: Credit
) -> tuple[Tensor, Tensor]:
    """Advantages of the trials' steps, and the critic's targets A + v; both [B, T] float32.

    `values` [B, T] are the critic's, `last_values` [B, R] those after each episode's last step. The latter count only
    where time ran out and no episode follows that the step is credited with.
    """
    discounts, is_cut = step_discounts(s, credit)
    rows, ends = np.arange(len(s.mask))[:, None], s.lengths.cumsum(axis=1) - 1
    next_values = np.zeros_like(values)
    next_values[:, :-1] = values[:, 1:]
    bootstraps = credit.bootstrap_truncated & ~s.terminated
    next_values[rows, ends] = np.where(is_cut[rows, ends], last_values * bootstraps, next_values[rows, ends])
    traces = np.where(is_cut, 0.0, discounts * credit.gae_lambda).astype(np.float32)
    deltas = (s.rewards + discounts.astype(np.float32) * next_values - values) * s.mask
    advantages = np.zeros_like(deltas)
    following = np.zeros(len(deltas), deltas.dtype)
    for t in reversed(range(deltas.shape[1])):
        following = deltas[:, t] + traces[:, t] * following
        advantages[:, t] = following
    return torch.from_numpy(advantages), torch.from_numpy((advantages + values) * s.mask)


def step_discounts(s: Sequences, credit: Credit) -> tuple[np.ndarray, np.ndarray]:
    """g_t [B, T] float64, and where credit ends, [B, T] bool: A_{t+1} is left out there."""
    rows, ends = np.arange(len(s.mask))[:, None], s.lengths.cumsum(axis=1) - 1
    is_joined = np.full(s.lengths.shape, credit.across != "none")
    is_joined[:, -1] = False
    unused = (credit.horizon - s.lengths) * s.terminated if credit.across == "horizon" else 0
    discounts = np.full(s.mask.shape, credit.gamma)
    discounts[rows, ends] = np.where(is_joined, credit.gamma ** (1.0 + unused) * credit.episode_gamma, credit.gamma)
    is_cut = np.zeros(s.mask.shape, bool)
    is_cut[rows, ends] = ~is_joined
    return discounts, is_cut
