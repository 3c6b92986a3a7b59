"""The texts that `metarl tasks new` writes; NAME, KIND and OPTIONS are replaced."""

ARM = """<mujoco model="arm">
  <option timestep="0.01" integrator="implicitfast"/>
  <worldbody>
    <light pos="0 0 3"/>
    <camera name="above" pos="0.2 0 1.6"/>
    <site name="target" pos="0.4 0.3 0" size="0.02" rgba="0.8 0.2 0.2 1"/>
    <body name="upper">
      <joint name="shoulder" type="hinge" axis="0 0 1" damping="0.2"/>
      <geom name="upper_link" type="capsule" fromto="0 0 0 0.4 0 0" size="0.03" mass="1"/>
      <body name="fore" pos="0.4 0 0">
        <joint name="elbow" type="hinge" axis="0 0 1" damping="0.2" range="-150 150"/>
        <geom name="fore_link" type="capsule" fromto="0 0 0 0.3 0 0" size="0.025" mass="0.5"/>
        <body name="hand" pos="0.3 0 0">
          <geom name="palm" type="sphere" size="0.03" mass="0.1" contype="0" conaffinity="0"/>
          <site name="tip" size="0.01" rgba="0.2 0.5 0.8 1"/>
        </body>
      </body>
    </body>
  </worldbody>
  <actuator>
    <motor name="shoulder" joint="shoulder" gear="3" ctrlrange="-1 1"/>
    <motor name="elbow" joint="elbow" gear="2" ctrlrange="-1 1"/>
  </actuator>
</mujoco>
"""

REWARD = '''"""The reward of the robot. Replace it by what the robot is for."""

import numpy as np


def reward(before, action, after, task):
    """[n] for n robots: minus the distance to the target. after.joint("...") and after.body("...") work likewise."""
    distance = np.linalg.norm(after.site("tip") - after.site("target"), axis=1)
    return -distance - 0.01 * np.square(action).sum(axis=1)
'''

STILL = '''"""The reward of the robot. Replace it by what the robot is for."""

import numpy as np

from metarl.tasks.variation.rewards import effort


def reward(before, action, after, task):
    """[n] for n robots: slow joints and small actions. Places [n, 3] are after.site("...") and after.body("...")."""
    cost = 0.01 * effort(action, after.model.actuator_ctrlrange)  # 0.01 per actuator at full control
    return -0.1 * np.square(after.qvel).sum(axis=1) - cost
'''

YAML = """task_distribution:
  name: KIND
  options:
OPTIONS
algorithm: {name: promp, num_streams: 10, tasks_per_iteration: 10}
training: {iterations: 100}
evaluation: {num_tasks: 10}
"""

TEST = '''"""The robot keeps the contract of a task distribution, and each varied parameter has an effect."""

from pathlib import Path

from metarl.config import load_task_distribution
from metarl.runs.build import distribution_of
from metarl.tasks.check import check_distribution


def test_the_variation_passes_all_checks(monkeypatch):
    monkeypatch.chdir(Path(__file__).parent)
    distribution = distribution_of(load_task_distribution(Path("NAME.yaml")))
    failed = {result.name: result.message for result in check_distribution(distribution) if not result.passed}
    assert failed == {}
'''

README = """# NAME

```
metarl tasks check NAME.yaml
metarl tasks sample NAME.yaml -n 5
metarl train NAME.yaml --run-dir runs/NAME
metarl evaluate runs/NAME
python -m pytest test_NAME.py
```

`NAME.yaml` says what varies. Run the commands in this folder.
"""
