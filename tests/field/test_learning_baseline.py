"""MAML's baseline on rewards with a constant part: bootstrapping where time runs out, and offsets of the reward."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from metarl.ops.returns import linear_baseline_advantages

GAMMA, FALL = 0.99, 0.02


def falling_advantages(horizon: int, seed: int, bootstrap: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reward 1 a step while alive; an action taken with probability 0.02 ends the episode. Observations say nothing.

    The advantages [N, T], which actions were such, and which steps are real.
    """
    rng, N = np.random.default_rng(seed), 4000
    dives = rng.random((N, horizon)) < FALL
    lengths = np.where(dives.any(1), dives.argmax(1) + 1, horizon)
    mask = np.arange(horizon) < lengths[:, None]
    observations = torch.from_numpy(0.1 * rng.standard_normal((1, N, horizon + 1, 1)).astype(np.float32))
    real, truncated = torch.from_numpy(mask[None]), torch.from_numpy(np.logical_not(dives.any(1))[None])
    arguments = (observations[:, :, :-1] * real[..., None], real.float(), real, truncated, observations[:, :, -1])
    advantages = linear_baseline_advantages(*arguments, GAMMA, 1.0, bootstrap)[0].numpy()
    return advantages, dives & mask, mask


@pytest.mark.parametrize("horizon", [20, 50])
@pytest.mark.parametrize("seed", [0, 1])
def test_bootstrapping_makes_a_fall_cost_the_whole_future_at_every_step(horizon, seed):
    # V = 1 + gamma (1 - p) V, so V(alive) = 1 / (1 - .99 * .98) = 33.56, and A(dive) - A(stay) = r - (r + gamma V)
    # = -33.22, the last step included. Advantages are standardised: what one unit of them is worth follows from a
    # dive's own, which is 1 - V = -32.56 wherever it comes.
    V = 1 / (1 - GAMMA * (1 - FALL))
    advantages, dives, mask = falling_advantages(horizon, seed, bootstrap=True)
    std = (1 - V) / advantages[dives].mean()
    differences = np.array(
        [
            advantages[dives[:, t], t].mean() - advantages[mask[:, t] & ~dives[:, t], t].mean()
            for t in (0, horizon // 2, horizon - 2, horizon - 1)
        ]
    )
    np.testing.assert_allclose(std * differences, -GAMMA * V, rtol=0.04)


def test_without_bootstrapping_a_fall_in_the_last_step_costs_nothing():
    """The horizon is part of the task then: no reward follows the last step, fallen or not."""
    advantages, dives, mask = falling_advantages(20, 0, bootstrap=False)
    last = advantages[dives[:, -1], -1].mean() - advantages[mask[:, -1] & ~dives[:, -1], -1].mean()
    first = advantages[dives[:, 0], 0].mean() - advantages[~dives[:, 0], 0].mean()
    assert abs(last) < 0.02 * abs(first)


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack((a.flatten(), b.flatten())))[0, 1])


@pytest.mark.parametrize("offset", [1.0, 10.0, 100.0, -100.0])
@pytest.mark.parametrize(
    ("horizon", "gamma", "bootstrap"),
    [
        *((20, 0.99, b) for b in (False, True)),
        *((200, 0.95, b) for b in (False, True)),
        (100, 0.99, False),
        (200, 0.99, False),
        (200, 0.9, False),
        (1000, 0.99, False),
        (50, 1.0, False),
    ],
)
def test_a_constant_added_to_every_reward_leaves_the_advantages_as_they_are(horizon, gamma, offset, bootstrap):
    """In episodes of fixed length it adds the same to every return of a step, whatever was done: correlation 1."""
    K, N, num_obs = 2, 10, 4
    g = torch.Generator().manual_seed(0)
    observations = torch.randn(K, N, horizon + 1, num_obs, generator=g)
    rewards = torch.randn(K, N, horizon, generator=g)
    everything, truncated = torch.ones(K, N, horizon, dtype=torch.bool), torch.ones(K, N, dtype=torch.bool)

    def advantages(rewards: torch.Tensor) -> torch.Tensor:
        arguments = (observations[:, :, :-1], rewards, everything, truncated, observations[:, :, -1])
        return linear_baseline_advantages(*arguments, gamma, 1.0, bootstrap)

    assert correlation(advantages(rewards + offset), advantages(rewards)) > 0.9995
