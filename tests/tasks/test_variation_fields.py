"""Fields of a model by element name: what each mode does, what stays together, and that nothing compounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest

from metarl.errors import TaskError
from metarl.tasks import Task
from metarl.tasks.mujoco import MujocoBatch
from metarl.tasks.physics import mjbatch_is_available
from metarl.tasks.variation import MujocoVariation
from metarl.tasks.variation.description import FieldEntry
from metarl.tasks.variation.field_values import changed_fields
from metarl.tasks.variation.fields import FieldChange, change_of
from tests.tasks.varied import ARM, MASS, arm, hopper

TEN = {"prior": {"uniform": [0.0, 10.0]}}
BACKENDS = ["mujoco", pytest.param("mjbatch", marks=pytest.mark.skipif(not mjbatch_is_available(), reason="mjbatch"))]


@pytest.fixture(scope="module")
def model() -> Any:
    return mujoco.MjModel.from_xml_string(ARM)


def changed(model: Any, value: Any, n: int = 1, **entry: Any) -> dict[str, np.ndarray]:
    """The fields of `n` robots after one entry with this value."""
    change: FieldChange = change_of("x", FieldEntry.model_validate({**TEN, **entry}), model)
    return changed_fields([change], model, n, {"x": np.array([value] * n)})


def test_scale_add_and_set_do_what_they_say(model: Any) -> None:
    assert changed(model, 2.0, field="dof_damping[elbow]")["dof_damping"][0].tolist() == [0.2, 0.4]
    assert changed(model, 2.0, field="dof_damping[elbow]", mode="add")["dof_damping"][0].tolist() == [0.2, 2.2]
    assert changed(model, 2.0, field="dof_damping[elbow]", mode="set")["dof_damping"][0].tolist() == [0.2, 2.0]
    gear = changed(model, 0.0, field="actuator_gear[*]", mode="zero")["actuator_gear"][0, :, 0]
    assert gear.tolist() == [0.0, 1.0]
    assert changed(model, -1.0, field="actuator_gear[*]", mode="zero")["actuator_gear"][0, :, 0].tolist() == [3.0, 1.0]


def test_a_pattern_names_several_elements_and_shared_false_gives_each_its_own_value(model: Any) -> None:
    friction = changed(model, 2.0, field="geom_friction[*_link]")["geom_friction"][0]
    np.testing.assert_array_equal(friction[:2], 2 * model.geom_friction[:2])
    np.testing.assert_array_equal(friction[2], model.geom_friction[2])
    damping = changed(model, (2.0, 3.0), field="dof_damping[*]", shared=False)["dof_damping"][0]
    np.testing.assert_allclose(damping, [0.4, 0.6])


def test_columns_leave_the_others_alone(model: Any) -> None:
    friction = changed(model, 2.0, field="geom_friction[palm]", columns=[0])["geom_friction"][0, 2]
    np.testing.assert_array_equal(friction, model.geom_friction[2] * [2, 1, 1])
    gravity = changed(model, -9.0, field="gravity", columns=[2], mode="set")["gravity"][0, 0]
    np.testing.assert_array_equal(gravity, [0, 0, -9])


@pytest.mark.parametrize(("mode", "value"), [("scale", 2.0), ("add", 0.5), ("set", 1.0)])
def test_inertia_goes_with_mass(model: Any, mode: str, value: float) -> None:
    fields = changed(model, value, field="body_mass[fore]", mode=mode)
    body = model.body("fore").id
    factor = fields["body_mass"][0, body] / model.body_mass[body]
    assert fields["body_mass"][0, body] == 1.0
    np.testing.assert_allclose(fields["body_inertia"][0, body], factor * model.body_inertia[body])


def test_the_stiffness_of_a_position_actuator_goes_with_its_gain(model: Any) -> None:
    fields = changed(model, 2.0, field="actuator_gainprm[*]", columns=[0])
    assert fields["actuator_gainprm"][0, :, 0].tolist() == [2.0, 40.0]
    assert fields["actuator_biasprm"][0, :, 1].tolist() == [0.0, -40.0]  # the motor has none
    assert fields["actuator_biasprm"][0, 1, 2] == -1.0  # damping is another number


def test_a_payload_is_what_the_compiler_makes_of_a_point_mass(model: Any) -> None:
    at, mass = (0.05, 0.02, -0.01), 0.7
    fields = changed(model, mass, field="payload[hand]", at=list(at))
    own = model.body("hand").id
    total = model.body_mass[own] + mass
    centre = (model.body_mass[own] * model.body_ipos[own] + mass * np.array(at)) / total
    tensor = np.diag(model.body_inertia[own])
    for m, place in ((model.body_mass[own], model.body_ipos[own]), (mass, np.array(at))):
        r = place - centre
        tensor = tensor + m * (r @ r * np.eye(3) - np.outer(r, r))  # the parallel axis theorem
    full = [tensor[i, j] for i, j in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))]
    inertial = f'<inertial pos="{_text(centre)}" mass="{_text([total])}" fullinertia="{_text(full)}"/>'
    old = '<inertial pos="0.01 0 0" mass="0.1" diaginertia="1e-4 1e-4 1e-4"/>'
    compiled = mujoco.MjModel.from_xml_string(ARM.replace(old, inertial))
    assert fields["body_mass"][0, own] == pytest.approx(compiled.body_mass[own])
    np.testing.assert_allclose(fields["body_ipos"][0, own], compiled.body_ipos[own], atol=1e-12)
    np.testing.assert_allclose(np.sort(fields["body_inertia"][0, own]), np.sort(compiled.body_inertia[own]), rtol=1e-9)
    varied = _tensor(fields["body_inertia"][0, own], fields["body_iquat"][0, own])
    np.testing.assert_allclose(varied, _tensor(compiled.body_inertia[own], compiled.body_iquat[own]), atol=1e-12)


def _text(numbers: Any) -> str:
    return " ".join(repr(float(number)) for number in numbers)


def _tensor(moments: np.ndarray, quaternion: np.ndarray) -> np.ndarray:
    axes = np.zeros(9)
    mujoco.mju_quat2Mat(axes, quaternion)
    return axes.reshape(3, 3) @ np.diag(moments) @ axes.reshape(3, 3).T


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_robot_with_a_changed_model_moves_as_one_compiled_so(tmp_path: Path, backend: str) -> None:
    vary = {
        "mass": {"field": "body_mass[fore]", "prior": {"uniform": [0.5, 3.0]}},
        "centre": {"field": "body_ipos[fore]", "mode": "add", "columns": [0], "prior": {"uniform": [-0.1, 0.1]}},
        "damping": {"field": "dof_damping[*]", "shared": False, "prior": {"uniform": [0.5, 2.0]}},
        "armature": {"field": "armature[*]", "mode": "set", "prior": {"uniform": [0.0, 0.1]}},
        "limit": {"field": "joint_range[elbow]", "prior": {"uniform": [0.2, 1.0]}},
    }
    family = arm(tmp_path, vary, backend=backend, frame_skip=3, reset_noise=0.0)
    task = family.task(mass=2.0, centre=0.06, damping=(2.0, 0.5), armature=0.05, limit=0.5)
    batch = family.make_batch([family.sample("train", 1, 0)[0], task])
    batch.reset(seed=0)
    text = ARM.replace('damping="0.2"/>', 'damping="0.4" armature="0.05"/>', 1).replace(
        'damping="0.2" range="-150 150"', 'damping="0.1" armature="0.05" range="-75 75"'
    )
    spec = mujoco.MjSpec.from_string(text)
    base = mujoco.MjModel.from_xml_string(ARM)
    fore = base.body("fore").id
    body = spec.body("fore")
    body.explicitinertial, body.mass, body.inertia = True, 2 * base.body_mass[fore], 2 * base.body_inertia[fore]
    body.ipos, body.iquat = base.body_ipos[fore] + [0.06, 0, 0], base.body_iquat[fore]
    right = spec.compile()
    data = mujoco.MjData(right)
    for action in np.random.default_rng(0).uniform(-1, 1, (40, 2)):
        data.ctrl[:] = action
        mujoco.mj_step(right, data, 3)
        batch.step(np.array([action, action]))
        np.testing.assert_allclose(batch.physics.qpos[1], data.qpos, atol=1e-9)  # type: ignore[attr-defined]


@pytest.mark.parametrize("backend", BACKENDS)
def test_values_never_compound_over_resets_tasks_and_changes_in_mid_episode(backend: str) -> None:
    vary = {
        "mass": {"field": "body_mass[*]", "prior": {"log_uniform": [0.5, 2.0]}},
        "torso": {"field": "body_mass[torso]", "prior": {"log_uniform": [0.5, 2.0]}},
        "gear": {"field": "actuator_gear[*]", "prior": {"uniform": [0.5, 1.5]}, "at_step": 2},
    }
    family = hopper(vary, backend=backend)
    tasks, others = family.sample("train", 3, 0), family.sample("train", 3, 1)
    batch = family.make_batch(tasks)
    assert isinstance(batch, MujocoBatch)
    mass, factor = family.model().body_mass, np.array([task["mass"] for task in tasks])
    for chosen in (tasks, others, tasks):
        batch.set_tasks(chosen)
        for _ in range(3):
            batch.reset(seed=0)
            gears = [batch.physics.field("actuator_gear")[:, 0, 0].copy()]
            for _ in range(4):
                batch.step(np.zeros((3, 3), np.float32))
                gears.append(batch.physics.field("actuator_gear")[:, 0, 0].copy())
        late = 200.0 * np.array([task["gear"] for task in chosen])
        np.testing.assert_allclose(gears, [[200.0] * 3] * 3 + [late] * 2)
    torso = factor * np.array([task["torso"] for task in tasks])
    np.testing.assert_allclose(batch.physics.field("body_mass")[:, 1], mass[1] * torso, rtol=1e-15)
    np.testing.assert_allclose(batch.physics.field("body_mass")[:, 2], mass[2] * factor, rtol=1e-15)
    np.testing.assert_allclose(batch.physics.field("body_inertia")[:, 1, 0], family.model().body_inertia[1, 0] * torso)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("vary", "before", "after"),
    [
        (
            {
                "gain": {"field": "actuator_gainprm[elbow]", **TEN},
                "damping": {"field": "actuator_biasprm[elbow]", "columns": [2], **TEN, "at_step": 2},
            },
            [40.0, -40.0, -1.0],
            [40.0, -40.0, -3.0],
        ),
        (
            {
                "gain": {"field": "actuator_gainprm[elbow]", **TEN, "at_step": 2},
                "damping": {"field": "actuator_biasprm[elbow]", "columns": [1], **TEN},
            },
            [20.0, -60.0, -1.0],
            [40.0, -60.0, -1.0],
        ),
        (
            {
                "gain": {"field": "actuator_gainprm[elbow]", **TEN, "at_step": 2},
                "damping": {"field": "actuator_biasprm[elbow]", "columns": [2], **TEN},
            },
            [20.0, -20.0, -3.0],
            [40.0, -40.0, -3.0],
        ),
    ],
    ids=["damping changes later", "gain changes later, stiffness of its own", "gain changes later"],
)
def test_a_change_in_mid_episode_keeps_what_other_entries_make_of_the_servo(
    tmp_path: Path, backend: str, vary: dict[str, Any], before: list[float], after: list[float]
) -> None:
    family = arm(tmp_path, vary, backend=backend, horizon=5)
    steps = {f"{name}.at_step": 2.0 for name, entry in vary.items() if "at_step" in entry}
    batch: Any = family.make_batch([family.task(gain=2.0, damping=3.0, **steps)])
    batch.reset(seed=0)
    found = []
    for _ in range(4):
        gain, bias = (batch.physics.field(f"actuator_{name}prm")[0, 1] for name in ("gain", "bias"))
        found.append([gain[0], *bias[1:3]])
        batch.step(np.zeros((1, 2), np.float32))
    assert found[0] == before
    assert found[3] == after


def test_several_fields_can_follow_one_parameter(model: Any, tmp_path: Path) -> None:
    vary = {"length": {"field": ["body_pos[fore]", "body_ipos[upper]"], "prior": {"uniform": [0.8, 1.2]}}}
    family = arm(tmp_path, vary)
    batch = family.make_batch([family.task(length=1.2)])
    assert isinstance(batch, MujocoBatch)
    np.testing.assert_allclose(batch.physics.field("body_pos")[0, model.body("fore").id], [0.48, 0, 0])


def test_a_task_that_is_unphysical_as_a_whole_is_named() -> None:
    minus = {"field": "body_mass[torso]", "mode": "add", "prior": {"uniform": [-2.0, 0.0]}}
    family = hopper({"a": minus, "b": minus})
    with pytest.raises(ValueError, match=r"a=-2, b=-2\): with these values body_mass of torso would be \[-0\.3"):
        family.make_batch([family.task(a=-2.0, b=-2.0)])


@pytest.mark.parametrize("path", ["native", "gymnasium"])
def test_a_value_outside_the_priors_is_named_where_it_makes_a_body_unphysical(path: str) -> None:
    load = {"field": "payload[torso]", "prior": {"uniform": [0.0, 1.0]}}
    family = hopper({"load": load, "mass": MASS}, path=path)
    with pytest.raises(TaskError, match=r"load=-50, mass=1\): with these values .* Choose other values") as raised:
        family.make_batch([Task.of(family.name, {"load": -50.0, "mass": 1.0})])
    assert "body_mass of torso would be [-" in str(raised.value)
    assert "allowed: above 0" in str(raised.value)


def test_a_distribution_crosses_processes_with_its_model(tmp_path: Path) -> None:
    import pickle

    family = arm(tmp_path, {"payload": {"field": "payload[hand]", "prior": {"uniform": [0.0, 1.0]}}})
    tasks = family.sample("train", 2, 0)
    text = pickle.dumps(family)
    (tmp_path / "arm.xml").unlink()
    copy: MujocoVariation = pickle.loads(text)
    one, other = family.make_batch(tasks), copy.make_batch(tasks)
    np.testing.assert_array_equal(one.reset(seed=0)[0], other.reset(seed=0)[0])
    np.testing.assert_array_equal(one.step(np.ones((2, 2)))[0], other.step(np.ones((2, 2)))[0])


def test_a_friction_that_the_floors_exceeds_is_found_to_have_no_effect() -> None:
    foot = {"friction": {"field": "geom_friction[foot_geom]", "prior": {"uniform": [0.1, 0.5]}}}
    family = hopper(foot, horizon=20)
    assert "MuJoCo takes the larger friction of two geoms in contact" in family.advice_on("friction")
    low, high = (family.make_batch([family.task(friction=f)]) for f in (0.1, 0.5))
    np.testing.assert_array_equal(low.reset(seed=0)[0], high.reset(seed=0)[0])
    for action in np.random.default_rng(0).uniform(-1, 1, (15, 1, 3)):
        np.testing.assert_array_equal(low.step(action)[0], high.step(action)[0])


@pytest.mark.parametrize(
    "names", [["actuator_gainprm[*]", "actuator_biasprm[*]"], ["actuator_biasprm[*]", "actuator_gainprm[*]"]]
)
def test_a_bias_that_an_entry_names_itself_does_not_follow_the_gain_too(model: Any, names: list[str]) -> None:
    fields = changed(model, 2.0, field=names)
    np.testing.assert_array_equal(fields["actuator_gainprm"][0], 2 * model.actuator_gainprm)
    np.testing.assert_array_equal(fields["actuator_biasprm"][0], 2 * model.actuator_biasprm)


def test_an_actuators_damping_of_its_own_leaves_its_stiffness_with_the_gain(model: Any) -> None:
    gain = change_of("gain", FieldEntry.model_validate({**TEN, "field": "actuator_gainprm[elbow]"}), model)
    damping = {**TEN, "field": "actuator_biasprm[elbow]", "columns": [2]}
    changes = [gain, change_of("damping", FieldEntry.model_validate(damping), model)]
    fields = changed_fields(changes, model, 1, {"gain": np.array([2.0]), "damping": np.array([3.0])})
    assert fields["actuator_biasprm"][0, 1, :3].tolist() == [0.0, -40.0, -3.0]


def test_an_inertia_that_an_entry_names_itself_does_not_follow_the_mass_too(model: Any) -> None:
    fields = changed(model, 2.0, field=["body_mass[*]", "body_inertia[fore]"])
    fore, upper = model.body("fore").id, model.body("upper").id
    for body in (fore, upper):
        np.testing.assert_allclose(fields["body_inertia"][0, body], 2 * model.body_inertia[body], rtol=1e-15)


DUMBBELL = """<mujoco>
  <worldbody>
    <geom name="floor" type="plane" size="5 5 .1"/>
    <body name="dumbbell" pos="0 0 1">
      <joint name="z" type="slide" axis="0 0 1"/>
      <joint name="tilt" type="hinge" axis="0 1 0" pos="0.01 0 0" stiffness="50" damping="1"/>
      <inertial pos="0.02 0 0" mass="1.1" diaginertia="1e-2 1e-2 1e-2"/>
      <geom name="large" type="box" size=".1 .1 .1"/>
      <geom name="small" type="sphere" size=".05" pos="0.3 0 0"/>
    </body>
  </worldbody>
  <actuator><motor joint="z" ctrlrange="-1 1"/></actuator>
