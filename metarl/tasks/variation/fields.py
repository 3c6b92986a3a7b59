"""Fields of a MuJoCo model by the names of their elements, and how tasks change them.

    body_mass[torso]   geom_friction[foot_*]   dof_damping[*]   actuator_gear[hip]   gravity   payload[hand]

Changed values are always computed from the base model's, in the order of the entries, so that nothing compounds. What
belongs together stays together: inertia goes with mass, and the stiffness of a position actuator with its gain, unless
an entry names it itself.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

import mujoco
import numpy as np

from metarl.errors import TaskError, did_you_mean
from metarl.tasks.physics import Physics, owner_of
from metarl.tasks.variation.description import FieldEntry

Bound = Literal["positive", "nonnegative", "any"]


@dataclass(frozen=True)
class Kind:
    """What is known of a field. element: what its rows belong to, "" for the whole world.

    is_live: whether it may change in mid-episode, which is where no derived constant depends on it.
    """

    element: str
    bound: Bound = "any"
    is_live: bool = False
    unit: str = ""


KINDS: dict[str, Kind] = {
    "body_mass": Kind("body", "positive", unit="kg"),
    "body_inertia": Kind("body", "positive", unit="kg m^2"),
    "body_ipos": Kind("body", unit="m"),
    "body_pos": Kind("body", unit="m"),
    "geom_friction": Kind("geom", "nonnegative", True),
    "geom_solref": Kind("geom", "any", True),
    "geom_solimp": Kind("geom", "any", True),
    "geom_margin": Kind("geom", "nonnegative", True, "m"),
    "geom_pos": Kind("geom", unit="m"),
    "site_pos": Kind("site", unit="m"),
    "dof_damping": Kind("joint", "nonnegative", True),
    "dof_armature": Kind("joint", "nonnegative"),
    "dof_frictionloss": Kind("joint", "nonnegative"),
    "jnt_range": Kind("joint", "any", True),
    "jnt_stiffness": Kind("joint", "nonnegative", True),
    "actuator_gear": Kind("actuator", "any", True),
    "actuator_gainprm": Kind("actuator", "any", True),
    "actuator_biasprm": Kind("actuator", "any", True),
    "actuator_forcerange": Kind("actuator", "any", True),
    "tendon_stiffness": Kind("tendon", "nonnegative", True),
    "tendon_damping": Kind("tendon", "nonnegative", True),
    "gravity": Kind("", "any", True, "m/s^2"),
    "wind": Kind("", "any", True, "m/s"),
    "density": Kind("", "nonnegative", True, "kg/m^3"),
    "viscosity": Kind("", "nonnegative", True, "Pa s"),
    "payload": Kind("body", "nonnegative", unit="kg"),
}
ALIASES = {
    "joint_range": "jnt_range",
    "joint_stiffness": "jnt_stiffness",
    "armature": "dof_armature",
    "damping": "dof_damping",
    "frictionloss": "dof_frictionloss",
}
_OBJECTS = {
    "body": mujoco.mjtObj.mjOBJ_BODY,
    "geom": mujoco.mjtObj.mjOBJ_GEOM,
    "joint": mujoco.mjtObj.mjOBJ_JOINT,
    "site": mujoco.mjtObj.mjOBJ_SITE,
    "actuator": mujoco.mjtObj.mjOBJ_ACTUATOR,
    "tendon": mujoco.mjtObj.mjOBJ_TENDON,
}
_COUNTS = {"body": "nbody", "geom": "ngeom", "joint": "njnt", "site": "nsite", "actuator": "nu", "tendon": "ntendon"}


@dataclass(frozen=True)
class Address:
    """Rows of one field of a model; `names` are those of their elements, `owner` says which of them a row is of."""

    field: str
    rows: tuple[int, ...]
    owner: tuple[int, ...]
    names: tuple[str, ...]

    @property
    def kind(self) -> Kind:
        return KINDS[self.field]


def address_of(text: str, model: Any, where: str) -> Address:
    """The rows that `body_mass[torso]` names; TaskError suggesting the nearest names where there are none."""
    found = re.fullmatch(r"\s*(\w+)\s*(?:\[(.*)\])?\s*", text)
    if found is None:
        raise TaskError(f"{where} = {text!r}: must be a field and its elements, such as body_mass[torso] or gravity")
    field, pattern = found.groups()
    field = ALIASES.get(field, field)
    if field not in KINDS:
        known = [*KINDS, *ALIASES]
        hint = did_you_mean(field, known)
        raise TaskError(f"{where} = {text!r}: unknown field {field!r}; {hint}allowed: {', '.join(known)}")
    element = KINDS[field].element
    if not element:
        if pattern is not None:
            raise TaskError(f"{where} = {text!r}: {field} is one for the whole world; write it without [...]")
        return Address(field, (0,), (0,), ("",))
    if pattern is None:
        raise TaskError(f"{where} = {text!r}: which {element}? Write {field}[NAME] or {field}[*]")
    return _matching(field, element, pattern, model, f"{where} = {text!r}")


def _matching(field: str, element: str, pattern: str, model: Any, where: str) -> Address:
    names = names_of(model, element)
    patterns = [part.strip() for part in pattern.split(",")]
    chosen: list[int] = []
    for part in patterns:
        matches = [i for i, name in enumerate(names) if fnmatchcase(name, part)]
        if element == "body" and "*" in part:
            matches = [i for i in matches if i]  # the world has no dynamics of its own
        if not matches:
            hint = did_you_mean(part.strip("*"), names)
            there = ", ".join(names) or "none"
            raise TaskError(f"{where}: the model has no {element} {part!r}; {hint}there are: {there}")
        chosen += [i for i in matches if i not in chosen]
    if field == "payload" and len(chosen) > 1:
        raise TaskError(f"{where}: a payload is on one body, and {pattern!r} names {len(chosen)}")
    rows, owner = [], []
    for place, index in enumerate(sorted(chosen)):
        for row in _dofs_of(model, index) if field.startswith("dof_") else [index]:
            rows.append(row)
            owner.append(place)
    return Address(field, tuple(rows), tuple(owner), tuple(names[i] for i in sorted(chosen)))


def names_of(model: Any, element: str) -> list[str]:
    """The names of all elements of a kind; those without one are called `geom3`."""
    count = getattr(model, _COUNTS[element])
    return [mujoco.mj_id2name(model, _OBJECTS[element], i) or f"{element}{i}" for i in range(count)]


def _dofs_of(model: Any, joint: int) -> list[int]:
    first = int(model.jnt_dofadr[joint])
    size = {0: 6, 1: 3}.get(int(model.jnt_type[joint]), 1)  # free, ball, slide or hinge
    return list(range(first, first + size))


@dataclass(frozen=True)
class FieldChange:
    """One entry of `vary`, resolved on a model."""

    name: str
    entry: FieldEntry
    addresses: tuple[Address, ...]

    @property
    def where(self) -> str:
        return f"vary.{self.name}"

    @property
    def num_elements(self) -> int:
        return len(self.addresses[0].names)

    @property
    def size(self) -> int | None:
        """Components of the parameter's value; None for a plain number."""
        return None if self.entry.shared or self.num_elements == 1 else self.num_elements

    @property
    def is_scheduled(self) -> bool:
        return self.entry.at_step is not None or self.entry.redraw is not None

    @property
    def unit(self) -> str:
        if self.entry.mode == "zero":
            return ""
        return "x" if self.entry.mode == "scale" else self.addresses[0].kind.unit

    @property
    def neutral(self) -> float:
        """The value that leaves the model as it is; NaN where none does."""
        return {"scale": 1.0, "add": 0.0, "zero": -1.0, "set": float("nan")}[self.entry.mode]


