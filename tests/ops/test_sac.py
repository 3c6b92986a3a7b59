"""Soft actor-critic's losses: worked by hand, where they do not reach, and against finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from metarl.ops.sac import actor_loss, critic_loss, soft_target, temperature_loss

E, K, B = 2, 3, 4
F64 = torch.float64


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def scalar(value: float) -> Tensor:
    return torch.tensor(value, dtype=F64)


def test_the_target_by_hand():
    # s r + gamma (1 - d) [min(4, 3) - alpha log pi] = 2 * 1.5 + 0.9 * (3 - 0.5 * -2) = 3 + 0.9 * 4 = 6.6
    q = torch.tensor([[[4.0]], [[3.0]]], dtype=F64)
    one = torch.ones(1, 1, dtype=F64)
    y = soft_target(1.5 * one, 0 * one, q, -2 * one, scalar(0.5), 2.0, 0.9)
    torch.testing.assert_close(y, 6.6 * one)


def test_a_terminal_state_is_worth_nothing_and_a_discount_of_zero_looks_no_further():
    rewards, q, log_prob = normal(K, B), normal(E, K, B, seed=1), normal(K, B, seed=2)
    ended, going = torch.ones(K, B, dtype=F64), torch.zeros(K, B, dtype=F64)
    torch.testing.assert_close(soft_target(rewards, ended, q, log_prob, scalar(0.3), 5.0, 0.99), 5 * rewards)
    torch.testing.assert_close(soft_target(rewards, going, q, log_prob, scalar(0.3), 5.0, 0.0), 5 * rewards)


def test_the_target_takes_the_lower_critic_of_each_sample():
    low, high = torch.zeros(1, 1, 2, dtype=F64), torch.tensor([[[7.0, -7.0]]], dtype=F64)
    nothing = torch.zeros(1, 2, dtype=F64)
    y = soft_target(nothing, nothing, torch.cat((low, high)), nothing, scalar(1.0), 1.0, 1.0)
    assert y.tolist() == [[0.0, -7.0]]


def test_the_critics_loss_by_hand():
    # critic 1 misses by 1 and -3: (1 + 9) / 2 = 5; critic 2 by 2 and 0: (4 + 0) / 2 = 2
    target = torch.tensor([[10.0, 20.0]], dtype=F64)
    q = torch.tensor([[[11.0, 17.0]], [[12.0, 20.0]]], dtype=F64)
    assert float(critic_loss(q, target)) == 7.0


def test_the_actors_loss_by_hand():
    # mean of 0.5 * 2 - min(1, 4) = 0 and 0.5 * -6 - min(3, 2) = -5
    q = torch.tensor([[[1.0, 3.0]], [[4.0, 2.0]]], dtype=F64)
    assert float(actor_loss(q, torch.tensor([[2.0, -6.0]], dtype=F64), scalar(0.5))) == -2.5


def test_the_temperatures_loss_by_hand():
    # -log 2 * ((1 + 3) / 2 - 3) = log 2
    loss = temperature_loss(scalar(2.0).log(), torch.tensor([[1.0, 3.0]], dtype=F64), -3.0)
    assert float(loss) == pytest.approx(math.log(2))


@pytest.mark.parametrize(("entropy", "direction"), [(1.0, 1), (3.0, -1)])
def test_descent_raises_the_temperature_where_the_entropy_is_too_low_and_lowers_it_where_too_high(entropy, direction):
    log_temperature = scalar(0.0).requires_grad_()
    temperature_loss(log_temperature, torch.full((K, B), -entropy, dtype=F64), 2.0).backward()
    assert log_temperature.grad is not None
    assert float(-log_temperature.grad) == pytest.approx(direction)


def test_the_temperatures_loss_leaves_the_policy_alone():
    log_temperature, log_prob = scalar(0.5).requires_grad_(), normal(K, B).requires_grad_()
    temperature_loss(log_temperature, log_prob, -2.0).backward()
    assert log_temperature.grad is not None
    assert log_prob.grad is None


def test_repeating_tasks_or_samples_changes_no_loss():
    q, target, log_prob = normal(E, K, B), normal(K, B, seed=1), normal(K, B, seed=2)
    for repeat in ((2, 1), (1, 3)):
        many_q, many_target, many_log_prob = q.repeat(1, *repeat), target.repeat(*repeat), log_prob.repeat(*repeat)
        torch.testing.assert_close(critic_loss(many_q, many_target), critic_loss(q, target))
        torch.testing.assert_close(actor_loss(many_q, many_log_prob, scalar(0.2)), actor_loss(q, log_prob, scalar(0.2)))
        torch.testing.assert_close(
            temperature_loss(scalar(0.2), many_log_prob, -1.0), temperature_loss(scalar(0.2), log_prob, -1.0)
        )


def test_without_entropy_the_actor_maximises_the_lower_critic():
    q, log_prob = normal(E, K, B), normal(K, B, seed=1)
    torch.testing.assert_close(actor_loss(q, log_prob, scalar(0.0)), -q.amin(0).mean())


def test_gradients_equal_finite_differences():
    q, target, log_prob = normal(E, K, B), normal(K, B, seed=1), normal(K, B, seed=2)
    temperature = scalar(0.7)

    def target_of(rewards: Tensor, next_q: Tensor, next_log_prob: Tensor, temperature: Tensor) -> Tensor:
        ends = (torch.arange(K * B) % 3 == 0).double().view(K, B)
        return soft_target(rewards, ends, next_q, next_log_prob, temperature, 5.0, 0.9)

    every = [value.requires_grad_() for value in (q, target, log_prob, temperature)]
    q, target, log_prob, temperature = every
    assert torch.autograd.gradcheck(target_of, (target, q, log_prob, temperature))
    assert torch.autograd.gradcheck(critic_loss, (q, target))
    assert torch.autograd.gradcheck(actor_loss, (q, log_prob, temperature))
    fixed = log_prob.detach()
    assert torch.autograd.gradcheck(lambda value: temperature_loss(value, fixed, -2.0), (temperature,))
