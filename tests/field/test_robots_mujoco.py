"""MuJoCo robots: unstable simulations, actuators without a range, where the model lies, and what is drawn."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
from gymnasium.envs.mujoco import MujocoEnv

from metarl.errors import EnvironmentFault, TaskError
from metarl.tasks import LogUniform, Parameter, TaskDistribution, Uniform
from metarl.tasks.check import check_distribution
from metarl.tasks.mujoco import MujocoTaskDistribution
from metarl.tasks.physics import mjbatch_is_available

BACKENDS = ["mujoco", pytest.param("mjbatch", marks=pytest.mark.skipif(not mjbatch_is_available(), reason="mjbatch"))]
MASS = Parameter("mass", LogUniform(0.02, 2.0), "kg")
MODEL = """<mujoco>
  <option timestep="0.02" integrator="Euler"/>
  <worldbody>
    <body pos="0 0 1"><joint name="j" type="slide" axis="1 0 0"/><geom type="sphere" size=".1" mass="1"/></body>
    <body name="target" mocap="true" pos="0 0 1"><geom type="sphere" size=".05" contype="0" conaffinity="0"/></body>
  </worldbody>
  <actuator>ACTUATOR</actuator>
</mujoco>"""
STIFF = '<position joint="j" ctrlrange="-1 1" kp="2000"/>'  # unstable where kp dt^2 / mass > 4: below 0.2 kg


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo writes its warnings into a file of the current directory


def model_file(folder: Path, actuator: str = STIFF, name: str = "robot.xml") -> Path:
    path = folder / name
    path.write_text(MODEL.replace("ACTUATOR", actuator))
    return path


class Slider(MujocoTaskDistribution):
    """A mass on a slide. `xml` is set by each test."""

    name, version, edits_model, frame_skip = "Slider", 1, True, 2
    data_fields: tuple[str, ...] = ("mocap_pos",)
    xml: str | Path = "nowhere.xml"
    parameters: tuple[Parameter, ...] = (MASS,)

    def edit(self, physics: Any, params: Any) -> None:
        physics.field("body_mass")[:, 1] = params["mass"]

    def observe(self, physics: Any) -> np.ndarray:
        return np.concatenate((physics.qpos, physics.qvel), axis=1)

    def reward(self, physics: Any, before: Any, action: Any, params: Any) -> np.ndarray:
        return -np.abs(physics.qpos[:, 0])

    def reset_state(self, rng: Any, qpos0: np.ndarray, qvel0: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return qpos0 + rng.uniform(0.4, 0.5, qpos0.shape), qvel0


def slider(xml: Any, **options: Any) -> Slider:
    return type("Slider", (Slider,), {"xml": xml, "__module__": __name__})(horizon=20, **options)


def run(batch: Any, steps: int = 20) -> list[tuple[np.ndarray, ...]]:
    batch.reset(seed=0)
    return [batch.step(np.zeros(batch.action_space.shape, np.float32)) for _ in range(steps)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_simulation_that_mujoco_calls_unstable_is_a_fault_with_task_and_step(tmp_path: Path, backend: str) -> None:
    """MuJoCo puts the state back to its start and goes on: the episode would be learned from."""
    family = slider(model_file(tmp_path), backend=backend)
    batch = family.make_batch([family.task(mass=1.0), family.task(mass=0.02)])
    message = r"Slider\(mass=0.02\): the simulation became unstable at step \d: MuJoCo warns of a bad QACC"
    with pytest.raises(EnvironmentFault, match=message):
        run(batch)
    batch.set_tasks([family.task(mass=1.0)] * 2)
    run(batch)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_unstable_simulation_can_end_its_episode_instead(tmp_path: Path, backend: str) -> None:
    """The last observation before stays, the reward is 0, the others go on, and a reset starts afresh."""
    family = slider(model_file(tmp_path), backend=backend, unstable="terminate")
    batch = family.make_batch([family.task(mass=1.0), family.task(mass=0.02)])
    steps = run(batch)
    ends = [terminated.tolist() for _, _, terminated, _, _ in steps]
    last = ends.index([False, True])
    assert ends == [[False, False]] * last + [[False, True]] * (20 - last)
    for obs, rewards, *_ in steps[last:]:
        np.testing.assert_array_equal(obs[1], steps[last - 1][0][1])
        assert rewards[1] == 0
    assert len({float(obs[0, 0]) for obs, *_ in steps}) == 20
    assert [terminated.tolist() for _, _, terminated, _, _ in run(batch)] == ends


def test_another_answer_to_instability_is_refused(tmp_path: Path) -> None:
    """Allowed: fault and terminate."""
    with pytest.raises(TaskError, match="unstable must be fault or terminate, got 'ignore'"):
        slider(model_file(tmp_path), unstable="ignore")


class GymSlider(MujocoEnv):
    """The same robot as Gymnasium's own kind of environment."""

    metadata = {"render_modes": ["human", "rgb_array", "depth_array", "rgbd_tuple"], "render_fps": 25}  # noqa: RUF012

    def __init__(self, xml: Path, mass: float):
        super().__init__(str(xml), 2, gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64))
        self.model.body_mass[1] = mass
        mujoco.mj_setConst(self.model, self.data)

    def observe(self) -> np.ndarray:
        return np.concatenate((self.data.qpos, self.data.qvel))

    def reset_model(self) -> np.ndarray:
        self.set_state(self.init_qpos + self.np_random.uniform(0.4, 0.5, 1), self.init_qvel)
        return self.observe()

    def step(self, action: Any) -> Any:
        self.do_simulation(action, 2)
        return self.observe(), -abs(float(self.data.qpos[0])), False, False, {}


