"""Robots for the tests of variation: a two-joint arm as MJCF, and the section that varies a Hopper."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from metarl.tasks import EnvBatch, Task
from metarl.tasks.mujoco import MujocoBatch
from metarl.tasks.variation import MujocoVariation

ARM = """<mujoco model="arm">
  <option timestep="0.01" integrator="implicitfast" gravity="0 0 0"/>
  <worldbody>
    <site name="target" pos="0.4 0.3 0" size="0.02"/>
    <body name="upper">
      <joint name="shoulder" type="hinge" axis="0 0 1" damping="0.2"/>
      <geom name="upper_link" type="capsule" fromto="0 0 0 0.4 0 0" size="0.03" mass="1"/>
      <body name="fore" pos="0.4 0 0">
        <joint name="elbow" type="hinge" axis="0 0 1" damping="0.2" range="-150 150" limited="true"/>
        <geom name="fore_link" type="capsule" fromto="0 0 0 0.3 0 0" size="0.025" mass="0.5"/>
        <body name="hand" pos="0.3 0 0">
          <inertial pos="0.01 0 0" mass="0.1" diaginertia="1e-4 1e-4 1e-4"/>
          <geom name="palm" type="sphere" size="0.03" mass="0" contype="0" conaffinity="0"/>
          <site name="tip" size="0.01"/>
        </body>
      </body>
    </body>
  </worldbody>
  <actuator>
    <motor name="shoulder" joint="shoulder" gear="3" ctrlrange="-1 1"/>
    <position name="elbow" joint="elbow" kp="20" kv="1" ctrlrange="-1 1"/>
  </actuator>
</mujoco>
"""
MASS: dict[str, Any] = {"field": "body_mass[torso]", "prior": {"log_uniform": [0.5, 2.0]}}


def reach(before: Any, action: np.ndarray, after: Any, task: Any) -> np.ndarray:
    """Minus the distance from tip to target."""
    return -np.linalg.norm(after.site("tip") - after.site("target"), axis=1) - 0.01 * np.square(action).sum(axis=1)


def arm_file(folder: Path) -> str:
    path = folder / "arm.xml"
    path.write_text(ARM)
    return str(path)


def hopper(vary: dict[str, Any] | None = None, **options: Any) -> MujocoVariation:
    """A Hopper; of its torso's mass, unless other things vary."""
    if vary is None and "effects" not in options:
        vary = {"mass": MASS}
    return MujocoVariation(env="Hopper-v5", vary=vary, **options)


def arm(folder: Path, vary: dict[str, Any] | None = None, **options: Any) -> MujocoVariation:
    return MujocoVariation(model=arm_file(folder), reward=reach, vary=vary, **options)


def side_by_side(tasks: tuple[Task, ...], seed: int = 5, **options: Any) -> tuple[MujocoBatch, EnvBatch]:
    """The same tasks on the native and on the Gymnasium path, reset into the same state."""
    native, gym = MujocoVariation(**options), MujocoVariation(path="gymnasium", **options)
    one, other = native.make_batch(tasks), gym.make_batch(tasks)
    assert isinstance(one, MujocoBatch)
    assert isinstance(other, EnvBatch)
    one.reset(seed=seed)
    for i, env in enumerate(other._envs):
        inner: Any = env.env.unwrapped
        inner.reset_model = partial(_into, inner, one.physics.qpos[i].copy(), one.physics.qvel[i].copy())
    other.reset(seed=seed)
    return one, other


def _into(env: Any, qpos: np.ndarray, qvel: np.ndarray) -> np.ndarray:
    """Gymnasium's reset_model, without its own draws."""
    env.set_state(qpos, qvel)
    return np.asarray(env._get_obs())
