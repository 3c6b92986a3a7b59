"""`metarl tasks new` writes a folder that passes all checks, its own test, and trains; and pictures of variants."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from metarl.cli.app import app
from metarl.errors import TaskError
from metarl.report.contact_sheet import contact_sheet
from metarl.tasks import load_distribution
from metarl.tasks.variation import GymVariation


def command(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])


MODEL = """<mujoco><worldbody><body name="pole"><joint name="hinge" type="hinge" axis="0 1 0" damping="0.1"/>
<geom type="capsule" fromto="0 0 0 0 0 0.5" size="0.03"/></body></worldbody>
<actuator><motor joint="hinge" ctrlrange="-1 1"/></actuator></mujoco>"""


SERVO = MODEL.replace("<motor ", '<position name="servo" kp="20" ')


@pytest.mark.parametrize("source", [None, "pole.xml", "servo.xml", "Hopper-v5", "CartPole-v1"])
def test_a_new_folder_passes_all_checks(source: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("pole.xml").write_text(MODEL)
    Path("servo.xml").write_text(SERVO)
    made = command("tasks", "new", "my_robot", *([] if source is None else ["--from", source]))
    assert made.exit_code == 0, made.output
    assert "next: cd my_robot && metarl tasks check my_robot.yaml" in made.output
    monkeypatch.chdir("my_robot")
    monkeypatch.delitem(sys.modules, "my_robot", raising=False)
    monkeypatch.setattr(sys, "path", [os.getcwd(), *sys.path])
    checked = command("tasks", "check", "my_robot.yaml")
    assert checked.exit_code == 0, checked.output
    assert "a servo" not in checked.output  # nothing to remark on


def test_the_strength_of_a_servo_is_not_its_gear() -> None:
    Path("servo.xml").write_text(SERVO)
    Path("pole.xml").write_text(MODEL)
    for name in ("servo", "pole"):
        assert command("tasks", "new", f"my_{name}", "--from", f"{name}.xml").exit_code == 0
    strength = 'strength: {field: ["actuator_gainprm[*]", "actuator_biasprm[*]"], prior: {uniform: [0.7, 1.3]}}'
    assert strength in Path("my_servo/my_servo.yaml").read_text()
    assert 'strength: {field: "actuator_gear[*]", prior' in Path("my_pole/my_pole.yaml").read_text()


ASSETS = {
    "mesh": '<asset><mesh name="part" file="part.obj"/></asset>',
    "texture": '<asset><texture name="paint" type="2d" file="paint.png"/></asset>',
    "cube": '<asset><texture name="paint" type="cube" fileright="paint.png"/></asset>',
    "include": '<include file="options.xml"/>',
}


@pytest.mark.parametrize("kind", ASSETS)
def test_a_model_that_names_files_is_found_from_its_own_folder_and_from_elsewhere(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("part.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n")
    Image.new("RGB", (4, 4)).save("paint.png")
    Path("options.xml").write_text('<mujoco><option timestep="0.005"/></mujoco>')
    Path("pole.xml").write_text(MODEL.replace("<mujoco>", f"<mujoco>{ASSETS[kind]}"))
    assert command("tasks", "new", "own", "--from", "pole.xml").exit_code == 0
    assert not Path("own/own.xml").exists()
    assert f"model: {Path('pole.xml').resolve()}" in Path("own/own.yaml").read_text()
    monkeypatch.chdir("own")
    monkeypatch.delitem(sys.modules, "own", raising=False)
    monkeypatch.setattr(sys, "path", [os.getcwd(), *sys.path])
    shown = command("tasks", "show", "own.yaml")
    assert shown.exit_code == 0, shown.output


def test_a_model_that_names_no_files_is_copied() -> None:
    Path("pole.xml").write_text(MODEL)
    assert command("tasks", "new", "own", "--from", "pole.xml").exit_code == 0
    assert Path("own/own.xml").read_text() == MODEL
    assert "model: own.xml" in Path("own/own.yaml").read_text()


def test_full_control_of_a_strong_motor_costs_as_much_as_that_of_a_weak_one(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("pole.xml").write_text(MODEL.replace('ctrlrange="-1 1"', 'ctrlrange="-300 300"'))
    assert command("tasks", "new", "strong", "--from", "pole.xml").exit_code == 0
    monkeypatch.setattr(sys, "path", [str(Path("strong").resolve()), *sys.path])
    state = SimpleNamespace(qvel=np.zeros((1, 1)), model=mujoco.MjModel.from_xml_path("pole.xml"))
    reward = importlib.import_module("strong").reward(state, np.array([[300.0]]), state, {})
    assert reward.tolist() == [-0.01]


def test_a_new_folders_own_test_passes_and_it_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert command("tasks", "new", "own_arm").exit_code == 0
    monkeypatch.setattr(sys, "path", [str(tmp_path / "own_arm"), *sys.path])
    importlib.import_module("test_own_arm").test_the_variation_passes_all_checks(monkeypatch)
    monkeypatch.chdir(tmp_path / "own_arm")
    small = ["training.iterations=1", "training.evaluate_every=0", "algorithm.num_streams=2"]
    small.append("algorithm.tasks_per_iteration=2")
    trained = command("train", "own_arm.yaml", "--local", "--run-dir", "run", *small)
    assert trained.exit_code == 0, trained.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["my-robot"], "'my-robot' cannot be the name of a Python module"),
        (
            ["robot", "--from", "Hoper-v5"],
            "neither a Gymnasium id nor a file that ends in .xml; did you mean 'Hopper-v5'",
        ),
        (["robot", "--from", "pol.xml"], "there is no file pol.xml; did you mean 'pole.xml'"),
        (["robot", "--from", "still.xml"], "has no actuator, so there is nothing to act with"),
        (["robot", "--from", "broken.xml"], "broken.xml does not compile"),
        (["full"], "full exists and is not empty; choose another name"),
    ],
)
def test_a_wrong_source_or_name_is_refused(arguments: list[str], message: str) -> None:
    Path("pole.xml").write_text(MODEL)
    Path("still.xml").write_text(MODEL[: MODEL.index("<actuator>")] + "</mujoco>")
    Path("broken.xml").write_text("<mujoco><bod/></mujoco>")
    Path("full").mkdir()
    Path("full/file").touch()
    result = command("tasks", "new", *arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert not Path("robot").exists()


class Drawn(gymnasium.Env):
    """Draws its shade."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float64)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, shade: float = 0.0, render_mode: str | None = None):
        self.shade, self.render_mode = shade, render_mode

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(1), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return np.array([self.shade]), float(self.shade * action[0]), False, False, {}

    def render(self) -> Any:
        return np.full((20, 20, 3), int(255 * self.shade), np.uint8)