def change_of(name: str, entry: FieldEntry, model: Any) -> FieldChange:
    """The entry on this model; TaskError where it fits no field, element or column of it."""
    where = f"vary.{name}"
    assert entry.field is not None
    addresses = tuple(address_of(text, model, f"{where}.field") for text in entry.field)
    is_payload = any(address.field == "payload" for address in addresses)
    if is_payload and "mode" in entry.model_fields_set:
        raise TaskError(f"{where}.mode = {entry.mode!r}: a payload is a mass that is added [kg]; leave mode out")
    if entry.at is not None and (not is_payload or len(entry.at) != 3):
        raise TaskError(
            f"{where}.at = {list(entry.at)}: three numbers, the place of a payload; for payload[BODY] alone"
        )
    if is_payload:
        entry = entry.model_copy(update={"mode": "add"})
    change = FieldChange(name, entry, addresses)
    if change.size is not None and len({len(address.names) for address in addresses}) > 1:
        raise TaskError(f"{where}: shared: false needs fields of equally many elements")
    if entry.mode == "zero" and not entry.shared:
        raise TaskError(
            f"{where}: mode zero has one value, the index of the element that is set to 0: leave shared out"
        )
    for address in addresses:
        _require_columns(change, address, model)
        if change.is_scheduled and not address.kind.is_live:
            live = ", ".join(field for field, kind in KINDS.items() if kind.is_live)
            raise TaskError(
                f"{where}: {address.field} cannot change in mid-episode, because derived constants depend on it; "
                f"allowed with at_step and redraw: {live}"
            )
    return change


def _require_columns(change: FieldChange, address: Address, model: Any) -> None:
    columns = change.entry.columns
    if address.field == "payload":
        return
    base = base_of(model, address.field)
    width = base.shape[1] if base.ndim > 1 else 1
    if columns is None:
        if width > 1 and change.entry.mode in ("add", "set"):
            raise TaskError(
                f"{change.where}: mode {change.entry.mode} would give all {width} numbers of {address.field} the same "
                f"value; say which are meant, such as columns: [{width - 1}]"
            )
        return
    if not columns or max(columns) >= width:
        raise TaskError(
            f"{change.where}.columns = {list(columns)}: {address.field} has {width} number(s) per element, "
            f"columns 0 to {width - 1}"
        )


def base_of(model: Any, field: str) -> np.ndarray:
    """The base model's values of a field, [rows, columns] or [rows]; a field of the whole world is one row."""
    value = np.array(getattr(owner_of(model, field), field), dtype=np.float64)
    return value[None] if not KINDS[field].element else value


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
    changes: Sequence[FieldChange], model: Any, n: int, values: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The values [n, rows, ...] of every field that `changes` concern, all computed from the base model."""
    fields = _Fields(model, n, _named(changes))
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
