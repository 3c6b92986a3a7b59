"""Numbers per trial as numbers per task: means in which each distinct task weighs the same, and their intervals.

Shape letters: R rounds, K drawn tasks, N streams, D distinct tasks (D < K where a finite family repeats its tasks).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from metarl.evaluation.statistics import (
    Interval,
    Statistic,
    bootstrap_ci95,
    hierarchical_ci95,
    mean,
    stratified_ci95,
)
from metarl.tasks import Task

FEW_TASKS = 8  # up to here intervals resample within tasks too, and reports show every task


@dataclass(frozen=True)
class Estimate:
    """A mean over tasks, and its 95 % interval."""

    mean: float
    ci95: Interval

    @staticmethod
    def from_json(content: dict[str, Any] | None) -> Estimate | None:
        """The inverse of `dataclasses.asdict` after JSON; None gives None."""
        return None if content is None else Estimate(content["mean"], tuple(content["ci95"]))

    @property
    def is_above_zero(self) -> bool:
        """Whether the whole interval is."""
        return self.ci95[0] > 0

    @property
    def is_below_zero(self) -> bool:
        """Whether the whole interval is."""
        return self.ci95[1] < 0


class ByTask:
    """Groups the trials on `tasks` [K] by their distinct tasks. `is_whole`: no other task could have been drawn."""

    def __init__(self, tasks: Sequence[Task], is_whole: bool, seed: int):
        self.distinct = sorted(set(tasks), key=lambda task: tuple(task.vector()))
        self.rows = [[k for k, task in enumerate(tasks) if task == one] for one in self.distinct]
        self._is_whole, self._seed = is_whole, seed

    def means(self, values: Shaped[np.ndarray, "R K N"]) -> Float[np.ndarray, "R D"]:
        """The mean over the trials and streams of each distinct task."""
        return np.stack([values[:, row].mean(axis=(1, 2)) for row in self.rows], axis=1)

    def repeats(self, values: Shaped[np.ndarray, "R K N"]) -> list[Float[np.ndarray, "R _"]]:
        """The independent scores of each distinct task: its trials' means, or of a single trial its episodes.

        Episodes of one trial share its adaptation, so trials are the repeats wherever there is more than one.
        """
        return [values[:, row].mean(axis=2) if len(row) > 1 else values[:, row[0]] for row in self.rows]

    def interval(self, values: Float[np.ndarray, " D"], repeats: Sequence[np.ndarray]) -> Interval:
        """The 95 % interval of the mean of one score per task."""
        return tasks_ci95(values, repeats, mean, self._is_whole, self._seed)

    def estimate(self, values: Shaped[np.ndarray, "K N"]) -> Estimate:
        """Mean over tasks and interval of one number per episode or trial."""
        (means,) = self.means(values[None].astype(np.float64))
        repeats = [scores[0] for scores in self.repeats(values[None].astype(np.float64))]
        return Estimate(float(mean(means)), self.interval(means, repeats))


def tasks_ci95(
    values: Float[np.ndarray, "D ..."],
    repeats: Sequence[Float[np.ndarray, "_ ..."]],
    statistic: Statistic,
    is_whole: bool,
    seed: int,
) -> Interval:
    """The 95 % interval of a statistic of one score per task, by the method that the number of tasks asks for.

    `repeats`: of each task the independent scores behind its value. `is_whole`: no other task could have been drawn.
    """
    if is_whole:
        return stratified_ci95(repeats, statistic, seed)
    if len(values) <= FEW_TASKS:
        return hierarchical_ci95(repeats, statistic, seed)
    return bootstrap_ci95(values, statistic, seed)
