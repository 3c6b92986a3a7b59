"""The values of fields that tasks change.

They are always computed from the base model's, in the order of the entries, so that nothing compounds. What belongs
together stays together: inertia goes with mass, and the stiffness of a position actuator with its gain, unless an entry
names it itself.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import mujoco
import numpy as np

from metarl.errors import TaskError
from metarl.tasks.physics import Physics
from metarl.tasks.variation.description import FieldEntry
from metarl.tasks.variation.fields import KINDS, Address, FieldChange, base_of, names_of


def write_fields_of(physics: Physics, arrays: Mapping[str, np.ndarray]) -> None:
    """Write the values that `changed_fields` gives into the fields of `physics`."""
    for field, array in arrays.items():
        physics.field(field)[:] = array[:, 0] if field in KINDS and not KINDS[field].element else array


def prepare(model: Any, changes: Sequence[FieldChange]) -> None:
    """Switch off what MuJoCo compiled into the model on the ground of places that `changes` move. TaskError where its
    sparsity forbids it.

    Offsets of frames from their bodies are ignored where the model file had none. Pairs of bodies with several geoms
    are sorted out by boxes that the compiler made for the first places and margins: contacts outside would be lost.
    """
    for change in changes:
        for address in change.addresses:
            rows = list(address.rows)
            moves_mass = address.field == "body_ipos" or (address.field == "payload" and change.entry.at is not None)
            if moves_mass:
                simple = [names_of(model, "body")[row] for row in rows if model.body_simple[row]]
                if simple:
                    raise TaskError(
                        f"{change.where}: the centre of mass of {', '.join(simple)} lies exactly where its joint does, "
                        "and the compiled model relies on it; give the body an <inertial> that is off by 1e-6 m"
                    )
                model.body_sameframe[rows] = 0
            elif address.field in ("geom_pos", "site_pos"):
                getattr(model, address.field.replace("pos", "sameframe"))[rows] = 0
            if moves_mass or address.field in ("geom_pos", "geom_margin"):
                model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_MIDPHASE)


_FOLLOW = {  # what else is written with a field
    "body_mass": ("body_inertia",),
    "payload": ("body_mass", "body_ipos", "body_inertia", "body_iquat"),
    "actuator_gainprm": ("actuator_biasprm",),
}


def changed_live(changes: Sequence[FieldChange]) -> tuple[FieldChange, ...]:
    """The changes that are made anew in mid-episode: those with a schedule, and all that write a field which another
    one of them writes, for such a field is computed whole."""
    live = [change for change in changes if change.is_scheduled]
    while True:
        fields = {field for change in live for field in _written_by(change)}
        wider = [change for change in changes if fields & _written_by(change)]
        if len(wider) == len(live):
            return tuple(wider)
        live = wider


def _written_by(change: FieldChange) -> set[str]:
    names = {address.field for address in change.addresses}
    return names.union(*(_FOLLOW.get(name, ()) for name in names))


def _named(changes: Sequence[FieldChange]) -> set[tuple[str, int, int]]:
    """Field, row and column of all inertias and actuators' biases that entries name themselves."""
    widths = {"body_inertia": 3, "actuator_biasprm": mujoco.mjNBIAS}
    return {
        (address.field, row, column)
        for change in changes
        for address in change.addresses
        for row in address.rows
        for column in (change.entry.columns or range(widths.get(address.field, 0)))
    }


def changed_fields(
    changes: Sequence[FieldChange],
    model: Any,
    n: int,
    values: Mapping[str, np.ndarray],
    among: Sequence[FieldChange] | None = None,
) -> dict[str, np.ndarray]:
    """The values [n, rows, ...] of every field that `changes` concern, all computed from the base model.

    `among`: all changes of the family, where these are some of them.
    """
    fields = _Fields(model, n, _named(changes if among is None else among))
    for change in changes:
        value = np.asarray(values[change.name], dtype=np.float64)
        for address in change.addresses:
            if address.field == "payload":
                fields.add_payload(address.rows[0], value, change.entry.at)
            else:
                fields.change(address, change.entry, value)
    return fields.arrays


