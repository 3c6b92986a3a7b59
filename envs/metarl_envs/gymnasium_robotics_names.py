"""Names, sizes and mazes of Gymnasium-Robotics 1.4, so that a learner without it knows what its workers simulate.

With the package installed, a test holds every line to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Family = Literal["fetch", "hand_reach", "hand_manipulate", "maze"]


@dataclass(frozen=True)
class Kind:
    """An environment: what family of goals it has, the numbers of its observation, goal and action (those
    that do something), its own horizon."""

    family: Family
    observation: int
    goal: int
    action: int
    horizon: int
    maze: str = ""  # a key of MAZES


MAZES = {  # 1: a wall; g, c and, where there is neither, 0: cells that goals lie in
    "UMaze": ("11111", "10001", "11101", "10001", "11111"),
    "Open": ("1111111", "1000001", "1000001", "1000001", "1111111"),
    "Open_Diverse_G": ("1111111", "1rgggg1", "1ggggg1", "1ggggg1", "1111111"),
    "Open_Diverse_GR": ("1111111", "1ccccc1", "1ccccc1", "1ccccc1", "1111111"),
    "Medium": ("11111111", "10011001", "10010001", "11000111", "10010001", "10100101", "10001001", "11111111"),
    "Medium_Diverse_G": (
        "11111111",
        "1r011001",
        "100100g1",
        "11000111",
        "10010001",
        "1g100101",
        "10001g01",
        "11111111",
    ),
    "Medium_Diverse_GR": (
        "11111111",
        "1c011001",
        "100100c1",
        "11000111",
        "10010001",
        "1c100101",
        "10001c01",
        "11111111",
    ),
    "Large": (
        "111111111111",
        "100001000001",
        "101101010101",
        "100000010001",
        "101111011101",
        "100101000001",
        "110101010111",
        "100100010001",
        "111111111111",
    ),
    "Large_Diverse_G": (
        "111111111111",
        "1r0001g00001",
        "101101010101",
        "10000g0100g1",
        "101111011101",
        "10g101000001",
        "110101010111",
        "1001g0g10g01",
        "111111111111",
    ),
    "Large_Diverse_GR": (
        "111111111111",
        "1c0001c00001",
        "101101010101",
        "10000c0100c1",
        "101111011101",
        "10c101000001",
        "110101010111",
        "1001c0c10c01",
        "111111111111",
    ),
}


def goal_cells(maze: str) -> list[tuple[int, int]]:
    """The cells (row, column) of a maze in which goals lie."""
    rows = MAZES[maze]
    marked = "gc" if any(mark in row for row in rows for mark in "gc") else "0"
    return [(i, j) for i, row in enumerate(rows) for j, mark in enumerate(row) if mark in marked]


def _fetch() -> dict[str, Kind]:
    sizes = {"Reach": (10, 3), "Push": (25, 3), "Slide": (25, 3), "PickAndPlace": (25, 4)}
    return {f"Fetch{name}-v4": Kind("fetch", seen, 3, action, 50) for name, (seen, action) in sizes.items()}


def _hands() -> dict[str, Kind]:
    blocks = ("BlockRotateZ", "BlockRotateParallel", "BlockRotateXYZ", "BlockFull", "Block")
    objects = (*blocks, "EggRotate", "EggFull", "Egg", "PenRotate", "PenFull", "Pen")
    found = {"HandReach-v3": Kind("hand_reach", 63, 15, 20, 50)}
    for name in objects:
        found[f"HandManipulate{name}-v1"] = Kind("hand_manipulate", 61, 7, 20, 100)
        for touch in () if name.endswith("Full") else ("BooleanTouchSensors", "ContinuousTouchSensors"):
            found[f"HandManipulate{name}_{touch}-v1"] = Kind("hand_manipulate", 153, 7, 20, 100)
    return found


def _mazes() -> dict[str, Kind]:
    found = {}
    for maze in MAZES:
        steps = {"Medium": 600, "Large": 800}.get(maze.split("_")[0], 300)
        found[f"PointMaze_{maze}-v3"] = Kind("maze", 4, 2, 2, steps, maze)
    for maze in MAZES:
        steps = 1000 if maze.startswith(("Medium", "Large")) else 700
        found[f"AntMaze_{maze}-v5"] = Kind("maze", 105, 2, 8, steps, maze)
    return found


ENVIRONMENTS: dict[str, Kind] = {**_fetch(), **_hands(), **_mazes()}
