"""Batches whose environments can be pictured, of any task distribution."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import gymnasium

from metarl.tasks.batch import EnvBatch, TaskBatch
from metarl.tasks.distribution import TaskDistribution
from metarl.tasks.revealed import RevealedBatch, RevealedTask
from metarl.tasks.task import Task

RGB = "rgb_array"


def rendering_batch(distribution: TaskDistribution, tasks: Sequence[Task]) -> TaskBatch:
    """`distribution.make_batch(tasks)` whose `render_frame` gives pictures wherever that is possible.

    Environments are the same, so trials are too. A distribution with its own `make_batch` draws its own pictures.
    """
    if isinstance(distribution, RevealedTask):
        return RevealedBatch(rendering_batch(distribution.inner, tasks), distribution)
    if type(distribution).make_batch is TaskDistribution.make_batch:
        return EnvBatch(lambda task: make_rendering(distribution, task), tasks)
    return distribution.make_batch(tasks)


def make_rendering(distribution: TaskDistribution, task: Task) -> gymnasium.Env:
    """An environment of the task that renders as `rgb_array` where it can.

    `make` is given `render_mode` where it takes it. Otherwise an environment whose metadata lists the mode is told
    afterwards, which serves those of Gymnasium.
    """
    parameters = inspect.signature(distribution.make).parameters
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    if "render_mode" in parameters or takes_any:
        return distribution.make(task, render_mode=RGB)  # type: ignore[call-arg]
    env = distribution.make(task)
    if isinstance(env, gymnasium.Env):  # anything else is refused by the batch
        inner = env.unwrapped
        if inner.render_mode is None and RGB in inner.metadata.get("render_modes", ()):
            inner.render_mode = RGB
    return env