class _Fields:
    """Fields under construction. `named`: field, row and column of the numbers that follow no other field."""

    def __init__(self, model: Any, n: int, named: Collection[tuple[str, int, int]]):
        self.model, self.n, self.named = model, n, named
        self.arrays: dict[str, np.ndarray] = {}

    def of(self, field: str) -> np.ndarray:
        if field not in self.arrays:
            base = (
                base_of(self.model, field) if field in KINDS else np.array(getattr(self.model, field), dtype=np.float64)
            )
            self.arrays[field] = np.repeat(base[None], self.n, axis=0)
        return self.arrays[field]

    def change(self, address: Address, entry: FieldEntry, value: np.ndarray) -> None:
        """Apply one entry to one field; inertia follows mass, a position actuator's stiffness its gain."""
        array = self.of(address.field)
        rows = list(address.rows)
        before = array[:, rows].copy()
        after = _changed(before, entry, value, address)
        array[:, rows] = after
        if address.field == "body_mass":
            factor = _value(value, address) if entry.mode == "scale" else _ratio(after, before)
            follows = np.array([[("body_inertia", row, axis) not in self.named for axis in range(3)] for row in rows])
            if follows.any():
                inertia = self.of("body_inertia")
                inertia[:, rows] *= np.where(follows, np.broadcast_to(factor, after.shape)[:, :, None], 1.0)
        elif address.field == "actuator_gainprm":
            gain, bias = self.model.actuator_gainprm[rows, 0], self.model.actuator_biasprm[rows, 1]
            is_servo = dict(zip(rows, (gain == -bias) & (gain != 0), strict=True))
            servos = [row for row in rows if is_servo[row] and ("actuator_biasprm", row, 1) not in self.named]
            if servos:
                self.of("actuator_biasprm")[:, servos, 1] = -array[:, servos, 0]

    def add_payload(self, body: int, mass: np.ndarray, at: Sequence[float] | None) -> None:
        """A point mass [n] on a body: its mass, centre of mass and inertia are those of both together."""
        masses, places = self.of("body_mass"), self.of("body_ipos")
        inertias, frames = self.of("body_inertia"), self.of("body_iquat")
        own, centre = masses[:, body].copy(), places[:, body].copy()
        place = centre if at is None else np.broadcast_to(np.asarray(at, dtype=np.float64), centre.shape)
        total = own + mass
        share = np.divide(mass, total, out=np.zeros_like(total), where=total > 0)
        places[:, body] = centre + share[:, None] * (place - centre)
        masses[:, body] = total
        offset, reduced = place - centre, own * share
        if at is None or not offset.any():
            return
        for i in range(self.n):
            turn = np.zeros(9)
            mujoco.mju_quat2Mat(turn, frames[i, body])
            axes = turn.reshape(3, 3)
            tensor = axes @ np.diag(inertias[i, body]) @ axes.T
            r = offset[i]
            tensor = tensor + reduced[i] * (r @ r * np.eye(3) - np.outer(r, r))
            inertias[i, body], frames[i, body] = _principal(tensor)


def _principal(tensor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Principal moments [3] and the quaternion [4] of their axes."""
    moments, axes = np.linalg.eigh(tensor)
    if np.linalg.det(axes) < 0:
        axes[:, 0] = -axes[:, 0]
    quaternion = np.zeros(4)
    mujoco.mju_mat2Quat(quaternion, np.ascontiguousarray(axes).ravel())
    return moments, quaternion


def _value(value: np.ndarray, address: Address) -> np.ndarray:
    """The parameter's value for each row of an address, [n, 1] or [n, rows]."""
    return value[:, None] if value.ndim == 1 else value[:, list(address.owner)]


def _changed(before: np.ndarray, entry: FieldEntry, value: np.ndarray, address: Address) -> np.ndarray:
    """The rows [n, rows, ...] of a field after the entry."""
    if entry.mode == "zero":
        operand = (value[:, None] != np.asarray(address.owner)).astype(np.float64)
    else:
        operand = _value(value, address)
    operand = operand.reshape(*operand.shape, *(1,) * (before.ndim - 2))
    if entry.mode in ("scale", "zero"):
        after = before * operand
    elif entry.mode == "add":
        after = before + operand
    else:
        after = np.where(np.isnan(operand), before, operand)  # NaN: before the step from which it holds
    if entry.columns is None or before.ndim == 2:
        return after
    kept = before.copy()
    kept[:, :, list(entry.columns)] = after[:, :, list(entry.columns)]
    return kept


def _ratio(after: np.ndarray, before: np.ndarray) -> np.ndarray:
    return np.divide(after, before, out=np.ones_like(after), where=before > 0)
