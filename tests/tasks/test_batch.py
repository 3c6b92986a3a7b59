"""Batches: the generic one, the array-native one, and a batch of one as a Gymnasium environment."""

from __future__ import annotations

import numpy as np
import pytest

from metarl.errors import TaskError
from metarl.tasks import EnvBatch, SingleTaskEnv, TaskDistribution, available_distributions, load_distribution
from tests.registered import load


@pytest.fixture(params=["PointGoal", "HalfCheetahVel", "EnvBatch"])
def family(request: pytest.FixtureRequest) -> TaskDistribution:
    if request.param != "EnvBatch":
        return load_distribution(request.param)
    point = load_distribution("PointGoal")
    point.make_batch = lambda tasks: EnvBatch(point.make, tasks)  # type: ignore[method-assign]
    return point


def test_resets_continue_one_stream_of_randomness_until_seeded_again(family: TaskDistribution) -> None:
    batch = family.make_batch(family.sample("train", 3, seed=0))
    first, second, third = batch.reset(seed=5)[0], batch.reset()[0], batch.reset()[0]
    again = [batch.reset(seed=5)[0], batch.reset()[0], batch.reset()[0]]
    assert not np.array_equal(first, second)
    assert not np.array_equal(second, third)
    for a, b in zip((first, second, third), again, strict=True):
        np.testing.assert_array_equal(a, b)


def test_sub_environments_start_differently_from_one_seed(family: TaskDistribution) -> None:
    obs, _ = family.make_batch(family.sample("train", 1, seed=0) * 3).reset(seed=5)
    assert len(np.unique(obs, axis=0)) == 3


def test_a_reset_mask_resets_only_the_masked(family: TaskDistribution) -> None:
    batch = family.make_batch(family.sample("train", 3, seed=0))
    batch.reset(seed=5)
    moved, *_ = batch.step(np.full(batch.action_space.shape, 0.1))
    obs, _ = batch.reset(seed=6, options={"reset_mask": np.array([False, True, False])})
    np.testing.assert_array_equal(obs[[0, 2]], moved[[0, 2]])
    assert not np.array_equal(obs[1], moved[1])


def test_observations_given_out_are_never_written_again(family: TaskDistribution) -> None:
    batch = family.make_batch(family.sample("train", 2, seed=0))
    first, _ = batch.reset(seed=0)
    kept = first.copy()
    second, *_ = batch.step(np.full(batch.action_space.shape, 0.1))
    kept_second = second.copy()
    batch.step(np.full(batch.action_space.shape, -0.1))
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_array_equal(second, kept_second)


def test_another_number_of_tasks_is_refused(family: TaskDistribution) -> None:
    batch = family.make_batch(family.sample("train", 2, seed=0))
    with pytest.raises(TaskError, match="holds 2 tasks, got 3"):
        batch.set_tasks(family.sample("train", 3, seed=0))


def test_a_batch_without_tasks_is_refused(family: TaskDistribution) -> None:
    with pytest.raises(TaskError, match="at least one task"):
        family.make_batch([])


@pytest.mark.parametrize("name", available_distributions())
def test_a_horizon_below_one_is_refused(name: str) -> None:
    with pytest.raises(TaskError, match="horizon must be at least 1, got 0"):
        load(name, horizon=0)


def test_an_unknown_backend_is_refused_with_the_known_ones() -> None:
    with pytest.raises(TaskError, match="backend must be mjbatch or mujoco, got 'bullet'"):
        load_distribution("HalfCheetahVel", backend="bullet")


def test_a_single_environment_knows_its_task() -> None:
    point = load_distribution("PointGoal")
    task = point.sample("train", 1, seed=0)[0]
    env = point.make(task)
    assert isinstance(env, SingleTaskEnv)
    assert env.task == task


def test_a_batch_of_one_as_an_environment_reports_success_as_a_single_flag() -> None:
    family = load_distribution("PointGoal")
    batch = family.make_batch(family.sample("train", 1, seed=0))
    step = batch.step
    batch.step = lambda actions: (*step(actions)[:4], {"is_success": np.ones(1)})  # type: ignore[method-assign]
    env = SingleTaskEnv(batch)
    env.reset(seed=0)
    assert env.step(env.action_space.sample())[4]["success"] is True
