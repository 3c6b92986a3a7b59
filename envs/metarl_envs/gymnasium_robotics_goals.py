"""The goals of Gymnasium-Robotics' environments as parameters of tasks, over the ranges that it draws them from.

    Fetch            x, y, z        metres from the gripper's start; z of an object from where it lies on the table
    HandReach        finger         which finger is to meet the thumb (0 to 3: forefinger to little finger)
                     x, y, z        metres of the meeting point from its mean
    HandManipulate   angle          radians about `axis`; about z where the environment turns about z alone
                     face           which of the 24 axis-parallel orientations follows the turn about z (Parallel)
                     x, y, z        metres from the object's place in the model, where the place counts
    mazes            cell, offset   row and column, and where in the cell, in cells from its middle

What differs from Gymnasium-Robotics: HandReach's meeting point has a uniform prior of two of its standard deviations,
and a goal is never the hand's rest. Where it puts an object's goal relative to where the object came to lie, the
task's goal is relative to the model's place, so that it is one goal at every reset.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from metarl.tasks import Choice, Mixture, Parameter, Task, Uniform
from metarl_envs.gymnasium_robotics_names import Kind, goal_cells

_FACES = 24
_OBJECT_RANGE = {"x": (-0.04, 0.04), "y": (-0.06, 0.02), "z": (0.0, 0.06)}
_FINGERTIPS = ("ff", "mf", "rf", "lf", "th")


def goal_parameters(env: str, kind: Kind) -> tuple[Parameter, ...]:
    """The parameters that a goal of `env` has."""
    if kind.family == "fetch":
        return _fetch_parameters(env)
    if kind.family == "hand_reach":
        near = Uniform(-0.01, 0.01)
        return (Parameter("finger", Choice(range(4))), *(Parameter(name, near, "m") for name in "xyz"))
    if kind.family == "maze":
        offset = Uniform(-0.25, 0.25, size=2)
        return Parameter("cell", Choice(goal_cells(kind.maze))), Parameter("offset", offset, "cells")
    angle = Parameter("angle", Uniform(-np.pi, np.pi), "rad")
    if "RotateZ" in env:
        return (angle,)
    if "RotateParallel" in env:
        return angle, Parameter("face", Choice(range(_FACES)))
    turn = (angle, Parameter("axis", Uniform(-1.0, 1.0, size=3)))
    places = tuple(Parameter(name, Uniform(*ends), "m") for name, ends in _OBJECT_RANGE.items())
    return turn if "Rotate" in env else (*turn, *places)


def _fetch_parameters(env: str) -> tuple[Parameter, ...]:
    reach = 0.3 if "Slide" in env else 0.15
    sides = tuple(Parameter(name, Uniform(-reach, reach), "m") for name in "xy")
    if "Reach" in env:
        return (*sides, Parameter("z", Uniform(-reach, reach), "m"))
    if "PickAndPlace" not in env:
        return sides
    air = Uniform(0.0, 0.45)
    # The air twice: parts are drawn by measure (1 for the table), and half of the goals are to lie on the table.
    return (*sides, Parameter("z", Mixture(Choice([0.0]), air, air), "m"))


def goal_of(task: Task, inner: Any, kind: Kind) -> np.ndarray:
    """The goal of `task` as `inner`, the bare environment, understands it."""
    return _GOALS[kind.family](task.values, inner)


def _fetch_goal(values: Mapping[str, Any], inner: Any) -> np.ndarray:
    start, by = inner.initial_gripper_xpos[:3], np.array([values.get(name, 0.0) for name in "xyz"])
    if not inner.has_object:
        return np.asarray(start + by)
    goal = start + inner.target_offset + by
    goal[2] = inner.height_offset + by[2]
    return np.asarray(goal)


def _hand_reach_goal(values: Mapping[str, Any], inner: Any) -> np.ndarray:
    """Thumb and finger 5 mm before the meeting point, each on its way there; the others where they are."""
    meeting = inner.palm_xpos + np.array([0.0, -0.09, 0.05]) + [values[name] for name in "xyz"]
    goal = inner.initial_goal.copy().reshape(-1, 3)
    for index in (_FINGERTIPS.index("th"), int(values["finger"])):
        way = meeting - goal[index]
        goal[index] = meeting - 0.005 * way / np.linalg.norm(way)
    return np.asarray(goal.ravel())


def _hand_manipulate_goal(values: Mapping[str, Any], inner: Any) -> np.ndarray:
    from gymnasium_robotics.utils import rotations

    axis = np.array(values["axis"]) if "axis" in values else np.array([0.0, 0.0, 1.0])
    half = values["angle"] / 2
    turn = np.array([np.cos(half), *(np.sin(half) * axis / np.linalg.norm(axis))])
    if "face" in values:
        turn = rotations.quat_mul(turn, inner.parallel_quats[int(values["face"])])
    first = int(inner.model.joint("object:joint").qposadr[0])
    place = inner.initial_qpos[first : first + 3] + [values.get(name, 0.0) for name in "xyz"]
    return np.concatenate([place, turn / np.linalg.norm(turn)])


def _maze_goal(values: Mapping[str, Any], inner: Any) -> np.ndarray:
    cell = np.array(values["cell"]).astype(int)
    return np.asarray(inner.maze.cell_rowcol_to_xy(cell) + np.array(values["offset"]) * inner.maze.maze_size_scaling)


_GOALS: dict[str, Callable[[Mapping[str, Any], Any], np.ndarray]] = {
    "fetch": _fetch_goal,
    "hand_reach": _hand_reach_goal,
    "hand_manipulate": _hand_manipulate_goal,
    "maze": _maze_goal,
}
