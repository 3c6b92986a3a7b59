"""Returns, advantages and the linear baseline: hand-worked values and limits."""

from __future__ import annotations

import pytest
import torch

from metarl.ops.returns import (
    baseline_features,
    discounted_sums,
    fit_bootstrapped_baseline,
    fit_linear_baseline,
    generalised_advantages,
    linear_baseline_advantages,
    masked_mean,
    standardise,
    state_features,
)

F64 = torch.float64


def test_discounted_sums_by_hand():
    # 1 + .5 (2 + .5 * 4) = 3;  2 + .5 * 4 = 4;  4
    assert discounted_sums(torch.tensor([1.0, 2.0, 4.0]), 0.5).tolist() == [3.0, 4.0, 4.0]


def test_advantages_by_hand_with_a_terminal_state():
    # gamma .5, lambda .5; deltas 1 + .5*2 - 1 = 1, 2 + .5*3 - 2 = 1.5, 4 + 0 - 3 = 1
    # A_2 = 1; A_1 = 1.5 + .25 * 1 = 1.75; A_0 = 1 + .25 * 1.75 = 1.4375
    rewards, values = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 2.0, 3.0])
    advantages = generalised_advantages(rewards, values, torch.tensor(0.0), torch.ones(3), 0.5, 0.5)
    assert advantages.tolist() == [1.4375, 1.75, 1.0]


def test_time_limit_bootstraps_and_termination_does_not():
    # the last delta is 4 + .5 * 10 - 3 = 6 with a bootstrap value of 10, and 1 without
    rewards, values = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 2.0, 3.0])
    bootstrapped = generalised_advantages(rewards, values, torch.tensor(10.0), torch.ones(3), 0.5, 0.0)
    assert bootstrapped.tolist() == [1.0, 1.5, 6.0]


def test_lambda_zero_is_the_td_error_and_lambda_one_the_return_minus_the_value():
    g = torch.Generator().manual_seed(0)
    r, v = torch.randn(2, 3, 6, generator=g, dtype=F64), torch.randn(2, 3, 6, generator=g, dtype=F64)
    last, mask = torch.zeros(2, 3, dtype=F64), torch.ones(2, 3, 6, dtype=F64)
    next_v = torch.cat((v[..., 1:], last[..., None]), -1)
    torch.testing.assert_close(generalised_advantages(r, v, last, mask, 0.9, 0.0), r + 0.9 * next_v - v)
    torch.testing.assert_close(generalised_advantages(r, v, last, mask, 0.9, 1.0), discounted_sums(r, 0.9) - v)


def test_padding_after_an_early_end_changes_nothing():
    g = torch.Generator().manual_seed(0)
    r, v, last = (torch.randn(*s, generator=g, dtype=F64) for s in [(1, 1, 3), (1, 1, 3), (1, 1)])
    short = generalised_advantages(r, v, last, torch.ones(1, 1, 3, dtype=F64), 0.9, 0.8)
    pad = lambda x: torch.nn.functional.pad(x, (0, 2), value=7.0)  # noqa: E731
    mask = torch.tensor([[[1.0, 1, 1, 0, 0]]], dtype=F64)
    padded = generalised_advantages(pad(r), pad(v), last, mask, 0.9, 0.8)
    torch.testing.assert_close(padded[..., :3], short)
    assert padded[..., 3:].abs().sum() == 0


def test_baseline_recovers_a_return_linear_in_its_features():
    g = torch.Generator().manual_seed(0)
    features = baseline_features(torch.randn(2, 4, 30, 3, generator=g))
    truth = torch.randn(2, features.shape[-1], generator=g, dtype=F64)
    targets = torch.einsum("kntf,kf->knt", features, truth)
    mask = torch.ones(2, 4, 30, dtype=F64)
    fitted = torch.einsum("kntf,kf->knt", features, fit_linear_baseline(features, targets, mask))
    torch.testing.assert_close(fitted, targets, atol=1e-3, rtol=0)


def test_baseline_is_fitted_per_task_and_ignores_padding():
    g = torch.Generator().manual_seed(0)
    obs, targets = torch.randn(2, 4, 10, 3, generator=g), torch.randn(2, 4, 10, generator=g)
    mask = (torch.arange(10) < 7).float().expand(2, 4, 10)
    features = baseline_features(obs)
    both = fit_linear_baseline(features, targets, mask)
    alone = fit_linear_baseline(features[1:, :, :7], targets[1:, :, :7], mask[1:, :, :7])
    torch.testing.assert_close(both[1:], alone)


