"""Quadruped: it stands whatever its task, sees what a robot sees, and is rewarded for walking forward."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
from metarl_envs.quadruped import (
    EFFECTS,
    FRAME_SKIP,
    MODEL,
    VARY,
    Quadruped,
    fallen,
    observe,
    reward,
    steadiness,
    tracking,
    velocity,
)

from metarl.tasks import Task, load_distribution
from metarl.tasks.mujoco import MujocoBatch
from metarl.tasks.variation import MujocoVariation
from metarl.tasks.variation.equations import State

PLAIN, SPEED = "PlainQuadruped-v0", 0.6


class OneRobot:
    """`Physics` of a single simulation as far as a State reads it."""

    def __init__(self, model: Any, simulated: Any):
        self.model, self._data = model, simulated
        self.qpos, self.qvel, self.ctrl = (np.array(a)[None] for a in (simulated.qpos, simulated.qvel, simulated.ctrl))

    def data(self, name: str) -> np.ndarray:
        return np.array(getattr(self._data, name))[None]


class PlainQuadruped(gymnasium.Env[np.ndarray, np.ndarray]):
    """One robot on plain MuJoCo, as a user of Gymnasium would write it. start: positions and velocities at a reset."""

    def __init__(self) -> None:
        self.model = mujoco.MjModel.from_xml_path(str(MODEL))
        self.data = mujoco.MjData(self.model)
        self.start = (self.model.qpos0, np.zeros(self.model.nv))
        low, high = self.model.actuator_ctrlrange.T.astype(np.float32)
        self.action_space = gymnasium.spaces.Box(low, high, dtype=np.float32)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (42,), np.float64)

    def state(self) -> Any:
        robot: Any = OneRobot(self.model, self.data)
        return State(robot)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:], self.data.qvel[:] = self.start
        mujoco.mj_forward(self.model, self.data)
        return observe(self.state())[0], {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        before = self.state()
        self.data.ctrl[:] = action
        mujoco.mj_step(self.model, self.data, FRAME_SKIP)
        after = self.state()
        earned = reward(before, action[None], after, {})[0]
        return observe(after)[0], float(earned), bool(fallen(after)[0]), False, {}


@pytest.fixture
def plain() -> Iterator[None]:
    gymnasium.register(PLAIN, f"{__name__}:PlainQuadruped")
    yield
    del gymnasium.registry[PLAIN]


@pytest.fixture(scope="module")
def family() -> Quadruped:
    found = load_distribution("Quadruped")
    assert isinstance(found, Quadruped)
    return found


def batch_of(family: Quadruped, tasks: tuple[Task, ...], seed: int = 0) -> MujocoBatch:
    batch = family.make_batch(tasks)
    assert isinstance(batch, MujocoBatch)
    batch.reset(seed=seed)
    return batch


def task_of(family: Quadruped, **values: Any) -> Task:
    """An easy task, but for `values`."""
    easy: dict[str, Any] = {"payload": 0.0, "friction": 0.8, "strength": 1.0, "failed_motor": -1.0}
    return family.task(**{**easy, "failed_motor.at_step": 60.0, "action_delay": 0.0, **values})


def batch_at(family: Quadruped, qpos: np.ndarray) -> MujocoBatch:
    """Robots at these positions [n, nq], without velocity."""
    batch = batch_of(family, (task_of(family),) * len(qpos))
    batch.physics.reset(None, qpos, np.zeros((len(qpos), 18)))
    return batch


def placed(family: Quadruped, qpos: np.ndarray) -> State:
    return State(batch_at(family, qpos).physics)


def standing(family: Quadruped, n: int) -> np.ndarray:
    return np.tile(family.model().qpos0, (n, 1))


# --- the robot ---------------------------------------------------------------------------------------


def test_the_robot_weighs_12_kg_and_only_feet_and_trunk_touch_the_floor(family: Quadruped) -> None:
    model = family.model()
    assert model.body_mass.sum() == pytest.approx(12.2)
    touching = {model.geom(i).name for i in np.flatnonzero(model.geom_conaffinity)}
    legs = [f"{end}_{side}" for end in ("front", "hind") for side in ("left", "right")]
    assert touching == {"trunk", *(f"{leg}_foot" for leg in legs)}
    assert [model.actuator(i).name for i in range(3)] == [f"front_left_{j}" for j in ("abduction", "hip", "knee")]
    assert model.opt.timestep * FRAME_SKIP == pytest.approx(1 / 50)


def test_it_stands_through_the_episode_on_the_hardest_and_on_random_tasks(family: Quadruped) -> None:
    hard = {"payload": 3.0, "friction": 0.4, "strength": 0.8, "failed_motor.at_step": 50.0}
    tasks = tuple(task_of(family, **hard, failed_motor=float(motor)) for motor in range(-1, 9))
    batch = batch_of(family, tasks + family.sample("train", 40, 3) + family.sample("ood", 10, 3))
    zero = np.zeros((batch.num_envs, 12))
    earned = np.zeros(batch.num_envs)
    for _ in range(family.horizon):
        _, rewards, terminated, _, _ = batch.step(zero)
        earned += rewards
    assert not terminated.any()
    assert batch.physics.qpos[:, 2].min() > 0.22
    assert earned == pytest.approx(np.full(batch.num_envs, family.anchors.nothing), abs=4.0)


def test_a_failed_motor_has_no_torque_from_its_step_on(family: Quadruped) -> None:
    tasks = tuple(task_of(family, failed_motor=motor, **{"failed_motor.at_step": 50.0}) for motor in (2.0, -1.0))
    batch = batch_of(family, tasks)
    action = np.full((2, 12), 0.2)
    forces = []
    for _ in range(53):
        batch.step(action)
        forces.append(State(batch.physics).sensor("front_left_knee")[:, 0].copy())
    failed, intact = np.array(forces).T
    assert (failed[:50] != 0).all()
    assert (intact != 0).all()
    np.testing.assert_array_equal(failed[50:], 0.0)


def test_strength_is_a_factor_of_stiffness_and_torque_limit(family: Quadruped) -> None:
    batch = batch_of(family, (task_of(family, strength=0.8), task_of(family)))
    for field, column in (("actuator_gainprm", 0), ("actuator_biasprm", 1), ("actuator_forcerange", 1)):
        weak, own = batch.physics.field(field)[:, :, column]
        np.testing.assert_allclose(weak, 0.8 * own)


def test_entries_can_be_replaced_and_left_out() -> None:
    light = {"field": "payload[trunk]", "prior": {"uniform": [0.0, 1.0]}}
    family = Quadruped(vary={"payload": light, "failed_motor": None}, effects={"action_delay": None})
    assert [parameter.name for parameter in family.parameters] == ["payload", "friction", "strength"]
    assert family.sample("train", 1, 0)[0]["payload"] <= 1.0  # type: ignore[operator]


# --- the equations -----------------------------------------------------------------------------------


def test_tracking_is_1_at_the_command_and_0_standing_still_sideways_or_backwards() -> None:
    velocities = np.array([[SPEED, 0.0], [0.0, 0.0], [SPEED / 2, 0.0], [0.0, SPEED], [-1.0, 0.0], [2.0, 0.0]])
    np.testing.assert_allclose(tracking(velocities), [1.0, 0.0, 0.5, 0.0, 0.0, 0.0], atol=1e-12)


def test_a_robot_pushed_forward_has_that_velocity_in_its_own_heading(family: Quadruped) -> None:
    qpos = standing(family, 2)
    qpos[1, 3:7] = [np.sqrt(0.5), 0.0, 0.0, np.sqrt(0.5)]  # a quarter turn to the left: forward is y
    moved = qpos.copy()
    moved[0, 0] += SPEED * 0.02
    moved[1, 1] += SPEED * 0.02
    before, after = (State(batch_at(family, at).physics, is_copy=True) for at in (qpos, moved))
    np.testing.assert_allclose(velocity(before, after), [[SPEED, 0.0]] * 2, atol=1e-12)


def test_a_trunk_that_rocks_or_bounces_is_less_steady() -> None:
    qvel = np.zeros((3, 18))
    qvel[1, 3] = 4.0  # rad/s
    qvel[2, 2] = -0.6  # m/s
    np.testing.assert_allclose(steadiness(qvel), [1.0, np.exp(-1.0), np.exp(-1.0)])


def test_changed_targets_cost_their_squares(family: Quadruped) -> None:
    batch = batch_of(family, (task_of(family),))
    before, after = State(batch.physics, is_copy=True), State(batch.physics, is_copy=True)
    still = reward(before, np.zeros((1, 12)), after, {})
    after.ctrl[:] = 0.1
    assert still - reward(before, np.zeros((1, 12)), after, {}) == pytest.approx(0.02 * 12 * 0.1**2)


def test_the_previous_targets_are_those_of_the_step_before(family: Quadruped) -> None:
    seen: list[np.ndarray] = []

    def spied(before: Any, action: np.ndarray, after: Any, task: Any) -> np.ndarray:
        seen.append(np.stack((before.ctrl[0], after.ctrl[0])))
        return np.zeros(1)

    payload = {"field": "payload[trunk]", "prior": {"uniform": [0, 1]}}
    varied = MujocoVariation(model=str(MODEL), reward=spied, vary={"payload": payload})
    batch = varied.make_batch(varied.sample("train", 1, 0))
    for _ in range(2):
        batch.reset(seed=0)
        batch.step(np.full((1, 12), 0.1))
        batch.step(np.full((1, 12), 0.2))
    np.testing.assert_allclose(np.array(seen)[:, :, 0], [[0, 0.1], [0.1, 0.2]] * 2)


def test_the_observation_holds_neither_place_nor_heading_nor_task(family: Quadruped) -> None:
    qpos = standing(family, 2)
    qpos[1, :2] = [3.0, -2.0]
    qpos[1, 3:7] = [np.cos(0.4), 0.0, 0.0, np.sin(0.4)]
    here, there = observe(placed(family, qpos))
    np.testing.assert_allclose(here, there, atol=1e-12)
    assert here.shape == (42,)
    loaded = batch_of(family, (task_of(family), task_of(family, payload=3.0, friction=0.4, strength=0.8)))
    loaded.physics.reset(None, standing(family, 2), np.zeros((2, 18)))
    np.testing.assert_array_equal(*observe(State(loaded.physics)))


def test_gravity_points_down_in_the_trunks_frame(family: Quadruped) -> None:
    qpos = standing(family, 3)
    qpos[1, 3:7] = [np.cos(0.25), 0.0, np.sin(0.25), 0.0]  # nose down by 0.5 rad
    qpos[2, 3:7] = [np.cos(0.25), np.sin(0.25), 0.0, 0.0]  # right side down
    gravity = observe(placed(family, qpos))[:, :3]
    s, c = np.sin(0.5), np.cos(0.5)
    np.testing.assert_allclose(gravity, [[0, 0, -1], [s, 0, -c], [0, -s, -c]], atol=1e-12)


def test_low_and_steep_robots_have_fallen(family: Quadruped) -> None:
    qpos = standing(family, 3)
    qpos[1, 2] = 0.14
    qpos[2, 3:7] = [np.cos(0.45), np.sin(0.45), 0.0, 0.0]  # 0.9 rad: cos 0.62
    assert fallen(placed(family, qpos)).tolist() == [False, True, True]


# --- the paths ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("plain")
def test_a_batch_is_the_same_as_single_environments_behind_wrappers(family: Quadruped) -> None:
    tasks = family.sample("train", 3, 1) + family.sample("ood", 1, 1)
    gym = MujocoVariation(env=PLAIN, vary=VARY, effects=EFFECTS, horizon=family.horizon)
    assert not gym.is_native
    native, other = batch_of(family, tasks), gym.make_batch([gym.task(**dict(task.values)) for task in tasks])
    for i, env in enumerate(other.environments):  # type: ignore[attr-defined]
        env.unwrapped.start = (native.physics.qpos[i].copy(), native.physics.qvel[i].copy())
    other.reset(seed=0)
    rng, changes = np.random.default_rng(0), [task["failed_motor.at_step"] for task in tasks]
    for _ in range(110):
        action = rng.uniform(-0.15, 0.15, (4, 12)).astype(np.float32)
        (a, earned, ended, _, _), (b, gym_earned, gym_ended, _, _) = native.step(action), other.step(action)
        np.testing.assert_allclose(a, b, atol=1e-12, rtol=0)
        np.testing.assert_allclose(earned, gym_earned, atol=1e-12, rtol=0)
        np.testing.assert_array_equal(ended, gym_ended)
    assert not ended.any()
    assert min(changes) < 110  # type: ignore[operator]
    other.close()
