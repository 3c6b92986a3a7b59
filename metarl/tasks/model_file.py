"""Where a MuJoCo family's model file lies, the model compiled from it, and what a run remembers of that."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np

from metarl.errors import TaskError, did_you_mean

_PHYSICS = (  # fields of mjModel that the same actions have other effects with
    *("body_parentid", "body_pos", "body_quat", "body_mass", "body_inertia", "body_ipos", "body_iquat"),
    *("qpos0", "jnt_type", "jnt_pos", "jnt_axis", "jnt_range", "jnt_stiffness", "site_pos"),
    *("dof_damping", "dof_armature", "dof_frictionloss", "tendon_stiffness", "tendon_damping", "eq_data"),
    *("geom_type", "geom_size", "geom_pos", "geom_quat", "geom_contype", "geom_conaffinity", "geom_friction"),
    *("geom_solref", "geom_solimp", "geom_margin", "hfield_data", "actuator_trnid", "actuator_gear"),
    *("actuator_gainprm", "actuator_biasprm", "actuator_dynprm", "actuator_ctrlrange", "actuator_forcerange"),
)
_OPTIONS = ("timestep", "gravity", "wind", "density", "viscosity", "integrator", "cone", "impratio")
_SIGNIFICANT = 6  # digits: compilers and processors differ in the last ones
_GYMNASIUM_MODELS = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets"


def load_model(family: Any) -> Any:
    """The model in the file that `family.xml` names; TaskError where it is not found or does not compile.

    A relative path starts at the folder of the file that states it. A bare file name that is not there is that of a
    model that Gymnasium ships.
    """
    path = find_model(family)
    try:
        return mujoco.MjModel.from_xml_path(str(path))
    except ValueError as error:
        who = getattr(family, "name", type(family).__name__)
        raise TaskError(f"{who}: {path} does not compile: {' '.join(str(error).split())}") from error


def find_model(family: Any) -> Path:
    """The file that `family.xml` names; TaskError where it is not found."""
    candidates = _candidates(family)
    path = next((candidate for candidate in candidates if candidate.is_file()), None)
    if path is None:
        looked, who = ", ".join(map(str, candidates)), getattr(family, "name", type(family).__name__)
        raise TaskError(f"{who}: model file {str(family.xml)!r} is not found; looked at {looked}")
    return path


def fingerprint_of(model: Any) -> dict[str, str]:
    """A digest of each field of a model that decides what it does; the same wherever the robot is compiled."""
    values = {name: getattr(model, name) for name in _PHYSICS}
    values |= {f"opt.{name}": getattr(model.opt, name) for name in _OPTIONS}
    return {name: _digest(np.asarray(value, np.float64)) for name, value in values.items()}


def _digest(values: np.ndarray) -> str:
    magnitude = np.floor(np.log10(np.abs(values), out=np.zeros_like(values), where=values != 0))
    scale = 10.0 ** (_SIGNIFICANT - 1 - np.clip(magnitude, -300, 300))
    rounded = np.rint(values * scale) / scale + 0.0  # never -0
    return hashlib.sha256(f"{rounded.shape} {rounded.tolist()}".encode()).hexdigest()[:12]


def _candidates(family: Any) -> list[Path]:
    path = Path(family.xml).expanduser()
    if path.is_absolute():
        return [path]
    candidates = [_folder_of(family) / path]
    if os.path.basename(family.xml) == str(family.xml):  # "./ant.xml" is a path: never Gymnasium's
        candidates.append(_GYMNASIUM_MODELS / path)
    return candidates


def _folder_of(family: Any) -> Path:
    """The folder of the file that says `xml`: of the class that states it, or of the instance's own class."""
    owner = type(family)
    if "xml" not in vars(family):
        owner = next(kind for kind in owner.__mro__ if "xml" in vars(kind))
    file = getattr(sys.modules.get(owner.__module__), "__file__", None)
    return Path(file).resolve().parent if file else Path.cwd()


def no_model_file(path: Path) -> str:
    """`there is no file PATH`, and the models beside it that may have been meant."""
    there = [p.name for p in path.parent.glob("*.xml")] if path.parent.is_dir() else []
    return f"there is no file {path}{did_you_mean(path.name, there, '; ', '')}"
