"""A stranger's robot: an MJCF file and a TaskDistribution outside the project, trained through Ray, evaluated."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

MJCF = """<mujoco>
  <option timestep="0.01"/>
  <worldbody>
    <body><joint name="slide" type="slide" axis="1 0 0" damping="0.5"/><geom type="sphere" size=".1" mass="1"/></body>
  </worldbody>
  <actuator><motor joint="slide" ctrlrange="-1 1" gear="5"/></actuator>
</mujoco>"""

ROBOT = """import gymnasium
import mujoco
import numpy as np
from gymnasium.envs.mujoco import MujocoEnv
from pathlib import Path
from metarl.tasks import LogUniform, Parameter, TaskDistribution, Uniform


class Slider(MujocoEnv):
    metadata = {"render_modes": ["human", "rgb_array", "depth_array", "rgbd_tuple"], "render_fps": 50}

    def __init__(self, target, mass):
        space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
        super().__init__(str(Path(__file__).with_name("slider.xml")), 2, observation_space=space)
        self.target, self.model.body_mass[1] = target, mass
        mujoco.mj_setConst(self.model, self.data)

    def observe(self):
        return np.concatenate((self.data.qpos, self.data.qvel))

    def step(self, action):
        self.do_simulation(action, self.frame_skip)
        return self.observe(), -abs(float(self.data.qpos[0]) - self.target), False, False, {}

    def reset_model(self):
        self.set_state(self.init_qpos, self.init_qvel + 0.01 * self.np_random.standard_normal(1))
        return self.observe()


class SliderTasks(TaskDistribution):
    name, horizon = "SliderTasks", 10
    parameters = (
        Parameter("target", Uniform(-1, 1), "m", ood=Uniform(1, 2)),
        Parameter("mass", LogUniform(0.5, 2), "kg"),
    )

    def make(self, task):
        return Slider(task["target"], task["mass"])
"""

CONFIG = """seed: 3
task_distribution: {name: "slider:SliderTasks"}
algorithm: {name: maml, tasks_per_iteration: 4, num_streams: 3}
training: {iterations: 2, tasks_per_unit: 2, evaluate_every: 0}
"""


@pytest.fixture
def strangers_folder(tmp_path: Path) -> Path:
    for name, text in (("slider.xml", MJCF), ("slider.py", ROBOT), ("slider.yaml", CONFIG)):
        (tmp_path / name).write_text(text)
    return tmp_path


def metarl(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line as a stranger runs it, in their own folder."""
    program = Path(sys.executable).with_name("metarl")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(
        [program, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def test_a_strangers_robot_trains_through_ray_and_is_evaluated_by_module_and_attribute(strangers_folder):
    trained = metarl(strangers_folder, "train", "slider.yaml", "executor.num_workers=2", "--run-dir", "run")
    assert trained.returncode == 0, trained.stderr
    records = [json.loads(line) for line in (strangers_folder / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [r["iteration"] for r in records if r["kind"] == "train"] == [1, 2]
    evaluated = metarl(strangers_folder, "evaluate", "run", "--split", "ood", "--tasks", "4", "--local", "--out", "out")
    assert evaluated.returncode == 0, evaluated.stderr
    evaluation = json.loads((strangers_folder / "out" / "evaluation.json").read_text())
    assert evaluation["split"] == "ood"
    assert evaluation["env_steps"] == 4 * 3 * 2 * 10
    assert all(1 <= task["task"]["target"] <= 2 for task in evaluation["per_task"])


def test_a_strangers_distribution_passes_the_contract(strangers_folder):
    checked = metarl(strangers_folder, "tasks", "check", "slider:SliderTasks")
    assert checked.returncode == 0, checked.stdout + checked.stderr
