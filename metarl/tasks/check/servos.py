"""The check of robots with servos: what it means to vary these is not what it means for motors."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from metarl.tasks.check.remarks import Remark
from metarl.tasks.check.rollouts import some_tasks
from metarl.tasks.distribution import TaskDistribution

_FAR = 5.0  # times the joint's range; degrees for radians are 57 times
_MANY_TURNS = 10 * math.pi  # of a hinge without a range


def check_servos(distribution: TaskDistribution) -> list[Remark]:
    """Effects and changes of a servo that do something else than their names say."""
    robot = _Robot.of(distribution)
    if robot is None or not robot.servos:
        return []
    return [*_dead_motors(robot), *_strengths(robot), *_gears(robot), *_ranges(robot)]


@dataclass(frozen=True)
class _Robot:
    """A family of a MuJoCo robot. acts_on_controls: whether dimension i of an action is the control of actuator i."""

    family: Any
    model: Any
    acts_on_controls: bool
    servos: dict[int, str]  # the names of those actuators
    module: Any  # metarl.tasks.variation.servos

    @staticmethod
    def of(family: Any) -> _Robot | None:
        """None where no robot of MuJoCo's is varied."""
        names = ("mujoco", "variation.single", "variation.servos")  # imported by the family itself where it varies one
        mujoco, single, servos = (sys.modules.get(f"metarl.tasks.{name}") for name in names)
        if mujoco is None or single is None or servos is None:
            return None
        if isinstance(family, mujoco.MujocoTaskDistribution):
            model, acts = family.model(), getattr(family, "acts_on_controls", True)
        elif getattr(family, "body", None) is not None:
            env = family.make(some_tasks(family)[0])
            simulator = single.simulator_of(env)
            env.close()
            if simulator is None:
                return None
            model, acts = simulator[0], servos.acts_on_controls(env.action_space, simulator[0])
        else:
            return None
        is_servo = servos.servos_of(model)
        found = {i: model.actuator(i).name or f"actuator{i}" for i in range(model.nu) if is_servo[i]}
        return _Robot(family, model, acts, found, servos)

    def force_of(self, rows: list[int]) -> str:
        """The fields that scale the force of these servos, as YAML writes them."""
        fields = self.module.strengths_of(self.model, rows)[0].fields
        return f"[{', '.join(map(_quoted, fields))}]"

    def effects(self, kind: str) -> list[Any]:
        """The family's effects of this kind."""
        declared = getattr(getattr(self.family, "body", None), "declared", ())
        return [effect for effect in declared if effect.kind == kind]


def _quoted(text: str) -> str:
    return f'"{text}"'


def _dead_motors(robot: _Robot) -> list[Remark]:
    by_gear = [change.name for change in getattr(robot.family, "changes", ())]
    return [
        Remark(
            f"effects.{effect.name}: a servo ({', '.join(robot.servos.values())}) at rest is not without torque: it "
            "drives to 0 with all its force. For a joint without torque write under vary of a MujocoVariation: "
            f'{effect.name}: {{field: "actuator_gear[*]", mode: zero, prior: ...}}',
            True,
        )
        for effect in robot.effects("dead_motor")
        if effect.name not in by_gear
    ]


def _strengths(robot: _Robot) -> Iterator[Remark]:
    for effect in robot.effects("motor_strength") if robot.acts_on_controls else ():
        chosen = effect.entry.dimensions
        servos = {i: name for i, name in robot.servos.items() if chosen is None or i in chosen}
        if servos:
            yield Remark(
                f"effects.{effect.name}: motor_strength multiplies what a servo ({', '.join(servos.values())}) is "
                "told, the place or the velocity that it drives to, and not its force. For its force write under vary: "
                f"{effect.name}: {{field: {robot.force_of(list(servos))}, prior: ...}}",
                True,
            )


def _gears(robot: _Robot) -> Iterator[Remark]:
    """A gear of 0 is a servo without torque; any other one drives to another angle with another force."""
    for change in getattr(robot.family, "changes", ()):
        varied = {row for address in change.addresses if address.field == "actuator_gear" for row in address.rows}
        servos = {i: name for i, name in robot.servos.items() if i in varied}
        if servos and change.entry.mode != "zero":
            yield Remark(
                f"vary.{change.name}: the gear of a servo ({', '.join(servos.values())}) is the ratio between its "
                "target and the joint: where it is varied, the same action drives elsewhere. For its strength write "
                f"{change.name}: {{field: {robot.force_of(list(servos))}, prior: ...}}, with the gear for motors alone",
                True,
            )


def _ranges(robot: _Robot) -> Iterator[Remark]:
    """Targets far outside of what a joint can do: degrees for radians, millimetres for metres."""
    model = robot.model
    for i, (low, high) in robot.module.targets_of(model).items() if robot.acts_on_controls else ():
        joint = model.actuator_trnid[i, 0]
        is_hinge, (first, last) = robot.module.is_hinge(model, joint), model.jnt_range[joint]
        unit, name = "rad" if is_hinge else "m", model.joint(joint).name or f"joint{joint}"
        if model.jnt_limited[joint] and high - low > _FAR * (last - first):
            reach = f"and its range is {first:.3g} to {last:.3g} {unit}"
        elif is_hinge and not model.jnt_limited[joint] and max(-low, high) > _MANY_TURNS:
            reach = f"{max(-low, high) / (2 * math.pi):.0f} turns"
        else:
            continue
        hint = "ctrlrange is in radians also where a joint's range is in degrees" if is_hinge else "metres are meant"
        yield Remark(
            f"the ctrlrange of {robot.servos[i]} drives joint {name} to {low:.4g} to {high:.4g} {unit}, {reach}: "
            f'{hint}; inheritrange="1" instead of ctrlrange takes the joint\'s range',
            True,
        )
