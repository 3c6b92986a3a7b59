"""Fields of a MuJoCo model by the names of their elements; `field_values` changes them.

body_mass[torso]   geom_friction[foot_*]   dof_damping[*]   actuator_gear[hip]   gravity   payload[hand]
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

import mujoco
import numpy as np

from metarl.errors import TaskError, did_you_mean
from metarl.tasks.physics import owner_of
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