@pytest.mark.parametrize("gamma", [0.9, 0.99, 1.0])
def test_baseline_features_hold_the_return_of_a_constant_reward(gamma):
    # T = 3: 1 + gamma + gamma^2, 1 + gamma, 1
    features = baseline_features(torch.zeros(1, 1, 3, 2), gamma)[0, 0]
    torch.testing.assert_close(features[:, -2], torch.tensor([1 + gamma + gamma**2, 1 + gamma, 1.0], dtype=F64))


def test_a_bootstrapped_baseline_by_hand():
    # gamma .5, reward 1; episode 1 terminates after 1 step, episode 2 runs out of time after 2. Constant observations.
    # y = 1; (1.5 + .25 v, 1 + .5 v): v = mean y where 3 v = 3.5 + .75 v, so v = 14 / 9
    observations, mask = torch.zeros(1, 2, 2, 1), torch.tensor([[[1.0, 0.0], [1.0, 1.0]]], dtype=F64)
    returns, truncated = torch.tensor([[[1.0, 0.0], [1.5, 1.0]]], dtype=F64), torch.tensor([[False, True]])
    features = state_features(observations)
    weights = fit_bootstrapped_baseline(features, returns, mask, truncated, torch.zeros(1, 2, 1), 0.5)
    torch.testing.assert_close((features @ weights[0])[0, 0, 0], torch.tensor(14 / 9, dtype=F64), atol=1e-4, rtol=0)


def test_a_bootstrapped_baseline_follows_the_state():
    """Two absorbing states that earn 1 and -1 for ever: +-1 / (1 - gamma) = +-10 to within what two passes leave."""
    N, T, gamma = 6, 40, 0.9
    sign = torch.tensor([1.0, -1.0]).repeat(N // 2)[None, :, None]
    observations, rewards = sign[..., None].expand(1, N, T, 1), sign.expand(1, N, T).double()
    returns, mask = discounted_sums(rewards, gamma), torch.ones(1, N, T, dtype=F64)
    arguments = (returns, mask, torch.ones(1, N, dtype=torch.bool), observations[:, :, -1], gamma)
    values = state_features(observations) @ fit_bootstrapped_baseline(state_features(observations), *arguments)[0]
    # bootstrapped with b, a fit gives 10 - d (10 - b), d = mean of .9^1 .. .9^40 = .222; two passes from 0: 10 - 10 d^2
    torch.testing.assert_close(values, sign.double().expand(1, N, T) * (10 - 10 * 0.2217**2), atol=1e-2, rtol=0)


def test_standardise_divides_by_the_standard_deviation_not_the_variance():
    x = torch.tensor([[[0.0, 4.0, 99.0]]], dtype=F64)  # mean 2, standard deviation 2 over the two real steps
    result = standardise(x, torch.tensor([[[1.0, 1.0, 0.0]]], dtype=F64))
    torch.testing.assert_close(result, torch.tensor([[[-1.0, 1.0, 0.0]]], dtype=F64))


def test_advantages_have_zero_mean_and_unit_variance_per_task():
    g = torch.Generator().manual_seed(0)
    K, N, T, num_obs = 3, 5, 8, 2
    mask = torch.arange(T) < torch.randint(2, T + 1, (K, N, 1), generator=g)
    obs, rewards = torch.randn(K, N, T, num_obs, generator=g), torch.randn(K, N, T, generator=g)
    last, truncated = torch.randn(K, N, num_obs, generator=g), torch.ones(K, N, dtype=torch.bool)
    for bootstrap in (False, True):
        a = linear_baseline_advantages(obs, rewards, mask, truncated, last, 0.99, 1.0, bootstrap)
        torch.testing.assert_close(masked_mean(a, mask.double()), torch.zeros(K, dtype=F64), atol=1e-9, rtol=0)
        torch.testing.assert_close(masked_mean(a * a, mask.double()), torch.ones(K, dtype=F64), atol=1e-6, rtol=0)


def test_cubic_baseline_features_are_observation_time_in_hundreds_of_steps_and_one():
    features = baseline_features(torch.tensor([[[[2.0], [-30.0]]]]), kind="cubic")[0, 0]
    expected = [[2, 4, 0, 0, 0, 1], [-10, 100, 0.01, 0.01**2, 0.01**3, 1]]
    torch.testing.assert_close(features, torch.tensor(expected, dtype=torch.float64))
