"""Returns, advantages and the linear feature baseline.

Letters: K task, N stream, T time, O observation, F features. `mask` is 1 on real steps, 0 on padding;
padding comes after an episode's end.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

BaselineKind = Literal["return", "cubic"]


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


def state_features(observations: Float[Tensor, "*batch O"]) -> Float[Tensor, "*batch F"]:
    """(o, o^2, 1) with o clipped to [-10, 10]; float64, F = 2 O + 1."""
    o = observations.double().clamp(-10, 10)
    return torch.cat((o, o * o, torch.ones_like(o[..., :1])), dim=-1)


def baseline_features(
    observations: Float[Tensor, "*batch T O"], gamma: float = 1.0, kind: BaselineKind = "return"
) -> Float[Tensor, "*batch T F"]:
    """Features of observation and time, o clipped to [-10, 10]; float64.

    `return`: (o, o^2, t, t^2, t^3, h, 1) with t in units of T, F = 2 O + 5. h_t = 1 + gamma + ... + gamma^(T-t-1) is
    the return of a constant reward of 1, which no cubic in t follows where T is several times 1 / (1 - gamma).
    `cubic`: (o, o^2, t, t^2, t^3, 1) with t in hundreds of steps, F = 2 O + 4. Source: Duan et al. 2016 (rllab).
    """
    features, T = state_features(observations), observations.shape[-2]
    t = torch.arange(T, dtype=features.dtype, device=features.device) / (T if kind == "return" else 100)
    time = [t, t**2, t**3] + ([discounted_sums(torch.ones_like(t), gamma)] if kind == "return" else [])
    columns = torch.stack(time, dim=-1).expand(*features.shape[:-1], len(time))
    return torch.cat((features[..., :-1], columns, features[..., -1:]), dim=-1)


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
    kind: BaselineKind = "return",
) -> Float[Tensor, "K N T"]:
    """Advantages against a linear baseline refit on these very episodes, standardised per task; float64.

    Without `bootstrap_truncated` the horizon is part of the task: returns end there, and the baseline knows the time
    (as in the MAML and ProMP experiments). With it the task continues: returns are bootstrapped where time ran out, and
    the baseline is one of the state alone, whatever `kind` is. Needs gamma < 1 then.
    """
    real = mask.double()
    rewards = rewards.double() * real
    returns = discounted_sums(rewards, gamma)
    if bootstrap_truncated:
        features = state_features(observations)
        weights = fit_bootstrapped_baseline(features, returns, real, truncated, last_observations, gamma)
        last_values = torch.einsum("knf,kf->kn", state_features(last_observations), weights) * truncated
    else:
        features = baseline_features(observations, gamma, kind)
        weights = fit_linear_baseline(features, returns, real)
        last_values = torch.zeros_like(returns[..., 0])
    values = torch.einsum("kntf,kf->knt", features, weights)
    return standardise(generalised_advantages(rewards, values, last_values, real, gamma, lambda_), real)


def fit_bootstrapped_baseline(
    features: Float[Tensor, "K N T F"],
    returns: Float[Tensor, "K N T"],
    mask: Float[Tensor, "K N T"],
    truncated: Bool[Tensor, "K N"],
    last_observations: Float[Tensor, "K N O"],
    gamma: float,
    passes: int = 2,
) -> Float[Tensor, "K F"]:
    """Weights of the value, from returns bootstrapped with it where time ran out: y_t = G_t + gamma^(L-t) v(o_L).

    It starts from the constant that agrees with its own bootstrapped returns, v = sum G / sum(1 - gamma^(L-t)) (the
    1 alone where an episode terminated), and refits it `passes` times on y. The fixed point itself is not sought: with
    features of the state it need not exist, where episodes are shorter than 1 / (1 - gamma).
    """
    steps_left = mask.flip(-1).cumsum(-1).flip(-1)
    discount = gamma**steps_left * mask * truncated[..., None]  # of what follows the last step
    constant = returns.sum((1, 2)) / (mask - discount).sum((1, 2))
    last_values = constant[:, None].expand(truncated.shape)
    last_features = state_features(last_observations)
    for _ in range(passes):
        weights = fit_linear_baseline(features, returns + discount * last_values[..., None], mask)
        last_values = torch.einsum("knf,kf->kn", last_features, weights)
    return weights


def standardise(x: Float[Tensor, "K N T"], mask: Float[Tensor, "K N T"]) -> Float[Tensor, "K N T"]:
    """(x - mean) / (standard deviation + 1e-8) over each task's real steps; padding stays 0."""
    mean = masked_mean(x, mask)[:, None, None]
    deviation = (x - mean) * mask
    std = masked_mean(deviation * deviation, mask).sqrt()[:, None, None]
    return deviation / (std + 1e-8)


def masked_mean(x: Float[Tensor, "K N T"], mask: Float[Tensor, "K N T"]) -> Float[Tensor, " K"]:
    """Mean over each task's real steps."""
    return (x * mask).sum((1, 2)) / mask.sum((1, 2))
