"""A robot whose model changes after training is not taken for the one that the run was trained on."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import mujoco
import pytest

import metarl
from metarl.errors import CheckpointError
from metarl.tasks import RevealedTask, load_distribution
from metarl.tasks.model_file import fingerprint_of
from metarl.tasks.variation.skeleton_texts import ARM

CONFIG = {
    "algorithm": {"name": "promp", "tasks_per_iteration": 2, "num_streams": 2, "hidden": [4]},
    "training": {"iterations": 1, "evaluate_every": 0},
    "evaluation": {"num_tasks": 2},
    "executor": {"backend": "local"},
}
VARY = {"mass": {"field": "body_mass[*]", "prior": {"uniform": [0.5, 2.0]}}}
REWARD = {"reach": {"site": "tip", "target": "target"}}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "arm.xml"
    path.write_text(ARM)
    return path


@pytest.fixture
def run(model: Path) -> Path:
    options = {"model": str(model), "reward": REWARD, "vary": VARY, "horizon": 5}
    config = {"task_distribution": {"name": "MujocoVariation", "options": options}, **CONFIG}
    (model.parent / "arm.yaml").write_text(json.dumps(config))
    metarl.train(model.parent / "arm.yaml", run_dir=model.parent / "run", progress=False)
    return model.parent / "run"


def test_another_link_is_warned_of_when_judging_and_refused_when_training_goes_on(
    run: Path, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    metarl.evaluate(run)
    assert "robot's model" not in caplog.text
    model.write_text(ARM.replace('mass="0.1"', 'mass="0.2"'))
    with caplog.at_level(logging.WARNING):
        metarl.evaluate(run)
        metarl.load_agent(run)
    assert caplog.text.count("trained on: body_mass, body_inertia differ") == 2
    with pytest.raises(CheckpointError, match=r"since iteration 1: body_mass, body_inertia differ.* --from"):
        metarl.train(model.parent / "arm.yaml", run_dir=run, resume=True, progress=False)


def test_a_comment_in_the_model_changes_nothing(run: Path, model: Path, caplog: pytest.LogCaptureFixture) -> None:
    model.write_text(ARM.replace("</mujoco>", "<!-- bought in 2026 --></mujoco>"))
    metarl.evaluate(run)
    assert "robot's model" not in caplog.text
    again = metarl.train(model.parent / "arm.yaml", run_dir=run, resume=True, progress=False)
    assert again.iteration == 1


def test_an_oracle_has_the_fingerprint_of_its_tasks() -> None:
    family = load_distribution("HalfCheetahVel", horizon=5)
    assert RevealedTask(family).fingerprint() == family.fingerprint() != {}


def test_a_fingerprint_is_deaf_to_rounding_and_hears_a_thousandth() -> None:
    model = mujoco.MjModel.from_xml_string(ARM)
    before = fingerprint_of(model)
    model.body_mass[1] *= 1 + 1e-12
    assert fingerprint_of(model) == before
    model.body_mass[1] *= 1.001
    model.opt.timestep *= 2
    after = fingerprint_of(model)
    assert {name for name in after if after[name] != before[name]} == {"body_mass", "opt.timestep"}
