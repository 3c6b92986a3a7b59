"""Returns, advantages and the linear feature baseline.

Letters: K task, N stream, T time, O observation, F features. `mask` is 1 on real steps, 0 on padding;
padding comes after an episode's end.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def discounted_sums(x: Float[Tensor, "*batch T"], factor: float) -> Float[Tensor, "*batch T"]:
    """y_t = x_t + factor * y_{t+1}: returns for rewards and gamma, GAE for TD errors and gamma * lambda."""
    y = torch.empty_like(x)
    running = torch.zeros_like(x[..., 0])
    for t in range(x.shape[-1] - 1, -1, -1):
        running = x[..., t] + factor * running
        y[..., t] = running
    return y


def generalised_advantages(
    rewards: Float[Tensor, "*batch T"],
    values: Float[Tensor, "*batch T"],
    last_values: Float[Tensor, "*batch"],
    mask: Float[Tensor, "*batch T"],
    gamma: float,
    lambda_: float,
) -> Float[Tensor, "*batch T"]:
    """GAE(gamma, lambda): A_t = sum_l (gamma lambda)^l delta_{t+l}, delta_t = r_t + gamma v_{t+1} - v_t.

    `last_values` stands for v after an episode's last real step: 0 where it terminated, the bootstrap
    value where time ran out. Source: Schulman et al. 2016, eq. 16.
    """
    v_t = values * mask
    is_last = mask - torch.nn.functional.pad(mask[..., 1:], (0, 1))
    v_tp1 = torch.nn.functional.pad(v_t[..., 1:], (0, 1)) + is_last * last_values[..., None]
    deltas = (rewards + gamma * v_tp1 - v_t) * mask
    return discounted_sums(deltas, gamma * lambda_) * mask


def baseline_features(observations: Float[Tensor, "*batch T O"]) -> Float[Tensor, "*batch T F"]:
    """(o, o^2, t, t^2, t^3, 1) with o clipped to [-10, 10] and t in hundreds of steps; float64, F = 2 O + 4.

    Source: Duan et al. 2016 (rllab's linear feature baseline).
    """
    o = observations.double().clamp(-10, 10)
    t = torch.arange(o.shape[-2], dtype=o.dtype, device=o.device)[:, None].expand(*o.shape[:-1], 1) / 100
    return torch.cat((o, o * o, t, t**2, t**3, torch.ones_like(t)), dim=-1)


def fit_linear_baseline(
    features: Float[Tensor, "K N T F"],
    targets: Float[Tensor, "K N T"],
    mask: Float[Tensor, "K N T"],
    ridge: float = 1e-5,
) -> Float[Tensor, "K F"]:
    """Ridge regression per task: (X'X + ridge I) w = X'y over real steps, in float64."""
    X = (features * mask[..., None]).flatten(1, 2)
    y = (targets.double() * mask).flatten(1, 2)
    gram = X.mT @ X
    identity = torch.eye(X.shape[-1], dtype=X.dtype, device=X.device)
    return torch.linalg.solve(gram + ridge * identity, (X.mT @ y[..., None]))[..., 0]


def linear_baseline_advantages(
    observations: Float[Tensor, "K N T O"],
    rewards: Float[Tensor, "K N T"],
    mask: Bool[Tensor, "K N T"],
    truncated: Bool[Tensor, "K N"],
    last_observations: Float[Tensor, "K N O"],
    gamma: float,
    lambda_: float,
    bootstrap_truncated: bool,
) -> Float[Tensor, "K N T"]:
    """Advantages against a linear baseline refit on these very episodes, standardised per task; float64.

    With `bootstrap_truncated` the baseline also values the state where time ran out; without it the
    horizon is part of the task (finite-horizon return), as in the MAML and ProMP experiments.
    """
    real = mask.double()
    rewards = rewards.double() * real
    features = baseline_features(observations)
    weights = fit_linear_baseline(features, discounted_sums(rewards, gamma), real)
    values = torch.einsum("kntf,kf->knt", features, weights)
    last_values = torch.zeros_like(values[..., 0])
    if bootstrap_truncated:
        last_features = baseline_features(last_observations[..., None, :])[..., 0, :]
        steps = real.sum(-1) / 100
        num_obs = observations.shape[-1]
        last_features[..., 2 * num_obs : 2 * num_obs + 3] = torch.stack((steps, steps**2, steps**3), -1)
        last_values = torch.einsum("knf,kf->kn", last_features, weights) * truncated
    return standardise(generalised_advantages(rewards, values, last_values, real, gamma, lambda_), real)


def standardise(x: Float[Tensor, "K N T"], mask: Float[Tensor, "K N T"]) -> Float[Tensor, "K N T"]:
    """(x - mean) / (standard deviation + 1e-8) over each task's real steps; padding stays 0."""
    mean = masked_mean(x, mask)[:, None, None]
    deviation = (x - mean) * mask
    std = masked_mean(deviation * deviation, mask).sqrt()[:, None, None]
    return deviation / (std + 1e-8)


def masked_mean(x: Float[Tensor, "K N T"], mask: Float[Tensor, "K N T"]) -> Float[Tensor, " K"]:
    """Mean over each task's real steps."""
    return (x * mask).sum((1, 2)) / mask.sum((1, 2))
