"""The oracle baseline: any task distribution with the task's parameters appended to every observation.

    observation [O]  ->  [O + P]:  the inner observation, then each parameter's values, scaled

Its return is what knowing the task from the start allows: adaptation is judged against it. Scaling is by the training
prior, so that training tasks fill about [-1, 1]; out-of-distribution tasks may lie outside:

    Uniform, Simplex     low to -1, high to 1
    LogUniform           the same, in logarithms
    InDisc, OnSphere     divided by the outer radius
    Choice               its smallest value to -1, its largest to 1, one column per component (not one-hot: a column
                         per parameter value whatever the prior); 0 where there is one value alone
    Mixture              from the lowest end of its parts to the highest, the gap included
    any other            its finite options as for Choice, else the range of 1000 draws

Angles are values like any other: 0 and 2 pi lie at opposite ends.

Where a value changes at a step of the episode, the column of `NAME.at_step` tells whether it has: -1 before, 1 from the
observation whose action it holds for. A value that is redrawn at random is told as the task has it, not as it is now.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, SupportsFloat

import gymnasium
import numpy as np
from gymnasium.spaces.utils import flatten, flatten_space

from metarl.errors import TaskError
from metarl.tasks.batch import TaskBatch
from metarl.tasks.changes import AT_STEP
from metarl.tasks.distribution import Anchors, TaskDistribution
from metarl.tasks.priors import Prior, ends_of, is_log
from metarl.tasks.task import Split, Task, Value


class RevealedTask(TaskDistribution):
    """`inner` with its tasks shown. Name, version, parameters, horizon, anchors, splits and draws are the inner's."""

    reveals_task = True

    def __init__(self, inner: TaskDistribution):
        self.inner = inner
        self.name, self.version = inner.name, inner.version
        self.parameters, self.horizon = inner.parameters, inner.horizon
        self.holds_out_validation = inner.holds_out_validation
        self._scales = tuple(Scale.of(parameter.prior) for parameter in inner.parameters)
        self.requirements = inner.requirements
        if inner.spaces is not None:
            num_columns = self.columns(inner.sample("train", 1, 0)).shape[1]
            self.spaces = _widened(flatten_space(inner.spaces[0]), num_columns), inner.spaces[1]

    def columns(self, tasks: Sequence[Task]) -> np.ndarray:
        """What is appended for each task: the scaled values of all parameters in order, float64 [n, P]."""
        scaled = []
        for parameter, scale in zip(self.parameters, self._scales, strict=True):
            values = np.array([task[parameter.name] for task in tasks], dtype=np.float64)
            scaled.append(scale(values.reshape(len(tasks), -1)))
        return np.concatenate(scaled, axis=1)

    def clock(self, tasks: Sequence[Task]) -> Clock:
        """The columns of these tasks in the course of an episode."""
        sizes = [np.size(tasks[0][parameter.name]) for parameter in self.parameters]
        changes = [i for i, parameter in enumerate(self.parameters) if parameter.name.endswith(AT_STEP)]
        steps = [[float(np.asarray(task[self.parameters[i].name])) for i in changes] for task in tasks]
        return Clock(self.columns(tasks), [sum(sizes[:i]) for i in changes], np.array(steps))

    def make(self, task: Task, **kwargs: Any) -> gymnasium.Env:
        return RevealedEnv(self.inner.make(task, **kwargs), task, self.clock([task]))

    def make_batch(self, tasks: Sequence[Task]) -> TaskBatch:
        return RevealedBatch(self.inner.make_batch(tasks), self)

    # --- the inner distribution's own ------------------------------------------------------------

    @property
    def anchors(self) -> Anchors:
        return self.inner.anchors

    def fingerprint(self) -> dict[str, str]:
        return self.inner.fingerprint()

    def change_step(self, task: Task) -> float | None:
        return self.inner.change_step(task)

    def task(self, **values: Value) -> Task:
        return self.inner.task(**values)

    def finite_tasks(self) -> tuple[Task, ...] | None:
        return self.inner.finite_tasks()

    @property
    def num_tasks(self) -> int | None:
        return self.inner.num_tasks

    @property
    def splits_coincide(self) -> bool:
        return self.inner.splits_coincide

    @property
    def validation_coincides(self) -> bool:
        return self.inner.validation_coincides

    @property
    def has_ood(self) -> bool:
        return self.inner.has_ood

    def split_of(self, task: Task) -> tuple[Split, ...]:
        return self.inner.split_of(task)

    def sample(self, split: Split, n: int, seed: int | Sequence[int]) -> tuple[Task, ...]:
        return self.inner.sample(split, n, seed)


