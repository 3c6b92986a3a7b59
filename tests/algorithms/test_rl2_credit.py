"""Credit over a trial, worked out by hand: discount 1/2, episodes of at most 5 steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from metarl.algorithms.rl2.config import RL2Config
from metarl.algorithms.rl2.credit import Credit, trial_advantages
from metarl.algorithms.rl2.sequences import Sequences
from metarl.rollout.types import Episodes

HORIZON = 5
CHOICES = ("horizon", "elapsed", "none")


def trial_of(rewards: list[list[float]], values: list[list[float]], terminated: list[bool]) -> Sequences:
    """One task, one stream; a list of rewards and of logged values per episode."""
    rounds = []
    for episode, logged, is_terminal in zip(rewards, values, terminated, strict=True):
        padding = [0.0] * (HORIZON - len(episode))
        r, v = (np.array([[row + padding]], np.float32) for row in (episode, logged))
        zeros = np.zeros((1, 1, HORIZON, 2), np.float32)
        ends = np.array([[is_terminal]]), np.array([[not is_terminal]])
        rounds.append(
            Episodes(zeros, zeros[..., :1], r, np.array([[len(episode)]]), *ends, zeros[:, :, 0], {"value": v})
        )
    return Sequences.of([rounds])


def both(s: Sequences, last_values: list[float], across: Any, **options: Any) -> tuple[list[float], list[float]]:
    """Advantages and targets."""
    settings: dict[str, Any] = {"gamma": 0.5, "episode_gamma": 1.0, "gae_lambda": 1.0, "horizon": HORIZON, **options}
    last = np.array([last_values], np.float32)
    advantages, targets = trial_advantages(s, s.extras["value"], last, Credit(across, **settings))
    return [round(float(x), 6) for x in advantages[0]], [round(float(x), 6) for x in targets[0]]


def advantages(s: Sequences, last_values: list[float], across: Any, **options: Any) -> list[float]:
    return both(s, last_values, across, **options)[0]


ZEROS = [[0.0, 0.0], [0.0, 0.0]]


# --- elapsed ---


def test_elapsed_a_reward_in_episode_two_reaches_episode_one_across_a_terminal_state():
    trial = trial_of([[0, 0], [0, 8]], ZEROS, terminated=[True, True])
    assert advantages(trial, [100, 100], "elapsed") == [1, 2, 4, 8]  # 8 / 2 per step back


def test_elapsed_the_critic_of_the_next_episodes_first_step_is_the_bootstrap_of_the_last_step_before_it():
    trial = trial_of([[1, 2], [3]], [[10, 20], [40]], terminated=[False, True])
    # lambda 0: r + 0.5 v' - v = 1 + 10 - 10, 2 + 20 - 20, and 3 + 0 - 40 at the terminal end of the trial
    assert advantages(trial, [100, 100], "elapsed", gae_lambda=0.0) == [1, 2, -37]


@pytest.mark.parametrize("across", CHOICES)
def test_a_time_limit_at_the_end_of_the_trial_bootstraps(across):
    trial = trial_of([[3]], [[40]], terminated=[False])
    assert advantages(trial, [100], across, gae_lambda=0.0) == [3 + 50 - 40]


@pytest.mark.parametrize("across", CHOICES)
def test_the_critics_target_is_the_discounted_return_for_lambda_one(across):
    trial = trial_of([[2, 4], [0, 8]], [[3, 5], [7, 9]], terminated=[True, True])
    second = [4, 8]
    first = {
        "elapsed": [2 + 0.5 * (4 + 0.5 * 4), 4 + 0.5 * 4],
        "horizon": [2 + 0.5 * (4 + 0.5**4 * 4), 4 + 0.5**4 * 4],  # three steps of five were not used
        "none": [2 + 0.5 * 4, 4],
    }
    assert both(trial, [100, 100], across)[1] == [*first[across], *second]


# --- horizon ---


def test_horizon_the_steps_that_a_terminal_state_leaves_unused_discount_the_episodes_after_it():
    trial = trial_of([[0, 0], [0, 8]], ZEROS, terminated=[True, True])
    assert advantages(trial, [100, 100], "horizon") == [4 / 2**5, 4 / 2**4, 4, 8]


def test_horizon_is_the_credit_of_the_trial_filled_up_by_steps_that_pay_nothing():
    short = trial_of([[1, 2], [3], [4, 5, 6]], [[0, 0], [0], [0, 0, 0]], terminated=[True, True, True])
    full = trial_of(
        [[1, 2, 0, 0, 0], [3, 0, 0, 0, 0], [4, 5, 6]],
        [[0.0] * 5, [0.0] * 5, [0.0] * 3],
        terminated=[False, False, True],
    )
    filled = advantages(full, [0, 0, 0], "elapsed")
    assert advantages(short, [0, 0, 0], "horizon") == [filled[i] for i in (0, 1, 5, 10, 11, 12)]


def test_horizon_a_time_limit_before_the_horizon_costs_nothing():
    trial = trial_of([[0, 0], [0, 8]], ZEROS, terminated=[False, True])
    assert advantages(trial, [100, 100], "horizon") == [1, 2, 4, 8]


def test_only_elapsed_lets_a_robot_fall_for_nothing():
    """Reward 1 a step, and a critic that says 2 everywhere, which is right for a robot that stands: 1 / (1 - 1/2)."""
    trial = trial_of([[1], [1]], [[2], [2]], terminated=[True, False])
    costs = {across: advantages(trial, [2, 2], across)[0] for across in CHOICES}
    assert costs == {"elapsed": 0.0, "horizon": 1 + 0.5**5 * 2 - 2, "none": 1 - 2}


# --- none ---


def test_none_each_episode_ends_as_if_it_were_the_last():
    trial = trial_of([[1, 2], [3]], [[10, 20], [40]], terminated=[False, True])
    # 2 + 0.5 * 100 - 20 = 32 where time ran out; 1 + 0.5 * 20 - 10 = 1 before it, plus half of 32; 3 - 40 at the end
    assert advantages(trial, [100, 200], "none") == [17, 32, -37]


def test_none_is_the_credit_of_the_episodes_as_trials_of_their_own():
    rewards, values, ends = [[1.0, 2], [3.0], [4.0, 5, 6]], [[7.0, 8], [9.0], [1.0, 2, 3]], [True, False, True]
    whole = advantages(trial_of(rewards, values, ends), [10, 20, 30], "none", gae_lambda=0.7)
    parts = [
        advantages(trial_of([r], [v], [end]), [last], "elapsed", gae_lambda=0.7)
        for r, v, end, last in zip(rewards, values, ends, [10, 20, 30], strict=True)
    ]
    assert whole == [advantage for part in parts for advantage in part]


# --- the discount across episodes ---


def test_episode_gamma_discounts_every_later_episode_once_more():
    trial = trial_of([[0, 0], [0, 8]], ZEROS, terminated=[False, True])
    for across in ("elapsed", "horizon"):
        assert advantages(trial, [100, 100], across, episode_gamma=0.5) == [0.5, 1, 4, 8]
    three = trial_of([[0], [0], [8]], [[0], [0], [0]], terminated=[False, False, True])
    assert advantages(three, [0, 0, 0], "elapsed", episode_gamma=0.5) == [8 / 4**2, 8 / 4, 8]


@pytest.mark.parametrize("across", ["horizon", "elapsed", "none"])
def test_without_bootstrapping_nothing_follows_a_time_limit_and_a_terminal_state_counts_as_ever(across: Any):
    cut = trial_of([[0, 0], [0, 8]], ZEROS, terminated=[False, False])
    over = trial_of([[0, 0], [0, 8]], ZEROS, terminated=[False, True])
    plain = advantages(over, [0, 0], across)
    assert advantages(cut, [100, 100], across, bootstrap_truncated=False) == plain
    assert advantages(cut, [100, 100], across) != plain
    assert advantages(over, [0, 100], across, bootstrap_truncated=False) == plain


def test_undiscounted_returns_of_a_trial_are_the_sum_of_its_rewards():
    trial = trial_of([[1, 2], [3, 4]], ZEROS, terminated=[False, False])
    assert advantages(trial, [100, 100], "horizon", gamma=1.0, bootstrap_truncated=False) == [10, 9, 7, 4]


def test_no_discount_and_a_future_without_end_are_refused_together():
    with pytest.raises(ValidationError, match="bootstrap_truncated needs gamma below 1"):
        RL2Config(name="rl2", gamma=1.0)
    assert RL2Config(name="rl2", gamma=1.0, bootstrap_truncated=False).gamma == 1


def test_padding_has_no_credit():
    long = trial_of([[0, 0], [0, 8]], ZEROS, terminated=[True, True])
    short = trial_of([[0], [8]], [[0], [0]], terminated=[True, True])
    arrays = [
        {name: value for name, value in vars(s).items() if name != "extras"} | {"values": s.extras["value"]}
        for s in (short, long)
    ]

    def padded(x: np.ndarray) -> np.ndarray:
        return np.concatenate((x, np.zeros((1, 4 - x.shape[1], *x.shape[2:]), x.dtype)), axis=1)

    rows = {
        name: np.concatenate((value if name in ("lengths", "terminated") else padded(value), arrays[1][name]))
        for name, value in arrays[0].items()
    }
    values = rows.pop("values")
    s = Sequences(**rows, extras={"value": values})
    result, targets = trial_advantages(
        s, values, np.full((2, 2), 9.0, np.float32), Credit("elapsed", 0.5, 1, 1, HORIZON)
    )
    assert result.tolist() == targets.tolist() == [[4, 8, 0, 0], [1, 2, 4, 8]]
