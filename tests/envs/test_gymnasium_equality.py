"""MuJoCo families step exactly as Gymnasium's own v5 environments from equal states and actions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest

from metarl.tasks import Task, load_distribution
from metarl.tasks.mujoco import MujocoBatch
from metarl.tasks.physics import mjbatch_is_available

BACKENDS = [
    "mujoco",
    pytest.param("mjbatch", marks=pytest.mark.skipif(not mjbatch_is_available(), reason="mjbatch is not installed")),
]

Reward = Callable[[dict[str, Any], np.ndarray, np.ndarray], float]  # (Gymnasium's info, action, qpos) -> our reward


@dataclass(frozen=True)
class Case:
    name: str
    values: dict[str, Any]
    gym_id: str
    reward: Reward
    gym_options: dict[str, Any]
    action_scale: float = 1.0


def _square(action: np.ndarray) -> float:
    return float(np.sum(np.square(action.astype(np.float64))))


def _along(angle: float, weight: float) -> Reward:
    """Gymnasium's own terms, with the forward term along `angle` and without the contact cost."""

    def reward(info: dict[str, Any], action: np.ndarray, qpos: np.ndarray) -> float:
        forward = weight * (np.cos(angle) * info["x_velocity"] + np.sin(angle) * info["y_velocity"])
        return float(forward + info["reward_ctrl"] + info["reward_survive"])

    return reward


NO_FORCES = {"include_cfrc_ext_in_observation": False}
CASES = [
    Case(
        "HalfCheetahVel",
        {"velocity": 1.25},
        "HalfCheetah-v5",
        lambda info, a, _: -abs(info["x_velocity"] - 1.25) - 0.05 * _square(a),
        {},
    ),
    Case(
        "HalfCheetahDir",
        {"direction": -1.0},
        "HalfCheetah-v5",
        lambda info, a, _: -info["x_velocity"] - 0.05 * _square(a),
        {},
    ),
    Case("AntDir", {"angle": np.pi}, "Ant-v5", _along(np.pi, 1.0), NO_FORCES),
    Case("AntDir2D", {"angle": 0.7}, "Ant-v5", _along(0.7, 1.0), NO_FORCES),
    Case(
        "AntGoal",
        {"goal": (1.0, -2.0)},
        "Ant-v5",
        lambda _, a, qpos: -abs(qpos[0] - 1.0) - abs(qpos[1] + 2.0) - 0.1 * _square(a),
        {**NO_FORCES, "exclude_current_positions_from_observation": False, "terminate_when_unhealthy": False},
    ),
    Case("HumanoidDir", {"angle": 2.0}, "Humanoid-v5", _along(2.0, 1.25), NO_FORCES),
    Case("Walker2dRandParams", {}, "Walker2d-v5", lambda info, *_: _sum_of_terms(info), {}),
    Case("HopperRandParams", {}, "Hopper-v5", lambda info, *_: _sum_of_terms(info), {}, action_scale=0.2),
]


def _sum_of_terms(info: dict[str, Any]) -> float:
    return float(info["reward_forward"] + info["reward_survive"] + info["reward_ctrl"])


def _task(case: Case, backend: str) -> tuple[Any, Task]:
    family = load_distribution(case.name, backend=backend)
    if case.values:
        return family, family.task(**case.values)
    unchanged = {p.name: (1.0,) * p.prior.size for p in family.parameters}  # type: ignore[attr-defined]
    return family, family.task(**unchanged)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_observation_reward_and_end_equal_gymnasiums_at_every_step(case: Case, backend: str) -> None:
    family, task = _task(case, backend)
    batch = family.make_batch([task])
    assert isinstance(batch, MujocoBatch)
    gym_env: Any = gymnasium.make(case.gym_id, **case.gym_options).unwrapped
    gym_env.action_space.seed(0)
    rng = np.random.default_rng(0)
    ends = 0
    for _ in range(3):
        batch.reset(seed=int(rng.integers(1000)))
        qpos, qvel = batch.physics.qpos.copy(), batch.physics.qvel.copy()
        mujoco.mj_resetData(gym_env.model, gym_env.data)
        gym_env.set_state(qpos[0], qvel[0])
        np.testing.assert_array_equal(family.observe(batch.physics)[0], gym_env._get_obs())
        for _ in range(200):
            action = case.action_scale * gym_env.action_space.sample().astype(np.float64) * rng.uniform(0, 1)
            obs, reward, terminated, truncated, _ = batch.step(action[None])
            gym_obs, _, gym_terminated, _, info = gym_env.step(action)
            np.testing.assert_allclose(obs[0], gym_obs, rtol=0, atol=1e-12)
            assert reward[0] == pytest.approx(case.reward(info, action, gym_env.data.qpos), rel=0, abs=1e-12)
            assert bool(terminated[0]) == bool(gym_terminated)
            assert not truncated[0]
            if gym_terminated:
                ends += 1
                break
    assert ends > 0 or case.name not in ("HumanoidDir", "Walker2dRandParams", "HopperRandParams")
    gym_env.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_spaces_are_gymnasiums(case: Case) -> None:
    family, task = _task(case, "mujoco")
    env, gym_env = family.make(task), gymnasium.make(case.gym_id, **case.gym_options)
    assert env.observation_space == gym_env.observation_space
    assert env.action_space == gym_env.action_space
    gym_env.close()


@pytest.mark.parametrize(
    ("name", "gym_id", "states"),
    [
        ("AntDir", "Ant-v5", {"low": (2, 0.19), "edge": (2, 1.0), "high": (2, 1.01), "nan": (5, np.nan)}),
        ("HumanoidDir", "Humanoid-v5", {"low": (2, 1.0), "inside": (2, 1.5), "high": (2, 2.0)}),
        ("Walker2dRandParams", "Walker2d-v5", {"low": (1, 0.8), "tilted": (2, -1.0), "inside": (2, 0.9)}),
        ("HopperRandParams", "Hopper-v5", {"low": (1, 0.7), "tilted": (2, 0.2), "far": (3, 100.0), "high": (1, 5.0)}),
    ],
)
def test_the_healthy_range_is_gymnasiums_at_its_edges(
    name: str, gym_id: str, states: dict[str, tuple[int, float]]
) -> None:
    family = load_distribution(name, backend="mujoco")
    batch = family.make_batch(family.sample("train", len(states), seed=0))
    assert isinstance(batch, MujocoBatch)
    gym_env: Any = gymnasium.make(gym_id).unwrapped
    batch.reset(seed=0)
    for i, (index, value) in enumerate(states.values()):
        batch.physics.qpos[i] = gym_env.init_qpos
        batch.physics.qvel[i] = 0
        batch.physics.qpos[i, index] = value
    ours = family.terminated(batch.physics)  # type: ignore[attr-defined]
    for i, state in enumerate(states):
        gym_env.data.qpos[:], gym_env.data.qvel[:] = batch.physics.qpos[i], batch.physics.qvel[i]
        assert bool(ours[i]) == (not gym_env.is_healthy), state
    gym_env.close()