class Clock:
    """The columns of n tasks as their episodes go on. `changes`: those of steps at which a value changes."""

    def __init__(self, columns: np.ndarray, changes: Sequence[int], steps: np.ndarray):
        self._columns, self._changes, self._steps = columns, list(changes), steps
        self._elapsed = np.zeros(len(columns))

    @property
    def num_columns(self) -> int:
        return int(self._columns.shape[1])

    def reset(self, rows: np.ndarray) -> np.ndarray:
        """[n, P] where the rows of a mask [n] begin an episode."""
        self._elapsed[rows] = 0
        return self._now()

    def advance(self, rows: np.ndarray) -> np.ndarray:
        """[n, P] after a step of the rows of a mask [n]; the others' episodes have ended."""
        self._elapsed[rows] += 1
        return self._now()

    def _now(self) -> np.ndarray:
        if self._changes:
            self._columns[:, self._changes] = np.where(self._elapsed[:, None] >= self._steps, 1.0, -1.0)
        return self._columns


class RevealedBatch(TaskBatch):
    """The inner batch, native as it is; the columns are made when tasks are set and joined on at every step."""

    def __init__(self, inner: TaskBatch, family: RevealedTask):
        self._inner, self._family = inner, family
        self._show(inner.tasks)
        space = _widened(inner.single_observation_space, self._clock.num_columns)
        self._set_spaces(space, inner.single_action_space, inner.num_envs)
        self.metadata = inner.metadata

    def _show(self, tasks: Sequence[Task]) -> None:
        self.tasks = tuple(tasks)
        self._clock = self._family.clock(self.tasks)
        self._has_ended = np.zeros(len(self.tasks), dtype=bool)

    @property
    def action_spaces(self) -> tuple[gymnasium.Space, ...]:
        return self._inner.action_spaces

    def set_tasks(self, tasks: Sequence[Task]) -> None:
        self._inner.set_tasks(tasks)
        self._show(self._inner.tasks)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        obs, info = self._inner.reset(seed=seed, options=options)
        begins = self._reset_mask(options, self.num_envs)
        self._has_ended[begins] = False
        return np.concatenate((obs, self._clock.reset(begins)), axis=1), info

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        obs, rewards, terminated, truncated, info = self._inner.step(actions)
        columns = self._clock.advance(~self._has_ended)
        self._has_ended = terminated | truncated
        return np.concatenate((obs, columns), axis=1), rewards, terminated, truncated, info

    def render_frame(self, index: int = 0) -> np.ndarray | None:
        return self._inner.render_frame(index)

    def close_extras(self, **kwargs: Any) -> None:
        self._inner.close_extras(**kwargs)


class RevealedEnv(gymnasium.Wrapper[np.ndarray, Any, Any, Any]):
    """One environment; its observation flattened, float64, then the columns."""

    def __init__(self, env: gymnasium.Env, task: Task, clock: Clock):
        super().__init__(env)
        self.task, self._clock = task, clock
        self.observation_space = _widened(flatten_space(env.observation_space), clock.num_columns)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        return self._joined(observation, self._clock.reset(np.ones(1, bool))), info

    def step(self, action: Any) -> tuple[np.ndarray, SupportsFloat, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        observed = self._joined(observation, self._clock.advance(np.ones(1, bool)))
        return observed, reward, terminated, truncated, info

    def _joined(self, observation: Any, columns: np.ndarray) -> np.ndarray:
        flat = np.asarray(flatten(self.env.observation_space, observation), dtype=np.float64)
        return np.concatenate((flat, columns[0]))


def _widened(space: gymnasium.Space, num_columns: int) -> gymnasium.spaces.Box:
    """Room for the columns; unbounded, because out-of-distribution tasks leave the training range."""
    if not isinstance(space, gymnasium.spaces.Box):
        raise TaskError(f"a revealed task needs observations that flatten to a Box, got {space}")
    room = np.full(num_columns, np.inf)
    return gymnasium.spaces.Box(np.append(space.low, -room), np.append(space.high, room), dtype=np.float64)


# --- scaling -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scale:
    """Takes `low` to -1 and `high` to 1, in logarithms where `is_log`: x -> (2 x - low - high) / (high - low).

    `low` and `high` hold one entry, or one per component; equal ends give 0. In logarithms what lies below a
    thousandth of `low` (an actuator's strength of 0, far outside the training range) counts as that.
    """

    low: np.ndarray
    high: np.ndarray
    is_log: bool = False

    @staticmethod
    def of(prior: Prior) -> Scale:
        low, high = ends_of(prior)
        return Scale(low, high, is_log(prior))

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Values [n, size] -> [n, size]."""
        x, low, high = values, self.low, self.high
        if self.is_log:
            x, low, high = np.log(np.maximum(values, low / 1000)), np.log(low), np.log(high)
        width = high - low
        return (2 * x - low - high) / np.where(width > 0, width, 1.0) * (width > 0)