</mujoco>"""


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("entry", "value", "old", "new"),
    [
        ({"field": "geom_pos[large]", "mode": "add", "columns": [2]}, -0.3, 'box" ', 'box" pos="0 0 -0.3" '),
        ({"field": "body_ipos[dumbbell]", "mode": "add", "columns": [2]}, 0.3, "0.02 0 0", "0.02 0 0.3"),
        ({"field": "geom_margin[*]", "mode": "set"}, 0.1, "<geom ", '<geom margin="0.1" '),
    ],
)
def test_what_is_moved_meets_the_floor_where_it_is(
    tmp_path: Path, backend: str, entry: dict[str, Any], value: float, old: str, new: str
) -> None:
    (tmp_path / "dumbbell.xml").write_text(DUMBBELL)
    family = MujocoVariation(
        model=str(tmp_path / "dumbbell.xml"),
        reward={"forward": {"body": "dumbbell"}},
        vary={"x": {**entry, "prior": {"uniform": sorted((value, 2 * value))}}},
        backend=backend,
        frame_skip=1,
        reset_noise=0.0,
    )
    batch = family.make_batch([family.task(x=value)])
    assert isinstance(batch, MujocoBatch)
    batch.reset(seed=0)
    right = mujoco.MjModel.from_xml_string(DUMBBELL.replace(old, new))
    data = mujoco.MjData(right)
    for _ in range(400):
        mujoco.mj_step(right, data)
        batch.physics.step(None, 1)
    assert data.ncon > 0
    np.testing.assert_allclose(batch.physics.qpos[0], data.qpos, atol=1e-9)
