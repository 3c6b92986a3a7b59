"""Values that change in mid-episode: at a step that is part of the task, or again and again at random.

at_step     neutral ... neutral | value ... value          the step is the task's parameter NAME.at_step
redraw: p   value ... value | new value ... | ...          each step with probability p, from the prior
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from metarl.tasks.changes import AT_STEP
from metarl.tasks.distribution import Parameter
from metarl.tasks.task import ComparedTask, Task
from metarl.tasks.variation.description import Entry
from metarl.tasks.variation.randomness import RowNoise


@dataclass(frozen=True)
class Scheduled:
    """A parameter whose value changes. neutral: the value before `NAME.at_step`, which leaves the robot unvaried.

    redraw: the probability per step of a new value; 0 where it changes at a step.
    """

    parameter: Parameter
    neutral: float
    redraw: float = 0.0

    @property
    def name(self) -> str:
        return self.parameter.name


def scheduled_of(entry: Entry, parameter: Parameter, neutral: float) -> tuple[Scheduled, ...]:
    """The schedule of an entry: none where its value holds throughout."""
    if entry.at_step is None and entry.redraw is None:
        return ()
    return (Scheduled(parameter, neutral, entry.redraw or 0.0),)


class Schedule:
    """`values`: those of all parameters at the current step of n episodes, [n] or [n, size] each.

    Steps count the actions of an episode from 0: a value with at_step = 50 holds for the 51st action and after.
    """

    def __init__(self, scheduled: Sequence[Scheduled]):
        self._steps = [s for s in scheduled if not s.redraw]
        self._redraws = [s for s in scheduled if s.redraw]
        self.values: dict[str, np.ndarray] = {}

    @property
    def num_uniform(self) -> int:
        """Uniform random numbers that it needs per step."""
        return len(self._redraws)

    @property
    def changes(self) -> bool:
        return bool(self._steps or self._redraws)

    def set_tasks(self, tasks: Sequence[Task], params: Mapping[str, np.ndarray]) -> None:
        """The tasks' values; all scheduled ones as they are before the first step."""
        self._tasks, self._final = tuple(tasks), dict(params)
        names = [s.name for s in (*self._steps, *self._redraws)]
        self.values = {name: value.copy() if name in names else value for name, value in params.items()}
        self.reset(np.arange(len(tasks)))

    def reset(self, rows: np.ndarray) -> None:
        """The values at the first step of new episodes."""
        for s in self._steps:
            has_begun = self._final[s.name + AT_STEP][rows] <= 0
            self._put(s, rows, has_begun)
        for s in self._redraws:
            self.values[s.name][rows] = self._final[s.name][rows]

    def advance(self, rows: np.ndarray, steps: np.ndarray, noise: RowNoise, column: int) -> bool:
        """The values for the action of `steps` [m] of the rows; whether any changed. `column`: of its first uniform."""
        changed = False
        for s in self._steps:
            begins = self._final[s.name + AT_STEP][rows]
            now = (begins <= steps) & (begins > steps - 1) & (steps > 0)
            if now.any():
                self._put(s, rows[now], np.ones(int(now.sum()), bool))
                changed = True
        for i, s in enumerate(self._redraws):
            now = (noise.uniform[rows, column + i] < s.redraw) & (steps > 0)
            for row in rows[now].tolist():
                self.values[s.name][row] = self._drawn(s, row, noise)
                changed = True
        return changed

    def _put(self, s: Scheduled, rows: np.ndarray, has_begun: np.ndarray) -> None:
        final = self._final[s.name][rows]
        mask = has_begun.reshape(-1, *(1,) * (final.ndim - 1))
        self.values[s.name][rows] = np.where(mask, final, s.neutral)

    def _drawn(self, s: Scheduled, row: int, noise: RowNoise) -> np.ndarray:
        """A new value, from the range that the task's own came from; its own where this parameter is compared."""
        parameter, task = s.parameter, self._tasks[row]
        value = task[s.name]
        if isinstance(task, ComparedTask) and task.varied == s.name:
            return np.asarray(value)
        priors = [p for p in (parameter.prior, parameter.test, parameter.ood) if p is not None and p.contains(value)]
        return np.asarray((priors or [parameter.prior])[0].sample(noise.redraws(row)))
