"""Bandit and TabularMDP: the exact optima, worked by hand and against simulation."""

from __future__ import annotations

import numpy as np
import pytest
from metarl_envs.tabular import Bandit, TabularMDP

from metarl.errors import TaskError
from metarl.tasks import Task


def _simple_mdp() -> tuple[TabularMDP, Task]:
    """Two states; action 1 leads to state 1, action 0 to state 0. Only (state 1, action 0) pays, always."""
    family = TabularMDP(num_states=2, num_actions=2, horizon=4)
    rewards = (0.0, 0.0, 1.0, 0.0)  # (0,0) (0,1) (1,0) (1,1)
    transitions = (1.0, 0.0, 0.0, 1.0) * 2
    return family, family.task(rewards=rewards, transitions=transitions)


def test_the_best_arm_throughout_is_the_optimum() -> None:
    bandit = Bandit(num_arms=3, horizon=10)
    assert bandit.optimal_return(bandit.task(probabilities=(0.2, 0.7, 0.1))) == pytest.approx(7.0)


def test_the_bayes_optimum_of_two_arms_and_two_pulls() -> None:
    # First pull: 1/2. Won (1/2): stay, p = 2/3. Lost (1/2): switch, p = 1/2. Sum 1/2 + 1/3 + 1/4 = 13/12.
    assert Bandit(num_arms=2, horizon=2).bayes_optimal_return() == pytest.approx(13 / 12)


def test_the_bayes_optimum_lies_between_the_task_blind_and_the_informed_expert() -> None:
    bandit = Bandit(num_arms=3, horizon=8)
    blind, expert = bandit.anchors.task_blind, bandit.anchors.expert
    assert blind is not None
    assert expert is not None
    assert blind < bandit.bayes_optimal_return() < expert


def test_arms_pay_with_their_probabilities() -> None:
    bandit = Bandit(num_arms=2)
    batch = bandit.make_batch([bandit.task(probabilities=(0.0, 1.0)), bandit.task(probabilities=(1.0, 0.0))])
    obs, _ = batch.reset(seed=0)
    assert obs.tolist() == [[0.0], [0.0]]
    assert all(batch.step(np.array([0, 0]))[1].tolist() == [0.0, 1.0] for _ in range(20))
    fair = bandit.make_batch([bandit.task(probabilities=(0.3, 0.5))] * 4000)
    fair.reset(seed=0)
    assert fair.step(np.zeros(4000, np.int64))[1].mean() == pytest.approx(0.3, abs=0.03)


def test_backward_induction_on_a_two_state_chain() -> None:
    # go to state 1 (0), then take its reward once (1), which leads back to 0; go (0), take (1): 2 in 4 steps
    family, task = _simple_mdp()
    assert family.optimal_return(task) == pytest.approx(2.0)
    values = family.optimal_values([task])[0]
    assert values[3].tolist() == [[0.0, 0.0], [1.0, 0.0]]
    assert values[2].tolist() == [[0.0, 1.0], [1.0, 1.0]]


def test_transitions_and_rewards_follow_the_task() -> None:
    family, task = _simple_mdp()
    batch = family.make_batch([task])
    obs, _ = batch.reset(seed=0)
    assert obs.tolist() == [[1.0, 0.0]]
    steps = [batch.step(np.array([action]))[:2] for action in (1, 0, 1, 0)]
    assert [obs.tolist() for obs, _ in steps] == [[[0.0, 1.0]], [[1.0, 0.0]]] * 2
    assert [float(reward[0]) for _, reward in steps] == [0.0, 1.0, 0.0, 1.0]


def test_the_optimal_policy_earns_the_exact_optimum() -> None:
    family = TabularMDP(horizon=10)
    tasks = family.sample("train", 50, seed=0)
    policy = np.repeat(family.optimal_values(tasks).argmax(axis=3), 80, axis=0)  # [4000, H, S]
    batch = family.make_batch([task for task in tasks for _ in range(80)])
    obs, _ = batch.reset(seed=0)
    total = np.zeros(4000)
    for h in range(10):
        obs, rewards, *_ = batch.step(policy[np.arange(4000), h, obs.argmax(axis=1)])
        total += rewards
    exact = np.mean([family.optimal_return(task) for task in tasks])
    assert total.mean() == pytest.approx(exact, rel=0.01)
    assert exact == pytest.approx(family.anchors.expert, rel=0.02)


def test_a_random_policy_earns_the_task_blind_anchor() -> None:
    family = TabularMDP()
    batch = family.make_batch(family.sample("train", 2000, seed=0))
    batch.reset(seed=0)
    rng = np.random.default_rng(0)
    total = sum(float(batch.step(rng.integers(5, size=2000))[1].mean()) for _ in range(10))
    assert total == pytest.approx(family.anchors.task_blind, rel=0.02)


def test_too_small_a_family_is_refused() -> None:
    with pytest.raises(TaskError, match="num_arms must be at least 2, got 1"):
        Bandit(num_arms=1)
    with pytest.raises(TaskError, match="at least 2 states and actions"):
        TabularMDP(num_states=1)
