"""Quadruped: a robot dog of 12 kg that walks forward with other loads, floors and motors, one of which may fail.

The robot is `assets/quadruped.xml`; its variation is declared, as a YAML file would declare it. Reward, termination and
observation are functions of n robots at once:

    r_t = steadiness (1 - min(|v_t - v*| / |v*|, 1))  +  0.2 cos(tilt)  -  costs of turning, torques, changed targets

v_t [m/s] is the horizontal velocity of the trunk in its own heading, v* = (0.6, 0); steadiness is 1 where the trunk
neither rocks nor bounces.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from metarl.tasks import Anchors, TaskParams
from metarl.tasks.variation import MujocoVariation
from metarl.tasks.variation.equations import State

MODEL = Path(__file__).parent / "assets" / "quadruped.xml"
COMMAND = 0.6  # m/s
FRAME_SKIP = 4  # physics steps of 5 ms per action: control at 50 Hz

_UPRIGHT, _TURNING, _TORQUE, _CHANGE = 0.2, 0.1, 1e-4, 0.02
_ROCKING, _BOUNCING = 4.0, 0.6  # rad/s and m/s at which steadiness is 1/e
_LOWEST, _STEEPEST = 0.15, 0.7  # height of the trunk [m], cosine of its tilt

VARY: dict[str, dict[str, Any]] = {
    "payload": {
        "field": "payload[trunk]",
        "at": [0.0, 0.0, 0.06],
        "prior": {"uniform": [0.0, 3.0]},
        "ood": {"uniform": [3.0, 5.0]},
    },
    "friction": {
        "field": "geom_friction[*]",
        "columns": [0],
        "mode": "set",
        "prior": {"uniform": [0.4, 1.2]},
        "ood": {"uniform": [0.2, 0.4]},
    },
    "strength": {
        "field": ["actuator_gainprm[*]", "actuator_forcerange[*]"],
        "prior": {"uniform": [0.8, 1.2]},
        "ood": {"uniform": [0.6, 0.8]},
    },
    "failed_motor": {
        "field": "actuator_gear[*]",
        "mode": "zero",
        "prior": {"choice": [-1, 0, 1, 2, 3, 4, 5, 6, 7, 8]},
        "ood": {"choice": [9, 10, 11]},
        "at_step": {"uniform": [50, 150]},
    },
}
EFFECTS: dict[str, dict[str, Any]] = {
    "action_delay": {"prior": {"uniform": [0.0, 1.0]}, "ood": {"uniform": [1.0, 2.0]}},
}


class Quadruped(MujocoVariation):
    """Walk forward at 0.6 m/s. Ends where the trunk is below 0.15 m or tilted by more than 46 degrees.

    Observation 42: gravity and angular velocity in the trunk's frame, joint angles and velocities, last targets.
    Action 12: targets of the joints, offsets from the standing pose [rad]. 50 steps are a second.

    payload: a mass on the trunk [kg]. friction: the sliding friction of feet and floor. strength: a factor of the
    stiffness and torque limit of all motors. action_delay: steps. failed_motor: the index of a motor without torque
    from the step `failed_motor.at_step`, or -1; out of distribution it is one of the fourth leg.

    vary, effects: entries that are added to these, or that replace those of the same name; None leaves an entry out.
    """

    name = "Quadruped"
    version = 1

    def __init__(
        self,
        vary: Mapping[str, Any] | None = None,
        effects: Mapping[str, Any] | None = None,
        horizon: int = 250,
        reset_noise: float = 0.02,
        backend: str | None = None,
        unstable: str = "fault",
    ):
        super().__init__(
            model=str(MODEL),
            vary=_merged(VARY, vary),
            effects=_merged(EFFECTS, effects),
            reward=reward,
            terminated=fallen,
            observe=observe,
            reset_noise=reset_noise,
            frame_skip=FRAME_SKIP,
            horizon=horizon,
            backend=backend,
            unstable=unstable,
        )

    @property
    def anchors(self) -> Anchors:
        source = "standing still: 0.2 per step; the torques of standing and the reset's noise left out"
        return Anchors(_UPRIGHT * self.horizon, None, None, source)


def _merged(own: Mapping[str, Any], given: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: entry for name, entry in {**own, **(given or {})}.items() if entry is not None}


# --- the equations -----------------------------------------------------------------------------------


def observe(state: State) -> np.ndarray:
    """What the robot measures [n, 42]: no position, no velocity of the trunk."""
    return np.concatenate((-_up(state), state.qvel[:, 3:6], state.qpos[:, 7:], state.qvel[:, 6:], state.ctrl), axis=1)


def reward(before: State, action: np.ndarray, after: State, task: TaskParams) -> np.ndarray:
    """[n], at most 1.2 per step. Standing still earns 0.2."""
    torque, change = after.sensordata, after.ctrl - before.ctrl
    cost = (
        _TURNING * np.minimum(np.abs(after.qvel[:, 5]), 1.0)
        + _TORQUE * np.square(torque).sum(axis=1)
        + _CHANGE * np.square(change).sum(axis=1)
    )
    walking = tracking(velocity(before, after)) * steadiness(after.qvel)
    return np.asarray(walking + _UPRIGHT * _up(after)[:, 2] - cost)


def tracking(v: np.ndarray) -> np.ndarray:
    """1 - min(|v - v*| / |v*|, 1) of horizontal velocities [n, 2]."""
    error = np.linalg.norm(v - np.array([COMMAND, 0.0]), axis=1)
    return np.asarray(1.0 - np.minimum(error / COMMAND, 1.0))


def steadiness(qvel: np.ndarray) -> np.ndarray:
    """exp(-(w_x^2 + w_y^2) / 4^2 - v_z^2 / 0.6^2) of velocities [n, nv]: 1 where the trunk is steady."""
    rocking = np.square(qvel[:, 3:5]).sum(axis=1) / _ROCKING**2
    return np.asarray(np.exp(-rocking - np.square(qvel[:, 2] / _BOUNCING)))


def velocity(before: State, after: State) -> np.ndarray:
    """The trunk's mean horizontal velocity over a step, forward and to the left [n, 2]."""
    moved = (after.qpos[:, :2] - before.qpos[:, :2]) / (after.model.opt.timestep * FRAME_SKIP)
    heading = _heading(after)
    left = np.stack((-heading[:, 1], heading[:, 0]), axis=1)
    return np.stack(((moved * heading).sum(axis=1), (moved * left).sum(axis=1)), axis=1)


def fallen(state: State) -> np.ndarray:
    """Whether the trunk is too low or too steep, [n]."""
    return np.asarray((state.qpos[:, 2] < _LOWEST) | (_up(state)[:, 2] < _STEEPEST))


def _up(state: State) -> np.ndarray:
    """The world's vertical in the trunk's frame, [n, 3]."""
    w, x, y, z = _quaternion(state)
    return np.stack((2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)), axis=1)


def _heading(state: State) -> np.ndarray:
    """The trunk's forward axis on the ground, of length 1, [n, 2]."""
    w, x, y, z = _quaternion(state)
    forward = np.stack((1 - 2 * (y * y + z * z), 2 * (x * y + w * z)), axis=1)
    return np.asarray(forward / np.maximum(np.linalg.norm(forward, axis=1, keepdims=True), 1e-6))


def _quaternion(state: State) -> np.ndarray:
    """The trunk's orientation [4, n], of length 1: a reset's noise leaves it longer or shorter."""
    q = state.qpos[:, 3:7].T
    return np.asarray(q / np.linalg.norm(q, axis=0))
