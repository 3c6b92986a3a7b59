"""A picture of sampled variants side by side, each as it stands after a reset and a few steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from metarl.errors import EnvironmentFault, MetarlError, TaskError
from metarl.rollout.worker import GuardedBatch, environment_faults
from metarl.tasks import Task, TaskDistribution
from metarl.tasks.rendering import rendering_batch

NUM_VARIANTS = 12
_COLUMNS, _STEPS, _LONGEST_TITLE = 4, 5, 34


def contact_sheet(distribution: TaskDistribution, path: Path, seed: int = 0) -> tuple[Task, ...]:
    """Write a picture of variants of the training range into `path`, and of the out-of-distribution range where there
    is one; their tasks in order.

    TaskError where the environments render no picture, EnvironmentFault where rendering fails.
    """
    from matplotlib.figure import Figure

    num_ood = NUM_VARIANTS // 3 if distribution.has_ood else 0
    tasks = distribution.sample("train", NUM_VARIANTS - num_ood, seed)
    if num_ood:
        tasks += distribution.sample("ood", num_ood, seed)
    frames = _frames(distribution, tasks, seed)
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


def _frames(distribution: TaskDistribution, tasks: Sequence[Task], seed: int) -> list[np.ndarray]:
    """An RGB picture of each task's environment."""
    with environment_faults(tasks, "building the environment"):
        batch = rendering_batch(distribution, tasks)
    guarded = GuardedBatch(batch)
    try:
        guarded.reset(seed=seed)
        batch.action_space.seed(seed)
        for _ in range(_STEPS):
            guarded.step(batch.action_space.sample())
        frames = [_frame(guarded, i) for i in range(len(tasks))]
    finally:
        batch.close()
    shown = [frame for frame in frames if frame is not None]
    if len(shown) < len(tasks):
        raise TaskError(f"{distribution.name}: its environments render no picture (render_mode 'rgb_array')")
    return shown


def _frame(batch: GuardedBatch, index: int) -> np.ndarray | None:
    try:
        return batch.render_frame(index)
    except EnvironmentFault as error:
        raise EnvironmentFault(f"{error} (for MuJoCo without a display set MUJOCO_GL to egl or osmesa)") from error


def _title(split: str, task: Task) -> str:
    """The values of a task, broken into lines."""
    lines: Sequence[str] = [""]
    inside = str(task).partition("(")[2].removesuffix(")")
    for part in (split + inside).split(", "):
        fits = len(lines[-1]) + len(part) < _LONGEST_TITLE
        lines = [*lines[:-1], f"{lines[-1]}, {part}".lstrip(", ")] if fits else [*lines, part]
    return "\n".join(line for line in lines if line)
