"""Anchors of the MuJoCo families: zero actions earn what `nothing` says, and lengths scale where exact."""

from __future__ import annotations

import math

import numpy as np
import pytest

from metarl.errors import TaskError
from metarl.tasks import load_distribution
from tests import registered
from tests.registered import load

MUJOCO = [name for name in registered.MUJOCO if load(name).anchors.source]
# Standard errors of 60 tasks; the closed forms leave out reset noise.
TOLERANCE = {
    "AntDir": 3.0,
    "AntDir2D": 3.0,
    "AntGoal": 80.0,
    "HalfCheetahVel": 70.0,
    "HalfCheetahDir": 1.0,
    "HalfCheetahDynamics": 1.0,
    "HumanoidDir": 3.0,
    "HopperRandParams": 20.0,
    "Quadruped": 2.0,
    "Walker2dRandParams": 15.0,
}


@pytest.mark.parametrize("name", MUJOCO)
def test_zero_actions_earn_what_the_anchor_says(name: str) -> None:
    family = load_distribution(name)
    batch = family.make_batch(family.sample("train", 60, seed=0))
    batch.reset(seed=0)
    assert batch.action_space.shape is not None
    total, zero = np.zeros(60), np.zeros(batch.action_space.shape)
    for _ in range(family.horizon):
        _, rewards, terminated, _, _ = batch.step(zero)
        total += rewards
        if terminated.all():
            break
    assert total.mean() == pytest.approx(family.anchors.nothing, abs=TOLERANCE[name])


@pytest.mark.parametrize(
    ("name", "nothing", "task_blind"),
    [
        ("HalfCheetahVel", -300.0, -150.0),
        ("HalfCheetahDir", 0.0, 0.0),
        ("AntDir", 200.0, 200.0),
        ("AntGoal", -509.3, -509.3),
        ("HumanoidDir", 196.8, 1000.0),
    ],
)
def test_anchors_at_two_hundred_steps(name: str, nothing: float, task_blind: float) -> None:
    anchors = load_distribution(name, horizon=200).anchors
    assert anchors.nothing == pytest.approx(nothing, abs=0.05)
    assert anchors.task_blind == pytest.approx(task_blind, abs=0.05)


def test_closed_forms_scale_with_the_horizon_and_measured_ones_are_left_out() -> None:
    assert load_distribution("HalfCheetahVel", horizon=100).anchors.nothing == -150.0
    assert load_distribution("AntGoal", horizon=100).anchors.nothing == pytest.approx(-100 * 8 / math.pi)
    assert load_distribution("HopperRandParams", horizon=100).anchors.nothing is None
    assert load_distribution("HumanoidDir", horizon=20).anchors.nothing is None


@pytest.mark.parametrize("name", ["HalfCheetahVel", "AntGoal"])
def test_anchors_of_another_protocol_are_not_those_of_the_standard_one(name: str) -> None:
    assert load_distribution(name, protocol="interpolation").anchors.nothing is None
    with pytest.raises(TaskError, match="protocol must be standard or interpolation, got 'other'"):
        load_distribution(name, protocol="other")


def test_walker_says_that_it_shows_little_about_adaptation() -> None:
    walker = load_distribution("Walker2dRandParams")
    assert "task-blind" in walker.anchors.source
    assert "little about adaptation" in (type(walker).__doc__ or "")


def test_ant_forward_and_backward_are_opposite_directions() -> None:
    family = load_distribution("AntDir")
    tasks = sorted(family.finite_tasks() or (), key=lambda task: float(task.vector()[0]))
    assert [float(task.vector()[0]) for task in tasks] == [0.0, math.pi]
    batch = family.make_batch(tasks)
    batch.reset(seed=[1])
    physics = batch.physics  # type: ignore[attr-defined]
    physics.reset(None, np.repeat(physics.qpos[:1], 2, axis=0), np.repeat(physics.qvel[:1], 2, axis=0))
    _, rewards, *_ = batch.step(np.zeros_like(batch.action_space.sample()))
    # equal motion v: (v + 1) + (-v + 1) = 2
    assert rewards.sum() == pytest.approx(2.0, abs=1e-12)
    assert rewards[0] != pytest.approx(1.0, abs=1e-6)