class GymSliders(TaskDistribution):
    name, horizon, parameters = "GymSliders", 20, (MASS,)

    def __init__(self, xml: Path):
        self.xml = xml

    def make(self, task: Any) -> gymnasium.Env:
        return gymnasium.wrappers.TimeLimit(GymSlider(self.xml, task["mass"]), 50)


def test_gymnasiums_own_mujoco_environments_are_watched_too(tmp_path: Path) -> None:
    """Under a wrapper, through `unwrapped.data.warning`."""
    family = GymSliders(model_file(tmp_path))
    with pytest.raises(EnvironmentFault, match=r"GymSliders\(mass=0.02\): the simulation became unstable at step \d"):
        run(family.make_batch([family.task(mass=1.0), family.task(mass=0.02)]))
    run(family.make_batch([family.task(mass=1.0)]))


@pytest.mark.parametrize(
    ("actuator", "says"),
    [
        ('<motor name="drive" joint="j" gear="5"/>', "actuator drive .*has no ctrlrange"),
        ("", "has no actuator|the action space has no dimension"),
    ],
)
@pytest.mark.parametrize("kind", ["native", "gymnasium"])
def test_actuators_that_can_do_nothing_are_refused_by_name(tmp_path: Path, actuator: str, says: str, kind: str) -> None:
    """A motor without a control range, whose every action becomes 0; a model without actuators."""
    xml = model_file(tmp_path, actuator)
    family = slider(xml) if kind == "native" else GymSliders(xml)
    with pytest.raises(TaskError, match=says):
        family.make_batch([family.task(mass=1.0)])


def test_a_model_is_looked_for_beside_the_file_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Gymnasium's models, and with a dot in front never among those."""
    folder = tmp_path / "robots"
    folder.mkdir()
    plugin = ModuleType("robot_plugin")
    plugin.__file__ = str(folder / "robot_plugin.py")
    monkeypatch.setitem(sys.modules, "robot_plugin", plugin)

    def family(xml: Any) -> Slider:
        return type("Slider", (Slider,), {"xml": xml, "__module__": "robot_plugin"})()

    beside = model_file(folder, name="half_cheetah.xml")
    for name in ("half_cheetah.xml", "./half_cheetah.xml", Path("half_cheetah.xml")):
        assert family(name).model().nq == 1
    beside.unlink()
    assert family("half_cheetah.xml").model().nq == 9
    with pytest.raises(TaskError, match=rf"'./half_cheetah.xml' is not found; looked at {folder}/half_cheetah.xml$"):
        family("./half_cheetah.xml").model()
    with pytest.raises(TaskError, match=rf"looked at {folder}/myrobot.xml, .*gymnasium.*myrobot.xml"):
        family("myrobot.xml").model()
    with pytest.raises(TaskError, match=rf"looked at {Path.home()}/myrobot.xml$"):
        family("~/myrobot.xml").model()


