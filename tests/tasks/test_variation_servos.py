"""Servos: actuators that push at a control of 0. What a failure of theirs, and their strength, is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest

from metarl.tasks import Parameter, Task, TaskDistribution, Uniform
from metarl.tasks.check import check_distribution
from metarl.tasks.check.servos import check_servos
from metarl.tasks.mujoco import MujocoBatch
from metarl.tasks.variation import Body, BodyEnv, GymVariation, MujocoVariation
from metarl.tasks.variation.servos import strengths_of
from metarl.tasks.variation.single import simulator_of
from tests.tasks.varied import side_by_side

# A pole that starts level and falls where nothing holds it; beside it another one, on a motor.
POLES = """<mujoco><option timestep="0.01" integrator="implicitfast"/><worldbody>
<body name="pole" pos="0 0 2"><joint name="hinge" type="hinge" axis="0 1 0" range="-180 180"/>
<geom type="capsule" fromto="0 0 0 0.5 0 0" size="0.03"/><site name="tip" pos="0.5 0 0"/></body>
<body name="other" pos="0 2 2"><joint name="other" type="hinge" axis="0 1 0" damping="0.1"/>
<geom type="capsule" fromto="0 0 0 0.5 0 0" size="0.03"/></body></worldbody>
<tendon><fixed name="tendon"><joint joint="hinge" coef="1"/></fixed></tendon>
<actuator>ACTUATOR<motor name="motor" joint="other" gear="9" ctrlrange="-1 1"/></actuator></mujoco>"""
SERVOS = {
    "position": '<position name="servo" joint="hinge" kp="500" kv="20" ctrlrange="-1 1"/>',
    "on a tendon": '<position name="servo" tendon="tendon" kp="500" ctrlrange="-1 1"/>',
    "at a site": '<general name="servo" site="tip" gear="0 0 9 0 0 0" biastype="affine" biasprm="2" ctrlrange="-1 1"/>',
    "velocity": '<velocity name="servo" joint="hinge" kv="100" ctrlrange="-1 1"/>',
    "integrated velocity": '<intvelocity name="servo" joint="hinge" kp="500" actrange="-2 2" ctrlrange="-1 1"/>',
    "a range without 0": '<motor name="servo" joint="hinge" gear="9" ctrlrange="0.5 1"/>',
}
DEAD: dict[str, Any] = {"dead_motor": {"prior": {"choice": [-1, 0, 1]}}}
BROKEN: dict[str, Any] = {"broken": {"effect": "dead_motor", "prior": {"choice": [-1, 0]}}}
NUM_STEPS = 5


def still(before: Any, action: np.ndarray, after: Any, task: Any) -> np.ndarray:
    return -np.abs(after.qvel).sum(axis=1)


def poles(folder: Path, actuator: str = SERVOS["position"], **options: Any) -> MujocoVariation:
    path = folder / "poles.xml"
    path.write_text(POLES.replace("ACTUATOR", actuator))
    return MujocoVariation(model=str(path), reward=still, reset_noise=0.0, horizon=20, **options)


def angles(family: MujocoVariation, **task: float) -> np.ndarray:
    """Of both poles [T, 2] under actions of 0.7."""
    batch = family.make_batch([family.task(**task)])
    batch.reset(seed=0)
    return np.concatenate([batch.step(np.full((1, 2), 0.7))[0][:, :2] for _ in range(NUM_STEPS)])


def falling() -> np.ndarray:
    """The angle [T] of the first pole, on which nothing acts: plain MuJoCo, five physics steps per action."""
    model = mujoco.MjModel.from_xml_string(POLES.replace("ACTUATOR", ""))
    data = mujoco.MjData(model)
    found = []
    for _ in range(NUM_STEPS):
        mujoco.mj_step(model, data, 5)
        found.append(float(data.qpos[0]))
    return np.array(found)


@pytest.mark.parametrize("actuator", SERVOS)
def test_a_joint_whose_motor_is_dead_falls_freely(actuator: str, tmp_path: Path) -> None:
    family = poles(tmp_path, SERVOS[actuator], effects=DEAD)
    np.testing.assert_allclose(angles(family, dead_motor=0.0)[:, 0], falling(), rtol=1e-9)
    assert np.abs(angles(family, dead_motor=-1.0)[:, 0] - falling()).max() > 0.1


def test_a_dead_servo_leaves_the_others_as_they_are(tmp_path: Path) -> None:
    family = poles(tmp_path, effects=DEAD)
    intact, dead = angles(family, dead_motor=-1.0), angles(family, dead_motor=0.0)
    np.testing.assert_allclose(dead[:, 1], intact[:, 1], rtol=1e-9)
    np.testing.assert_allclose(angles(family, dead_motor=1.0)[:, 0], intact[:, 0], rtol=1e-9)


def test_a_servo_that_dies_in_mid_episode_lets_go_then_and_works_in_the_next(tmp_path: Path) -> None:
    family = poles(tmp_path, effects={"dead_motor": {**DEAD["dead_motor"], "at_step": 2}})
    batch = family.make_batch([family.task(dead_motor=0.0, **{"dead_motor.at_step": 2.0})])
    assert isinstance(batch, MujocoBatch)
    for _ in range(2):
        batch.reset(seed=0)
        gears = [batch.physics.field("actuator_gear")[0, :, 0].tolist()]
        for _ in range(3):
            batch.step(np.zeros((1, 2)))
            gears.append(batch.physics.field("actuator_gear")[0, :, 0].tolist())
        assert gears == [[1.0, 9.0]] * 3 + [[0.0, 9.0]]


def test_a_dead_servo_is_dead_whatever_else_is_done_to_its_gear(tmp_path: Path) -> None:
    gear = {"field": "actuator_gear[*]", "prior": {"uniform": [1.0, 2.0]}, "mode": "add", "columns": [0]}
    family = poles(tmp_path, vary={"gear": gear}, effects=DEAD)
    np.testing.assert_allclose(angles(family, dead_motor=0.0, gear=2.0)[:, 0], falling(), rtol=1e-9)


def test_the_alternative_by_vary_lets_the_joint_fall_too(tmp_path: Path) -> None:
    failed = {"field": "actuator_gear[*]", "mode": "zero", "prior": {"choice": [-1, 0, 1]}}
    family = poles(tmp_path, vary={"failed_motor": failed})
    np.testing.assert_allclose(angles(family, failed_motor=0.0)[:, 0], falling(), rtol=1e-9)


def test_the_model_of_motors_is_not_edited_by_a_dead_one(tmp_path: Path) -> None:
    family = poles(tmp_path, '<motor name="servo" joint="hinge" gear="9" ctrlrange="-1 1"/>', effects=DEAD)
    assert family.changes == ()
    np.testing.assert_allclose(angles(family, dead_motor=0.0)[:, 0], falling(), rtol=1e-9)


CART = """<mujoco><worldbody><body name="cart"><joint name="slider" type="slide" axis="1 0 0" damping="0.1"/>
<geom type="box" size="0.1 0.1 0.1" mass="5"/><body name="pole"><joint name="hinge" type="hinge" axis="0 1 0"/>
<geom type="capsule" fromto="0 0 0 0 0 0.6" size="0.05"/></body></body></worldbody>
<actuator><position name="slide" joint="slider" kp="300" ctrlrange="-3 3"/></actuator></mujoco>"""


@pytest.mark.parametrize("at_step", [None, 2])
def test_both_paths_let_go_of_a_dead_servo_alike(at_step: int | None, tmp_path: Path) -> None:
    (tmp_path / "cart.xml").write_text(CART)
    dead = {"prior": {"choice": [-1, 0]}, **({} if at_step is None else {"at_step": at_step})}
    options: dict[str, Any] = {"env": "InvertedPendulum-v5", "model": str(tmp_path / "cart.xml"), "horizon": 10}
    options["effects"] = {"dead_motor": dead}
    family = MujocoVariation(**options)
    late = {} if at_step is None else {"dead_motor.at_step": float(at_step)}
    tasks = tuple(family.task(dead_motor=index, **late) for index in (0.0, -1.0))
    native, gym = side_by_side(tasks, **options)
    for _ in range(6):
        action = np.full((2, 1), 0.5, np.float32)
        one, other = native.step(action)[0], gym.step(action)[0]
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)
    models = [simulator_of(env)[0] for env in gym.environments]  # type: ignore[index]
    assert [model.actuator_gear[0, 0] for model in models] == [0.0, 1.0]


def test_a_family_with_a_dead_servo_passes_all_checks(tmp_path: Path) -> None:
    family = poles(tmp_path, effects={"dead_motor": {**DEAD["dead_motor"], "at_step": {"uniform": [2, 5]}}})
    assert [f"{r.name}: {r.message}" for r in check_distribution(family) if not r.passed] == []


class Poles(gymnasium.Env):
    """The poles as an environment of a user's own, whose actions are those of the servo alone."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self) -> None:
        self.model = mujoco.MjModel.from_xml_string(POLES.replace("ACTUATOR", SERVOS["position"]))
        self.data = mujoco.MjData(self.model)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        mujoco.mj_resetData(self.model, self.data)
        return self.data.qpos.copy(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.data.ctrl[0] = action[0]
        mujoco.mj_step(self.model, self.data)
        return self.data.qpos.copy(), 0.0, False, False, {}


gymnasium.register("VariedPoles-v0", entry_point=f"{__name__}:Poles")


class Worn(TaskDistribution):
    """A class of a user's own, with a dead motor."""

    name, version, horizon = "Worn", 1, 10

    def __init__(self) -> None:
        self.body = Body.of(BROKEN)
        self.parameters = (Parameter("unused", Uniform(0.0, 1.0)), *self.body.parameters)

    def make(self, task: Task, render_mode: str | None = None) -> gymnasium.Env:
        return BodyEnv(Poles(), self.body, task)


def remarks(family: TaskDistribution) -> list[str]:
    return [remark.text for remark in check_servos(family) if remark.is_warning]


@pytest.mark.parametrize(
    "family",
    [
        lambda: GymVariation(f"{__name__}:Poles", effects=BROKEN),
        lambda: MujocoVariation("VariedPoles-v0", effects=BROKEN),
        Worn,
    ],
    ids=["GymVariation", "actions that are no controls", "a class"],
)
def test_a_dead_motor_that_still_holds_its_joint_is_remarked_on(family: Any) -> None:
    (said,) = remarks(family())
    assert said.startswith("effects.broken: a servo (servo) at rest is not without torque")
    assert 'field: "actuator_gear[*]", mode: zero' in said


def test_motor_strength_of_a_servo_is_remarked_on(tmp_path: Path) -> None:
    strength = {"effect": "motor_strength", "prior": {"uniform": [0.5, 1.5]}}
    (said,) = remarks(poles(tmp_path, effects={"strength": strength}))
    assert said.startswith("effects.strength: motor_strength multiplies what a servo (servo) is told")
    assert 'strength: {field: ["actuator_gainprm[servo]", "actuator_biasprm[servo]"], prior' in said
    assert remarks(poles(tmp_path, effects={"strength": {**strength, "dimensions": [1]}})) == []


def test_nothing_is_remarked_where_a_dead_servo_is_without_torque(tmp_path: Path) -> None:
    assert remarks(poles(tmp_path, effects=DEAD)) == []
    assert remarks(GymVariation("Pendulum-v1", effects={"dead_motor": {"prior": {"choice": [-1, 0]}}})) == []


MUSCLE = '<muscle name="servo" joint="hinge" gear="0.1" lengthrange="-0.4 0.4" ctrlrange="0 1" FORCE/>'
STRENGTHS = {  # an actuator that pushes on the first pole, and which fields are its strength
    "position": (
        '<position name="servo" joint="hinge" kp="50" kv="2" ctrlrange="-1 1"/>',
        ["actuator_gear[motor]", "actuator_gainprm[servo]", "actuator_biasprm[servo]"],
    ),
    "position of limited force": (
        '<position name="servo" joint="hinge" kp="50" kv="2" forcerange="-3 3" ctrlrange="-1 1"/>',
        [
            "actuator_gear[motor]",
            "actuator_gainprm[servo]",
            "actuator_biasprm[servo]",
            "actuator_forcerange[servo]",
        ],
    ),
    "velocity": (
        '<velocity name="servo" joint="hinge" kv="2" ctrlrange="-1 1"/>',
        ["actuator_gear[motor]", "actuator_gainprm[servo]", "actuator_biasprm[servo]"],
    ),
    "motor": ('<motor name="servo" joint="hinge" gear="5" ctrlrange="-1 1"/>', ["actuator_gear[*]"]),
    "muscle": (MUSCLE.replace("FORCE", 'force="40"'), ["actuator_gainprm[servo]", "actuator_biasprm[servo]"]),
    "muscle by scale": (MUSCLE.replace("FORCE", 'scale="60"'), ["actuator_gainprm[servo]", "actuator_biasprm[servo]"]),
}


@pytest.mark.parametrize("kind", STRENGTHS)
def test_the_strength_of_an_actuator_multiplies_its_torque_at_every_place_and_velocity(
    kind: str, tmp_path: Path
) -> None:
    actuator, fields = STRENGTHS[kind]
    base = mujoco.MjModel.from_xml_string(POLES.replace("ACTUATOR", actuator))
    strength = strengths_of(base)[-1]
    assert list(strength.fields) == fields
    entry: dict[str, Any] = {"field": fields, "prior": {"uniform": [0.5, 1.5]}}
    if strength.columns is not None:
        entry["columns"] = list(strength.columns)
    family = poles(tmp_path, actuator, vary={"strength": entry})
    batch = family.make_batch([family.task(strength=1.0), family.task(strength=0.5)])
    assert isinstance(batch, MujocoBatch)
    for angle, velocity, control in ((0.3, 0.0, 0.4), (-0.1, 2.0, 1.0), (1.0, -1.0, 0.5)):
        torques = []
        for i in range(2):
            model, data = batch.physics.simulation(i)
            data.qpos[0], data.qvel[0], data.ctrl[0] = angle, velocity, control
            data.act[:] = control
            mujoco.mj_forward(model, data)
            torques.append(float(data.qfrc_actuator[0]))
        assert torques[0] != 0
        assert torques[1] == pytest.approx(0.5 * torques[0], rel=1e-9)


@pytest.mark.parametrize(
    ("field", "is_remarked"), [("actuator_gear[*]", True), ("actuator_gear[motor]", False), ("body_mass[pole]", False)]
)
def test_a_varied_gear_of_a_servo_is_remarked_on(field: str, is_remarked: bool, tmp_path: Path) -> None:
    said = remarks(poles(tmp_path, vary={"strength": {"field": field, "prior": {"uniform": [0.5, 1.5]}}}))
    assert len(said) == is_remarked
    if is_remarked:
        assert said[0].startswith("vary.strength: the gear of a servo (servo) is the ratio between its target and")
        assert 'strength: {field: ["actuator_gainprm[servo]", "actuator_biasprm[servo]"], prior: ...}' in said[0]


def test_a_gear_of_0_is_a_failure_and_not_remarked_on(tmp_path: Path) -> None:
    failed = {"field": "actuator_gear[*]", "mode": "zero", "prior": {"choice": [-1, 0, 1]}}
    assert remarks(poles(tmp_path, vary={"failed_motor": failed})) == []


RANGED = POLES.replace('range="-180 180"', "RANGE").replace(
    "ACTUATOR", '<position name="servo" joint="hinge" CONTROL/>'
)
RANGES = {  # the joint's range, the servo; what is said
    "degrees": ('range="-90 90"', 'kp="50" ctrlrange="-90 90"', "to -90 to 90 rad, and its range is -1.57 to 1.57 rad"),
    "a gear that takes degrees": ('range="-90 90"', 'kp="50" gear="57.3" ctrlrange="-90 90"', ""),
    "radians": ('range="-90 90"', 'kp="50" ctrlrange="-3 3"', ""),
    "the joint's own": ('range="-90 90"', 'kp="50" inheritrange="1"', ""),
    "turns": ("", 'kp="50" ctrlrange="-180 180"', "to -180 to 180 rad, 29 turns"),
    "two turns": ("", 'kp="50" ctrlrange="-12 12"', ""),
    "millimetres": (
        'range="-0.1 0.1"',
        'kp="50" ctrlrange="-100 100"',
        "to -100 to 100 m, and its range is -0.1 to 0.1 m: metres are meant",
    ),
}


@pytest.mark.parametrize("case", RANGES)
def test_a_ctrlrange_far_beyond_the_range_of_its_joint_is_remarked_on(case: str, tmp_path: Path) -> None:
    joint, control, message = RANGES[case]
    text = RANGED.replace("RANGE", joint).replace("CONTROL", control)
    if case == "millimetres":
        text = text.replace('<joint name="hinge" type="hinge"', '<joint name="hinge" type="slide"')
    (tmp_path / "poles.xml").write_text(text)
    vary = {"mass": {"field": "body_mass[pole]", "prior": {"uniform": [0.5, 1.5]}}}
    said = remarks(MujocoVariation(model=str(tmp_path / "poles.xml"), reward=still, vary=vary))
    assert len(said) == bool(message)
    if message:
        assert said[0].startswith(f"the ctrlrange of servo drives joint hinge {message}")
        assert 'inheritrange="1"' in said[0]
