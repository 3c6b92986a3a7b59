"""What a reader must know to read an evaluation's numbers right, in plain sentences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from metarl.evaluation.by_task import FEW_TASKS
from metarl.evaluation.statistics import Interval
from metarl.rollout.types import TrialPlan
from metarl.tasks import Split, TaskDistribution

ORACLE = "The policy is told the task: an oracle, not adaptation."
_NO_WIDTH = 1e-9  # of an interval, relative to its bounds: rounding


def is_whole_family(distribution: TaskDistribution, split: Split, num_distinct: int) -> bool:
    """Whether the tasks at hand are all the tasks there are."""
    return split != "ood" and distribution.splits_coincide and num_distinct == distribution.num_tasks


def width_notes(intervals: Sequence[Interval], repeats: Sequence[np.ndarray]) -> tuple[str, ...]:
    """Why an interval has no width, where one has none."""
    if not any(high - low <= _NO_WIDTH * max(abs(low), abs(high)) for low, high in intervals):
        return ()
    if max(scores.shape[1] for scores in repeats) == 1:
        each = "One episode per round" if len(repeats) == 1 else "One trial per task"
        return (f"{each}: intervals have no width where the spread is unknown.",)
    return ("Where an interval has no width all scores that it resamples are equal.",)


def notes_of(
    distribution: TaskDistribution,
    plan: TrialPlan,
    split: Split,
    num_distinct: int,
    num_drawn: int,
    was_trained_on: bool,
    is_chosen: bool,
) -> tuple[str, ...]:
    """Of an evaluation of `num_distinct` tasks, drawn `num_drawn` times in all."""
    notes = []
    if distribution.reveals_task:
        notes.append(ORACLE)
    if distribution.splits_coincide and split != "ood":
        count = "two" if distribution.num_tasks == 2 else str(distribution.num_tasks)
        which = "Train, validation and test" if split == "validation" else "Train and test"
        notes.append(
            f"{which} tasks coincide: {count}-task family, shows adaptation but no generalisation to new tasks."
        )
    elif distribution.validation_coincides and split == "validation":
        notes.append("Train and validation tasks coincide: the training range is finite.")
    elif is_chosen:
        notes.append("The tasks were chosen, not drawn: they may be among those that the run trained on.")
    elif was_trained_on:
        notes.append("Evaluated on tasks that the run trained on: shows no generalisation to new tasks.")
    elif split == "train":
        notes.append("Tasks drawn anew from the training split: not those that a run trained on.")
    if num_distinct < num_drawn:
        notes.append(f"{num_drawn} trials on {num_distinct} distinct tasks: each distinct task weighs the same.")
    if is_whole_family(distribution, split, num_distinct):
        notes.append("All tasks of the family are here: intervals resample the trials or episodes of each.")
    elif num_distinct == 1:
        notes.append("One task: the intervals hold the noise of its episodes alone and say nothing of other tasks.")
    elif num_distinct <= FEW_TASKS:
        notes.append("Few tasks: intervals resample the tasks and, within each, its trials or episodes.")
    anchors = distribution.anchors
    if any(value is not None for value in (anchors.nothing, anchors.task_blind, anchors.expert)):
        if split == "ood":
            notes.append("The reference returns belong to the training range: no normalised score outside it.")
        if plan.horizon != distribution.horizon:
            notes.append(
                f"Episodes end after {plan.horizon} steps but the reference returns are for {distribution.horizon}: "
                "no normalised score."
            )
    if len(plan.rounds) == 1:
        notes.append("One round: there is no adaptation between rounds to measure.")
    elif not plan.ends_alike:
        how = {True: "mean", False: "sampled"}
        first, last = (how[plan.rounds[i].deterministic] for i in (0, -1))
        notes.append(f"The first round takes {first} actions, the last {last} ones: their difference is no gain.")
    return tuple(notes)