def test_a_model_that_does_not_compile_is_told_with_its_path(tmp_path: Path) -> None:
    """One line, not MuJoCo's several."""
    path = model_file(tmp_path, "<nonsense/>")
    with pytest.raises(TaskError, match=rf"Slider: {path} does not compile: ") as caught:
        slider(path).model()
    assert "\n" not in str(caught.value)


class Reacher(Slider):
    """The task moves a mocap target, and has an actuator with a state."""

    name = "Reacher"
    data_fields = ("mocap_pos", "act", "geom_xpos")
    parameters = (MASS, Parameter("target", Uniform(-0.3, 0.3, 3), "m"))

    def edit(self, physics: Any, params: Any) -> None:
        super().edit(physics, params)
        physics.field("body_pos")[:, 2] = params["target"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_drawn_is_what_is_simulated(tmp_path: Path, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The task's own target and masses, activation states and all: not the base model's."""
    lagging = '<general joint="j" dyntype="filter" dynprm=".2" gainprm="3" ctrlrange="-1 1"/>'
    kind = type("Reacher", (Reacher,), {"xml": model_file(tmp_path, lagging), "__module__": __name__})
    family = kind(horizon=20, backend=backend)
    seen: dict[str, Any] = {}

    class Renderer:
        def __init__(self, model: Any, height: int, width: int):
            seen["mass"] = model.body_mass[1]

        def __enter__(self) -> Renderer:
            return self

        def __exit__(self, *_: object) -> None: ...

        def update_scene(self, data: Any, camera: Any) -> None:
            seen.update(target=data.mocap_pos[0].copy(), act=data.act.copy(), qpos=data.qpos.copy())

        def render(self) -> np.ndarray:
            return np.zeros((2, 2, 3), np.uint8)

    monkeypatch.setattr(mujoco, "Renderer", Renderer)
    tasks = [family.task(mass=1.0, target=(0.0, 0.0, 0.0)), family.task(mass=1.5, target=(0.25, -0.2, 0.1))]
    batch: Any = family.make_batch(tasks)
    batch.reset(seed=0)
    for _ in range(3):
        batch.step(np.ones((2, 1), np.float32))
    batch.render_frame(index=1)
    assert seen["mass"] == 1.5
    np.testing.assert_allclose(seen["target"], (0.25, -0.2, 0.1))
    np.testing.assert_allclose(seen["act"], batch.physics.data("act")[1])
    np.testing.assert_array_equal(seen["qpos"], batch.physics.qpos[1])
    assert seen["act"][0] > 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_picture_of_another_simulation_fails_the_check(tmp_path: Path, backend: str) -> None:
    """As where the base model was drawn."""
    family = slider(model_file(tmp_path), backend=backend)
    family.parameters = (Parameter("mass", LogUniform(0.5, 2.0), "kg"),)
    make_batch = family.make_batch

    def drawn_elsewhere(tasks: Any) -> Any:
        batch: Any = make_batch(tasks)
        batch.physics.simulation = lambda index: (batch.physics.model, mujoco.MjData(batch.physics.model))
        return batch

    assert {r.name: r.passed for r in check_distribution(family)}["drawing"]
    family.make_batch = drawn_elsewhere  # type: ignore[method-assign]
    drawing = {r.name: r for r in check_distribution(family)}["drawing"]
    assert "qpos of the picture is not what is simulated" in drawing.message


def test_observations_that_are_views_of_the_state_are_copied(tmp_path: Path) -> None:
    """Or the next step would change what was given out."""

    class Views(Slider):
        xml = model_file(tmp_path)

        def observe(self, physics: Any) -> np.ndarray:
            return physics.qpos[:]

    batch = Views().make_batch([Views().task(mass=1.0)])
    first, _ = batch.reset(seed=0)
    kept = first.copy()
    batch.step(np.ones((1, 1), np.float32))
    np.testing.assert_array_equal(first, kept)
