"""A picture of sampled variants side by side, each as it stands after a reset and a few steps."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metarl.errors import EnvironmentFault, MetarlError, TaskError
from metarl.plugins import describe
from metarl.tasks import Task, TaskDistribution

NUM_VARIANTS = 12
_COLUMNS, _STEPS, _LONGEST_TITLE = 4, 5, 34


def contact_sheet(distribution: TaskDistribution, path: Path, seed: int = 0) -> tuple[Task, ...]:
    """Write a picture of variants of the training range into `path`, and of the out-of-distribution range where there
    is one; their tasks in order.

    TaskError where the distribution's `make` cannot render, EnvironmentFault where rendering fails.
    """
    from matplotlib.figure import Figure

    if "render_mode" not in inspect.signature(distribution.make).parameters:
        raise TaskError(f"{distribution.name}: no picture: its `make` has no parameter render_mode")
    num_ood = NUM_VARIANTS // 3 if distribution.has_ood else 0
    tasks = distribution.sample("train", NUM_VARIANTS - num_ood, seed)
    if num_ood:
        tasks += distribution.sample("ood", num_ood, seed)
    frames = [_frame(distribution, task, seed) for task in tasks]
    rows = -(-len(tasks) // _COLUMNS)
    figure = Figure(figsize=(3.2 * _COLUMNS, 3.0 * rows), layout="constrained")
    axes = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    for i, (axis, task, frame) in enumerate(zip(axes, tasks, frames, strict=False)):
        axis.imshow(frame)
        split = "ood: " if i >= len(tasks) - num_ood else ""
        axis.set_title(_title(split, task), fontsize=7)
    for axis in axes:
        axis.set_axis_off()
    figure.suptitle(f"{distribution.name}: sampled variants, {_STEPS} random steps after a reset", fontsize=10)
    try:
        figure.savefig(path, dpi=100)
    except (OSError, ValueError) as error:
        raise MetarlError(f"cannot write the picture {path}: {error}") from error
    return tasks


def _frame(distribution: TaskDistribution, task: Task, seed: int) -> np.ndarray:
    """An RGB picture of the task's environment."""
    make: Any = distribution.make
    env = make(task, render_mode="rgb_array")
    try:
        env.reset(seed=seed)
        env.action_space.seed(seed)
        for _ in range(_STEPS):
            if any(env.step(env.action_space.sample())[2:4]):
                break
        frame = env.render()
    except EnvironmentFault:
        raise
    except Exception as error:
        hint = "for MuJoCo without a display set MUJOCO_GL to egl or osmesa"
        raise EnvironmentFault(f"cannot render {task}: {describe(error)} ({hint})") from error
    finally:
        env.close()
    if not isinstance(frame, np.ndarray) or frame.ndim != 3:
        raise TaskError(f"{task}: render gave {type(frame).__name__}, wanted is an RGB array [height, width, 3]")
    return frame


def _title(split: str, task: Task) -> str:
    """The values of a task, broken into lines."""
    lines: Sequence[str] = [""]
    inside = str(task).partition("(")[2].removesuffix(")")
    for part in (split + inside).split(", "):
        fits = len(lines[-1]) + len(part) < _LONGEST_TITLE
        lines = [*lines[:-1], f"{lines[-1]}, {part}".lstrip(", ")] if fits else [*lines, part]
    return "\n".join(line for line in lines if line)
