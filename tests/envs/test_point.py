"""Point robots: hand-worked steps, and anchors against roll-outs of the policies they stand for."""

from __future__ import annotations

import math

import numpy as np
import pytest
from metarl_envs.point import PointGoal, SparsePointGoal, point_expert, point_nothing, point_task_blind

from metarl.tasks import TaskDistribution


def test_the_reward_is_the_distance_after_a_clipped_move() -> None:
    # start (0, 0) is not drawn: step from wherever it is. 0.5 clips to 0.1, -0.05 stays.
    family = PointGoal()
    batch = family.make_batch([family.task(goal=(1.0, -1.0))])
    start, _ = batch.reset(seed=0)
    obs, reward, *_ = batch.step(np.array([[0.5, -0.05]]))
    np.testing.assert_allclose(obs - start, [[0.1, -0.05]], atol=1e-15)
    assert reward[0] == pytest.approx(-math.hypot(obs[0, 0] - 1.0, obs[0, 1] + 1.0), abs=1e-15)


def test_the_sparse_reward_is_paid_only_near_the_goal() -> None:
    # goal (1, 0): after 7 steps of 0.1 the distance is 0.3, after 9 it is 0.1, after 10 it is 0
    family = SparsePointGoal()
    batch = family.make_batch([family.task(angle=0.0)])
    obs, _ = batch.reset(seed=0)
    assert obs.tolist() == [[0.0, 0.0]]
    rewards = [batch.step(np.array([[0.1, 0.0]]))[1][0] for _ in range(10)]
    assert rewards[:7] == [0.0] * 7
    assert rewards[8:] == pytest.approx([0.9, 1.0], abs=1e-12)


def _returns(family: TaskDistribution, target: str, n: int = 20_000) -> float:
    tasks = family.sample("train", n, seed=0)
    batch = family.make_batch(tasks)
    obs, _ = batch.reset(seed=0)
    if "goal" in tasks[0].values:
        goals = np.array([task["goal"] for task in tasks])
    else:
        angles = np.array([task["angle"] for task in tasks])
        goals = np.stack((np.cos(angles), np.sin(angles)), axis=1)
    total = 0.0
    for _ in range(family.horizon):
        action = {"nothing": 0 * obs, "task_blind": -obs, "expert": goals - obs}[target]
        obs, rewards, *_ = batch.step(action)
        total += float(rewards.mean())
    return total


@pytest.mark.parametrize("target", ["nothing", "task_blind", "expert"])
@pytest.mark.parametrize("horizon", [5, 20])
def test_point_goal_anchors_are_the_mean_returns_of_their_policies(target: str, horizon: int) -> None:
    family = PointGoal(horizon=horizon)
    assert _returns(family, target) == pytest.approx(getattr(family.anchors, target), rel=0.02)


def test_the_sparse_expert_anchor_is_the_mean_return_of_going_straight() -> None:
    family = SparsePointGoal(horizon=20)
    assert _returns(family, "expert") == pytest.approx(family.anchors.expert, rel=0.01)
    assert _returns(family, "nothing") == family.anchors.nothing == 0.0


def test_anchors_are_ordered_and_the_first_of_them_is_the_known_mean_distance_in_a_square() -> None:
    # mean distance of two uniform points in a square of side 2: 2 x 0.5214054331
    assert point_nothing(1) == pytest.approx(-2 * 0.5214054331, abs=1e-9)
    assert point_nothing(20) < point_task_blind(20) < point_expert(20) < 0


def test_a_target_further_on_needs_all_twenty_steps() -> None:
    # from corner to corner is 2 in each coordinate: 20 steps of 0.1; step 21 costs nothing more
    assert point_expert(25) == pytest.approx(point_expert(20), abs=1e-12)
