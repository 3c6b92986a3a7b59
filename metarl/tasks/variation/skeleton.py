"""A folder to start from: a robot of one's own with varied dynamics, ready to be checked, trained and tested."""

from __future__ import annotations

import keyword
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import gymnasium
import mujoco
import numpy as np

from metarl.errors import TaskError, did_you_mean
from metarl.plugins import describe
from metarl.tasks.check.effects import effects_between
from metarl.tasks.check.rollouts import SEED, rollout
from metarl.tasks.model_file import no_model_file
from metarl.tasks.variation.gym import GymVariation
from metarl.tasks.variation.servos import strengths_of
from metarl.tasks.variation.single import simulator_of
from metarl.tasks.variation.skeleton_texts import ARM, README, REWARD, STILL, TEST, YAML

_MOST_PARAMETERS = 3


def skeleton(name: str, source: str | None) -> dict[str, str]:
    """The files of a new folder `name`, their texts by file name.

    source: an MJCF file, a Gymnasium id, or None for a two-joint arm to start from. TaskError where it is none of
    these, or where `name` cannot be that of a Python module.
    """
    if not name.isidentifier() or keyword.iskeyword(name):
        raise TaskError(f"tasks new: {name!r} cannot be the name of a Python module; allowed are letters, digits and _")
    if source is None:
        own = {f"{name}.xml": ARM, f"{name}.py": REWARD}
        files = own | _of_model(name, f"{name}.xml", mujoco.MjModel.from_xml_string(ARM))
    elif source.endswith((".xml", ".mjcf")):
        files = _of_file(name, Path(source).expanduser())
    else:
        files = _of_gym(name, source)
    return files | {f"test_{name}.py": TEST.replace("NAME", name), "README.md": README.replace("NAME", name)}


def _of_file(name: str, path: Path) -> dict[str, str]:
    """A model of the user's own, copied where it stands alone, else named by its path."""
    if not path.is_file():
        raise TaskError(f"tasks new: {no_model_file(path)}")
    text = path.read_text(encoding="utf-8")
    try:
        model = mujoco.MjModel.from_xml_path(str(path))
    except ValueError as error:
        raise TaskError(f"tasks new: {path} does not compile: {' '.join(str(error).split())}") from error
    if not model.nu:
        raise TaskError(f"tasks new: {path} has no actuator, so there is nothing to act with; add <actuator> to it")
    stands_alone = not _names_files(text)
    copied = {f"{name}.xml": text} if stands_alone else {}
    shown = f"{name}.xml" if stands_alone else str(path.resolve())
    return copied | {f"{name}.py": STILL} | _of_model(name, shown, model)


def _names_files(text: str) -> bool:
    """Whether a model names files beside it: meshes, textures, height fields, included models."""
    try:
        elements = ElementTree.fromstring(text).iter()
    except ElementTree.ParseError:  # MuJoCo reads some files that are no strict XML: kept where they are
        return True
    # file, filename, and fileright, fileup and so on of a cube's textures
    return any(attribute.startswith("file") for element in elements for attribute in element.attrib)


def _of_model(name: str, file: str, model: Any) -> dict[str, str]:
    options = [f"    model: {file}", f"    reward: {name}:reward", "    horizon: 100"]
    return {f"{name}.yaml": _yaml("MujocoVariation", [*options, "    vary:", *_vary(model)])}


def _vary(model: Any) -> list[str]:
    """Entries of `vary` that have an effect in any robot: mass of the heaviest body, damping where there is some, and
    the strength of all motors, servos and muscles."""
    movable = [i for i in range(1, model.nbody) if model.body_weldid[i]]
    heaviest = max(movable, key=lambda i: float(model.body_mass[i]), default=0)
    entries = []
    if heaviest and model.body_mass[heaviest] > 0:
        body = model.body(heaviest).name or f"body{heaviest}"
        ood = "ood: {log_uniform: [2.0, 3.0]}"
        entries.append(f'      mass: {{field: "body_mass[{body}]", prior: {{log_uniform: [0.5, 2.0]}}, {ood}}}')
    if model.dof_damping.any():
        entries.append('      damping: {field: "dof_damping[*]", prior: {log_uniform: [0.5, 2.0]}}')
    for strength in strengths_of(model):
        quoted = ", ".join(f'"{field}"' for field in strength.fields)
        field = quoted if len(strength.fields) == 1 else f"[{quoted}]"
        columns = "" if strength.columns is None else f"columns: {list(strength.columns)}, "
        entries.append(f"      {strength.name}: {{field: {field}, {columns}prior: {{uniform: [0.7, 1.3]}}}}")
    return entries


def _of_gym(name: str, env_id: str) -> dict[str, str]:
    """Of a registered environment: model fields where it is one of MuJoCo, else attributes that have an effect."""
    if env_id not in gymnasium.registry and ":" not in env_id:  # module:id, of a module that registers it
        hint = did_you_mean(env_id, gymnasium.registry, "; ", "")
        raise TaskError(f"tasks new: {env_id!r} is neither a Gymnasium id nor a file that ends in .xml{hint}")
    try:
        env = gymnasium.make(env_id)
    except Exception as error:
        raise TaskError(f"tasks new: gymnasium.make({env_id!r}) raised {describe(error)}") from error
    inner: Any = env.unwrapped
    head = [f"    env: {env_id}", "    horizon: 100"]
    simulator = simulator_of(env)
    if simulator is not None:
        lines = ["    vary:", *_vary(simulator[0])]
        kind = "MujocoVariation"
    else:
        found = _attributes(env_id, inner)
        lines = ["    parameters:", *found] if found else []
        kind = "GymVariation"
    env.close()
    lines += ["    effects:", "      action_delay: {prior: {choice: [0, 1, 2]}}"]
    return {f"{name}.yaml": _yaml(kind, [*head, *lines])}


def _attributes(env_id: str, inner: Any) -> list[str]:
    """Entries of `parameters`: positive float attributes whose change is observed within some steps."""
    entries: list[str] = []
    for attribute, value in sorted(vars(inner).items()):
        is_number = isinstance(value, float) and np.isfinite(value) and value > 0 and not attribute.startswith("_")
        if not is_number or len(entries) == _MOST_PARAMETERS:
            continue
        prior = {"uniform": [float(f"{factor * value:.4g}") for factor in (0.7, 1.3)]}
        family = GymVariation(env_id, {attribute: {"attribute": attribute, "prior": prior}}, horizon=25)
        traces = []
        for factor in (1.0, 1.3):
            batch = family.make_batch([family.task(**{attribute: factor * value * 0.999})])
            traces.append(rollout(batch, seed=SEED))
            batch.close()
        if effects_between(*traces):
            low, high = prior["uniform"]
            entries.append(f"      {attribute}: {{attribute: {attribute}, prior: {{uniform: [{low:g}, {high:g}]}}}}")
    return entries


def _yaml(kind: str, lines: list[str]) -> str:
    return YAML.replace("KIND", kind).replace("OPTIONS", "\n".join(lines))