def test_a_sheet_shows_sampled_variants_and_those_out_of_distribution(tmp_path: Path) -> None:
    shade = {"argument": "shade", "prior": {"uniform": [0.2, 0.5]}, "ood": {"uniform": [0.8, 1.0]}}
    family = GymVariation(f"{__name__}:Drawn", {"shade": shade}, horizon=5)
    tasks = contact_sheet(family, tmp_path / "out.png")
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    assert [family.split_of(task)[0] for task in tasks] == ["train"] * 8 + ["ood"] * 4


def test_a_family_that_cannot_render_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="TabularMDP: its environments render no picture"):
        contact_sheet(load_distribution("TabularMDP"), tmp_path / "out.png")


@pytest.mark.slow
def test_a_sheet_of_a_mujoco_robot_is_written_or_says_what_is_missing() -> None:
    assert command("tasks", "new", "arm").exit_code == 0
    environment = {**os.environ, "MUJOCO_GL": "osmesa"}
    arguments = [sys.executable, "-m", "metarl", "tasks", "check", "arm.yaml", "--sheet", "out.png"]
    done = subprocess.run(arguments, cwd="arm", capture_output=True, text=True, timeout=300, env=environment)
    if done.returncode:
        assert "set MUJOCO_GL to egl or osmesa" in done.stderr
    else:
        assert Path("arm/out.png").read_bytes().startswith(b"\x89PNG")
        assert "out.png: 12 variants" in done.stdout
