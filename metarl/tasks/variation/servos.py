"""Servos: actuators whose force depends on their joint, so that a control of 0 is an order and no rest.

    motor     force = gain ctrl                              at control 0 it does nothing
    servo     force = gain ctrl + b0 + b1 length + b2 velocity    (gainprm[0], biasprm[0:3]; length = gear x angle)

A `<position>` servo (b1 = -gain) drives to the angle ctrl / gear, a `<velocity>` servo (b2 = -gain) to the velocity.
So effects of actions move a servo's target, and a gear other than the model's drives to other angles. A servo's
strength is a factor of gain and biases, and of its force limit; a dead one has a gear of 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np

from metarl.tasks.variation.body import Declared
from metarl.tasks.variation.description import FieldEntry
from metarl.tasks.variation.fields import Address, FieldChange, names_of

_NO_GEAR = [  # transmissions that MuJoCo computes without the gear; SO3 is not in all releases
    int(getattr(mujoco.mjtTrn, name)) for name in ("mjTRN_BODY", "mjTRN_SO3") if hasattr(mujoco.mjtTrn, name)
]
_OF_JOINTS = [int(mujoco.mjtTrn.mjTRN_JOINT), int(mujoco.mjtTrn.mjTRN_JOINTINPARENT)]
_SCALAR_JOINTS = (int(mujoco.mjtJoint.mjJNT_SLIDE), int(mujoco.mjtJoint.mjJNT_HINGE))
_SILENT = [
    int(mujoco.mjtBias.mjBIAS_NONE),
    int(mujoco.mjtBias.mjBIAS_MUSCLE),
]  # a muscle's bias is its passive elasticity


def servos_of(model: Any) -> np.ndarray:
    """Which actuators [nu] push by themselves at a control of 0."""
    is_affine = model.actuator_biastype == mujoco.mjtBias.mjBIAS_AFFINE
    has_bias = model.actuator_biasprm[:, :3].any(axis=1)
    return np.asarray(~np.isin(model.actuator_biastype, _SILENT) & (has_bias | ~is_affine))


def dead_by_gear(model: Any) -> list[int]:
    """The actuators that a control at rest does not silence, and a gear of 0 does."""
    low, high = model.actuator_ctrlrange.T
    pushes_at_rest = np.clip(0.0, low, high) != 0
    is_geared = ~np.isin(model.actuator_trntype, _NO_GEAR)
    return [int(i) for i in np.flatnonzero((servos_of(model) | pushes_at_rest) & is_geared)]


def dead_motor_change(declared: Declared, model: Any) -> FieldChange | None:
    """The change of gears that takes the torque from a dead motor; None where a control at rest does.

    The index of an action must be that of its actuator.
    """
    rows = tuple(dead_by_gear(model)) if declared.kind == "dead_motor" else ()
    if not rows:
        return None
    entry = declared.entry
    names = tuple(names_of(model, "actuator")[row] for row in rows)
    field = FieldEntry(
        field=(f"actuator_gear[{','.join(names)}]",),
        mode="zero",
        prior=entry.prior,
        at_step=entry.at_step,
        redraw=entry.redraw,
    )
    return FieldChange(declared.name, field, (Address("actuator_gear", rows, rows, names),))


@dataclass(frozen=True)
class Strength:
    """Fields, in the notation of `vary`, that multiply the force of some actuators. columns: None for all of theirs."""

    name: str
    fields: tuple[str, ...]
    columns: tuple[int, ...] | None = None


def strengths_of(model: Any, rows: Sequence[int] | None = None) -> list[Strength]:
    """What to scale for the strength of these actuators (None: all).

    The gear of motors; gain, biases and force limit of servos, whose gear is part of their calibration; peak force and
    its scale of muscles.
    """
    chosen = list(range(model.nu)) if rows is None else list(rows)
    is_muscle, is_servo = model.actuator_gaintype == mujoco.mjtGain.mjGAIN_MUSCLE, servos_of(model)
    muscles = [i for i in chosen if is_muscle[i]]
    servos = [i for i in chosen if is_servo[i] and not is_muscle[i]]
    motors = [i for i in chosen if not is_servo[i] and not is_muscle[i]]
    limited = [i for i in servos if model.actuator_forcelimited[i]]
    parts = (("gear", motors), ("gainprm", servos), ("biasprm", servos), ("forcerange", limited))
    fields = tuple(_field(f"actuator_{field}", of, model) for field, of in parts if of)
    elastic = tuple(_field(f"actuator_{field}", muscles, model) for field in ("gainprm", "biasprm"))
    found = [Strength("strength", fields)] if fields else []
    return [*found, Strength("muscle_strength", elastic, (2, 3))] if muscles else found


def _field(field: str, rows: Sequence[int], model: Any) -> str:
    names = names_of(model, "actuator")
    return f"{field}[{'*' if len(rows) == model.nu else ','.join(names[row] for row in rows)}]"


def targets_of(model: Any) -> dict[int, tuple[float, float]]:
    """The joint positions, lowest and highest, that position servos of a hinge or a slide can be told, by actuator."""
    found = {}
    for i in np.flatnonzero(servos_of(model) & np.isin(model.actuator_trntype, _OF_JOINTS)).tolist():
        gain, gear, stiffness = model.actuator_gainprm[i, 0], model.actuator_gear[i, 0], -model.actuator_biasprm[i, 1]
        is_rate = model.actuator_dyntype[i] == mujoco.mjtDyn.mjDYN_INTEGRATOR  # its control is a velocity
        is_scalar = model.jnt_type[model.actuator_trnid[i, 0]] in _SCALAR_JOINTS
        if gear and stiffness and is_scalar and not is_rate and model.actuator_ctrllimited[i]:
            ends = (model.actuator_ctrlrange[i] * gain + model.actuator_biasprm[i, 0]) / stiffness / gear
            found[i] = (float(ends.min()), float(ends.max()))
    return found


def is_hinge(model: Any, joint: int) -> bool:
    return bool(model.jnt_type[joint] == mujoco.mjtJoint.mjJNT_HINGE)


def acts_on_controls(space: Any, model: Any) -> bool:
    """Whether dimension i of an environment's actions is the control of actuator i, as far as their ranges show."""
    ranges = model.actuator_ctrlrange.astype(np.float32)
    found = [getattr(space, end, np.zeros(0)) for end in ("low", "high")]
    return all(
        np.shape(end) == (model.nu,) and np.array_equal(np.where(model.actuator_ctrllimited, end, own), own)
        for end, own in zip(found, ranges.T, strict=True)
    )
