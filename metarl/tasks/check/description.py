"""Checks of what a distribution states, and of the tasks that it draws. No environment is built."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import numpy as np

from metarl.tasks.check.remarks import Remark, require
from metarl.tasks.check.rollouts import NUM_TASKS, SEED, splits_of
from metarl.tasks.distribution import TaskDistribution, require_description
from metarl.tasks.task import Split, Task


def check_description(distribution: TaskDistribution) -> list[Remark]:
    """Name, version, horizon, parameter names and anchors are what they should be."""
    require_description(distribution)
    name, anchors = distribution.name, distribution.anchors
    figures = [f for f in (anchors.nothing, anchors.task_blind, anchors.expert) if f is not None]
    require(all(np.isfinite(f) for f in figures), f"{name}: anchors must be finite, got {anchors}")
    require(not figures or bool(anchors.source), f"{name}: anchors need a source")
    if distribution.num_tasks == 1:
        return [Remark("a family of one task: a policy can be trained on it, but there is nothing to adapt to", True)]
    return []


def check_pickling(distribution: TaskDistribution) -> None:
    """A distribution that went through pickle draws the same tasks, and its tasks are equal."""
    copy = pickle.loads(pickle.dumps(distribution))
    tasks = distribution.sample("train", NUM_TASKS, SEED)
    require(copy.sample("train", NUM_TASKS, SEED) == tasks, "a pickled copy draws other tasks from the same seed")
    require(pickle.loads(pickle.dumps(tasks)) == tasks, "a pickled task differs from itself")


def check_sampling(distribution: TaskDistribution) -> None:
    """Tasks are a function of (split, seed), a short draw begins a long one, and each belongs to its split."""
    for split in splits_of(distribution):
        tasks = distribution.sample(split, 8, SEED)
        require(distribution.sample(split, 8, SEED) == tasks, f"{split}: the same seed drew other tasks")
        require(distribution.sample(split, 3, SEED) == tasks[:3], f"{split}: a short draw is no prefix of a long one")
        if distribution.num_tasks is None:
            require(distribution.sample(split, 8, SEED + 1) != tasks, f"{split}: another seed drew the same tasks")
        for task in tasks:
            require(split in distribution.split_of(task), f"{task} was drawn for {split}, but does not belong to it")
            require(distribution.task(**task.values) == task, f"{task}: `task` does not give it back")


def check_disjoint_splits(distribution: TaskDistribution) -> None:
    """No task belongs to two splits, unless the family says that they coincide."""
    drawn: dict[Split, set[Task]] = {s: set(distribution.sample(s, 32, SEED)) for s in splits_of(distribution)}
    allowed: set[Split] = {"train", "validation"} if distribution.validation_coincides else set()
    allowed |= {"train", "test"} if distribution.splits_coincide else set()
    for first in drawn:
        for second in drawn:
            if first != second and not {first, second} <= allowed:
                common = drawn[first] & drawn[second]
                require(not common, f"{first} and {second} share {next(iter(common), None)}")


def check_ood_outside_training_range(distribution: TaskDistribution) -> None:
    """Every out-of-distribution task has a parameter outside its training prior."""
    if not distribution.has_ood:
        return
    for task in distribution.sample("ood", 32, SEED):
        inside = [p.prior.contains(task[p.name]) for p in distribution.parameters]
        require(not all(inside), f"{task} was drawn as ood but lies inside the training range")


DESCRIPTION_CHECKS: tuple[Callable[[TaskDistribution], list[Remark] | None], ...] = (
    check_description,
    check_pickling,
    check_sampling,
    check_disjoint_splits,
    check_ood_outside_training_range,
)
