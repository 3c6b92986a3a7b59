"""mjbatch and plain mujoco give bitwise the same trajectories; a batch is its simulations side by side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from gymnasium.spaces import Box

from metarl.tasks import Task, TaskDistribution, load_distribution
from metarl.tasks.mujoco import MujocoBatch
from metarl.tasks.physics import make_physics, mjbatch_is_available
from tests.registered import MUJOCO, load

ENDING = ["AntDir", "HumanoidDir", "HopperRandParams", "Walker2dRandParams"]
needs_mjbatch = pytest.mark.skipif(not mjbatch_is_available(), reason="mjbatch is not installed")


@dataclass(frozen=True)
class Episode:
    observations: np.ndarray  # [T+1, n, O]
    rewards: np.ndarray  # [T, n]
    terminated: np.ndarray  # [T, n]


def tasks_of(family: TaskDistribution, n: int = 6) -> tuple[Task, ...]:
    """Training and, where there are any, far tasks."""
    return family.sample("train", n // 2, seed=1) + family.sample("ood" if family.has_ood else "test", n // 2, seed=1)


def roll(batch: MujocoBatch, actions: np.ndarray, seed: int = 0, mask: np.ndarray | None = None) -> Episode:
    obs, _ = batch.reset(seed=seed, options=None if mask is None else {"reset_mask": mask})
    return follow(batch, obs, actions)


def follow(batch: MujocoBatch, obs: np.ndarray, actions: np.ndarray) -> Episode:
    observations, rewards, ends = [obs], [], []
    for action in actions:
        obs, reward, terminated, _, _ = batch.step(action)
        observations.append(obs)
        rewards.append(reward)
        ends.append(terminated)
    return Episode(np.array(observations), np.array(rewards), np.array(ends))


def build(name: str, backend: str, tasks: tuple[Task, ...] | None = None) -> tuple[MujocoBatch, np.ndarray]:
    """A batch and strong actions for 60 steps [60, n, A]."""
    family = load(name, backend=backend)
    batch = family.make_batch(tasks or tasks_of(family))
    assert isinstance(batch, MujocoBatch)
    assert isinstance(batch.action_space, Box)
    low, high = batch.action_space.low, batch.action_space.high
    return batch, np.random.default_rng(0).uniform(low, high, (60, *low.shape))


def assert_equal(a: Episode, b: Episode) -> None:
    np.testing.assert_array_equal(a.observations, b.observations)
    np.testing.assert_array_equal(a.rewards, b.rewards)
    np.testing.assert_array_equal(a.terminated, b.terminated)


@needs_mjbatch
@pytest.mark.parametrize("name", MUJOCO)
def test_mjbatch_equals_plain_mujoco_bitwise_over_several_episodes_and_tasks(name: str) -> None:
    (fast, actions), (plain, _) = build(name, "mjbatch"), build(name, "mujoco")
    for seed in (0, 1):
        assert_equal(roll(fast, actions, seed), roll(plain, actions, seed))
    other = load(name).sample("train", fast.num_envs, seed=9)
    fast.set_tasks(other)
    plain.set_tasks(other)
    assert_equal(roll(fast, actions), roll(plain, actions))


@needs_mjbatch
@pytest.mark.parametrize("name", ENDING)
def test_mjbatch_equals_plain_mujoco_bitwise_after_some_ended_early_and_only_those_were_reset(name: str) -> None:
    (fast, actions), (plain, _) = build(name, "mjbatch"), build(name, "mujoco")
    for t in range(len(actions)):
        if t == 0:
            roll(fast, actions[:1])
            ended = roll(plain, actions[:1]).terminated[-1]
        a, b = fast.step(actions[t]), plain.step(actions[t])
        np.testing.assert_array_equal(a[0], b[0])
        ended = b[2]
        if ended.any():
            break
    assert ended.any()
    assert_equal(roll(fast, actions, 3, ended), roll(plain, actions, 3, ended))


@pytest.mark.parametrize("name", ENDING)
def test_a_finished_simulation_stands_still_while_the_others_run(name: str) -> None:
    batch, actions = build(name, "mujoco")
    episode = roll(batch, actions)
    ends = episode.terminated
    assert ends[-1].any()
    for i in np.flatnonzero(ends[-1]):
        last = int(np.argmax(ends[:, i]))
        assert (episode.observations[last + 1 :, i] == episode.observations[last + 1, i]).all()
        assert not episode.rewards[last + 1 :, i].any()
        assert ends[last:, i].all()


@pytest.mark.parametrize("name", MUJOCO)
def test_a_batch_of_n_equals_n_batches_of_one_from_equal_states(name: str) -> None:
    batch, actions = build(name, "mujoco")
    batch.reset(seed=0)
    qpos, qvel = batch.physics.qpos.copy(), batch.physics.qvel.copy()
    together = roll(batch, actions[:20])
    family = load(name, backend="mujoco")
    for i, task in enumerate(batch.tasks):
        single = family.make_batch([task])
        assert isinstance(single, MujocoBatch)
        single.reset(seed=0)
        single.physics.reset(None, qpos[i : i + 1], qvel[i : i + 1])
        alone = follow(single, family.observe(single.physics), actions[:20, i : i + 1])  # type: ignore[attr-defined]
        np.testing.assert_array_equal(alone.observations[:, 0], together.observations[:, i])
        np.testing.assert_array_equal(alone.rewards[:, 0], together.rewards[:, i])


@needs_mjbatch
def test_a_control_written_for_a_finished_simulation_does_not_outlive_the_reset() -> None:
    batch, actions = build("HumanoidDir", "mjbatch")
    first, _ = batch.reset(seed=0)
    while not batch._terminated.all():
        batch.step(actions[0])
    batch.step(actions[1])
    again, _ = batch.reset(seed=0)
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("backend", ["mujoco", pytest.param("mjbatch", marks=needs_mjbatch)])
def test_physics_resets_only_the_selected_simulations(backend: str) -> None:
    model = load_distribution("HopperRandParams").model()  # type: ignore[attr-defined]
    physics = make_physics(model, 2, (), 1, backend)
    qpos, qvel = np.tile(model.qpos0, (2, 1)), np.ones((2, model.nv))
    physics.reset(None, qpos, 0 * qvel)
    physics.step(None, 3)
    before = physics.qpos.copy()
    physics.reset(np.array([False, True]), qpos, qvel)
    np.testing.assert_array_equal(physics.qpos[0], before[0])
    np.testing.assert_array_equal(physics.qpos[1], qpos[1])
    np.testing.assert_array_equal(physics.qvel[1], qvel[1])
