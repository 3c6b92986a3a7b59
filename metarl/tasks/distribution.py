"""TaskDistribution: p(T), its splits, and how to build environments for its tasks."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium
import numpy as np

from metarl.errors import TaskError
from metarl.tasks.batch import EnvBatch, TaskBatch
from metarl.tasks.changes import change_steps
from metarl.tasks.priors import Prior, require_prior
from metarl.tasks.task import SPLITS, Split, Task, Value

_MAX_REJECTIONS = 10_000
_MAX_PERMUTED = 10_000


@dataclass(frozen=True)
class Parameter:
    """One named parameter of a task, whose values can lie within `limits`, the lowest and the highest there can be.

    `prior` gives the training range, a part of which is held out as the validation split. `test` replaces it for
    the test split (interpolation protocols); without it, test tasks come from the same prior but never coincide
    with a training task. `ood` is the range outside the training range; parameters without one keep their prior in
    the ood split.
    """

    name: str
    prior: Prior
    unit: str = ""
    test: Prior | None = None
    ood: Prior | None = None
    limits: tuple[float, float] = (-math.inf, math.inf)

    def __post_init__(self) -> None:
        if not (isinstance(self.name, str) and self.name):
            raise TaskError(f"a parameter's name must be a string, got {self.name!r}")
        if not isinstance(self.unit, str):
            raise TaskError(f"parameter {self.name!r}: its unit must be a string, got {self.unit!r}")
        for prior in (self.prior, self.test, self.ood):
            if prior is not None or prior is self.prior:
                require_prior(prior, self.name)

    @property
    def components(self) -> tuple[str, ...]:
        """Names of its numbers: `mass`, or `goal[0]`, `goal[1]` of a vector-valued parameter."""
        value = self.prior.sample(np.random.Generator(np.random.Philox(0)))
        return tuple(f"{self.name}[{i}]" for i in range(len(value))) if isinstance(value, tuple) else (self.name,)

    def prior_of(self, split: Split) -> Prior:
        if split == "test":
            return self.test or self.prior
        return (self.ood or self.prior) if split == "ood" else self.prior


@dataclass(frozen=True)
class Anchors:
    """Reference returns per episode that give a number its meaning; None where not known.

    `nothing`: zero actions. `task_blind`: the best policy that cannot know the task. `expert`: the best
    known policy that knows the task. `source` says where each figure comes from.
    """

    nothing: float | None = None
    task_blind: float | None = None
    expert: float | None = None
    source: str = ""

    def normalise(self, value: float) -> float | None:
        """(value - task_blind) / (expert - task_blind): 0 = best task-blind policy, 1 = expert."""
        if self.task_blind is None or self.expert is None or self.expert == self.task_blind:
            return None
        return (value - self.task_blind) / (self.expert - self.task_blind)


def require_horizon(distribution: Any, horizon: Any) -> None:
    """TaskError naming the distribution where `horizon` is no number of steps."""
    name = getattr(distribution, "name", type(distribution).__name__)
    if isinstance(horizon, bool) or not isinstance(horizon, int | np.integer):
        raise TaskError(f"{name}: horizon must be an integer, a number of steps, got {horizon!r}")
    if horizon < 1:
        raise TaskError(f"{name}: horizon must be at least 1, got {horizon}")


def require_description(distribution: TaskDistribution) -> None:
    """TaskError naming the attribute where a distribution lacks name, version, parameters or horizon, or states
    them wrongly."""
    kind = type(distribution).__name__
    wanted = {"name": "a string", "horizon": "a number of steps", "parameters": "a tuple of Parameter"}
    for attribute, what in wanted.items():
        if not hasattr(distribution, attribute):
            raise TaskError(f"{kind} has no `{attribute}`: set it to {what}, in the class or in its constructor")
    name, version, parameters = distribution.name, distribution.version, distribution.parameters
    if not (isinstance(name, str) and name):
        raise TaskError(f"{kind}: `name` must be a string, got {name!r}")
    if isinstance(version, bool) or not isinstance(version, int):
        raise TaskError(f"{name}: `version` must be an integer, got {version!r}")
    require_horizon(distribution, distribution.horizon)
    if isinstance(parameters, Parameter):
        raise TaskError(
            f"{name}: `parameters` must be a tuple of Parameter: a comma is missing behind {parameters.name!r}"
        )
    if not isinstance(parameters, tuple | list) or not all(isinstance(p, Parameter) for p in parameters):
        raise TaskError(f"{name}: `parameters` must be a tuple of Parameter, got {parameters!r}")
    if not parameters:
        raise TaskError(f"{name}: needs at least one parameter")
    names = [parameter.name for parameter in parameters]
    if len(set(names)) < len(names):
        raise TaskError(f"{name}: parameter names must differ, got {names}")


class TaskDistribution(ABC):
    """p(T): named parameters with priors, disjoint splits, and environments for a task.

    A subclass sets `name`, `parameters` and `horizon` and implements `make`. Instances are picklable
    and cheap: they cross process boundaries, environments do not.

    requirements: what pip must install for the environments alone, such as `("mujoco==3.3.0", "metaworld==3.1.1")`,
        which the learner need not have. Ray workers get a Python of their own with it. Import it inside `make`.
    spaces: an environment's observation and action space, to be stated where the learner cannot build one.
    holds_out_validation: False where validation tasks are training tasks: see `without_validation`.
    """

    name: str
    version: int = 1
    reveals_task: ClassVar[bool] = False  # whether observations hold the task's parameters: see `RevealedTask`
    parameters: tuple[Parameter, ...]
    horizon: int
    requirements: tuple[str, ...] = ()
    spaces: tuple[gymnasium.Space, gymnasium.Space] | None = None
    holds_out_validation: bool = True

    @property
    def anchors(self) -> Anchors:
        return Anchors()

    @abstractmethod
    def make(self, task: Task) -> gymnasium.Env:
        """A fresh environment of this task. Its `reset()` must never change the task."""

    def make_batch(self, tasks: Sequence[Task]) -> TaskBatch:
        """One environment per entry of `tasks`, stepped together, without autoreset."""
        return EnvBatch(self.make, tasks)

    def change_step(self, task: Task) -> float | None:
        """The step of an episode at which something about `task` changes; None where nothing does."""
        return min((step for step in change_steps(task).values() if step > 0), default=None)

    def fingerprint(self) -> dict[str, str]:
        """Digests by name of what all tasks share, as the robot's masses; a run says which have changed since."""
        return {}

    # --- tasks -----------------------------------------------------------------------------------

    def task(self, **values: Value) -> Task:
        """The task with exactly these values; TaskError where a name or a value is not allowed."""
        names = [p.name for p in self.parameters]
        if set(values) != set(names):
            raise TaskError(f"{self.name}: a task needs exactly the parameters {names}, got {sorted(values)}")
        task = Task.of(self.name, {name: values[name] for name in names})
        for parameter in self.parameters:
            priors = [parameter.prior_of(split) for split in SPLITS]
            if not any(prior.contains(task[parameter.name]) for prior in priors):
                allowed = " or ".join(dict.fromkeys(str(prior) for prior in priors))
                raise TaskError(f"{self.name}: {parameter.name}={task[parameter.name]} lies outside {allowed}")
        return task

    @property
    def num_tasks(self) -> int | None:
        """How many tasks the training range holds, counted without building them; None where not finitely many."""
        options = self._options()
        return None if options is None else math.prod(len(values) for values in options)

    def finite_tasks(self) -> tuple[Task, ...] | None:
        """Every task of the training range where there are finitely many, else None. `num_tasks` only counts them."""
        options = self._options()
        return None if options is None else tuple(self._of_values(values) for values in itertools.product(*options))

    def _options(self, split: Split = "train") -> list[tuple[Value, ...]] | None:
        options = [parameter.prior_of(split).options for parameter in self.parameters]
        return None if any(o is None for o in options) else [o for o in options if o is not None]

    def _of_values(self, values: Sequence[Value]) -> Task:
        return Task.of(self.name, {p.name: value for p, value in zip(self.parameters, values, strict=True)})

    @property
    def splits_coincide(self) -> bool:
        """True where train and test hold the same tasks (finite families): results then show no generalisation."""
        return self._options() is not None and all(p.test is None for p in self.parameters)

    @property
    def validation_coincides(self) -> bool:
        """True where train and validation hold the same tasks: wherever the training range is finite."""
        return self._options() is not None

    @property
    def has_ood(self) -> bool:
        return any(parameter.ood is not None for parameter in self.parameters)

    def split_of(self, task: Task) -> tuple[Split, ...]:
        """The splits a task belongs to: exactly one, but for finite families, in which splits coincide."""
        inside = all(p.prior.contains(task[p.name]) for p in self.parameters)
        tests_elsewhere = any(p.test is not None for p in self.parameters)
        if not inside:
            in_test_range = all(p.prior_of("test").contains(task[p.name]) for p in self.parameters)
            return ("test",) if tests_elsewhere and in_test_range else ("ood",)
        if self.validation_coincides:
            splits: tuple[Split, ...] = ("train",) if tests_elsewhere else ("train", "test")
            return (*splits, "validation") if self.holds_out_validation else splits
        part = task.fingerprint() % 8
        if part % 4 == 0 and not tests_elsewhere:
            return ("test",)
        return ("validation",) if part == 1 and self.holds_out_validation else ("train",)

    def sample(self, split: Split, n: int, seed: int | Sequence[int]) -> tuple[Task, ...]:
        """`n` tasks of a split; a function of (split, seed) alone, and a prefix of any longer draw.

        Continuous families are split by a hash of the values: a quarter of the space is test (none of it where a
        parameter has a `test` prior), an eighth validation, so no seed can ever draw a training task as a test or
        validation task. Finite families are dealt out in shuffled rounds, so that every task comes up equally often;
        so are the test tasks of `test` priors where there are finitely many.
        """
        if split not in SPLITS:
            raise TaskError(f"unknown split {split!r}; allowed: {', '.join(SPLITS)}")
        if split == "ood" and not self.has_ood:
            raise TaskError(f"{self.name} has no out-of-distribution range; allowed splits: train, validation, test")
        if split == "validation" and not self.holds_out_validation:
            raise TaskError(
                f"{self.name}: validation tasks are not held out from training (task_distribution.hold_out_validation "
                f"= false); allowed splits: train, test{', ood' if self.has_ood else ''}"
            )
        if n < 1:
            raise TaskError(f"{self.name}: the number of tasks must be at least 1, got {n}")
        path = [seed] if isinstance(seed, int) else list(seed)
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([SPLITS.index(split), *path])))
        options = self._options(split)
        if options is not None and split != "ood":
            if split != "test" or self.splits_coincide:
                return tuple(itertools.islice(self._dealt(options, n, rng), n))
            if math.prod(len(values) for values in options) <= _MAX_PERMUTED:
                return self._dealt_test_tasks(options, n, rng)
        return tuple(self._draw(split, rng) for _ in range(n))

    def _dealt(self, options: list[tuple[Value, ...]], n: int, rng: np.random.Generator) -> Iterator[Task]:
        """Round after round of all tasks in random order. The family is never listed; a large one is not even
        permuted: there each round draws until something new comes up."""
        sizes = [len(values) for values in options]
        count = math.prod(sizes)
        if count <= _MAX_PERMUTED:
            order = np.concatenate([rng.permutation(count) for _ in range(-(-n // count))])
            for index in order.tolist():
                digits = np.unravel_index(index, sizes)
                yield self._of_values([values[int(d)] for values, d in zip(options, digits, strict=True)])
        while True:
            seen: set[tuple[int, ...]] = set()
            while len(seen) < count:
                drawn = tuple(int(rng.integers(size)) for size in sizes)
                if drawn not in seen:
                    seen.add(drawn)
                    yield self._of_values([values[d] for values, d in zip(options, drawn, strict=True)])

    def _dealt_test_tasks(self, options: list[tuple[Value, ...]], n: int, rng: np.random.Generator) -> tuple[Task, ...]:
        """Round after round of what the test priors hold and the training range does not."""
        tasks = [self._of_values(values) for values in itertools.product(*options)]
        held_out = [task for task in tasks if "test" in self.split_of(task)]
        if not held_out:
            raise self._empty("test")
        order = np.concatenate([rng.permutation(len(held_out)) for _ in range(-(-n // len(held_out)))])
        return tuple(held_out[index] for index in order[:n].tolist())

    def _draw(self, split: Split, rng: np.random.Generator) -> Task:
        for _ in range(_MAX_REJECTIONS):
            task = Task.of(self.name, {p.name: p.prior_of(split).sample(rng) for p in self.parameters})
            if split in self.split_of(task):
                return task
        raise self._empty(split)

    def _empty(self, split: Split) -> TaskError:
        return TaskError(f"{self.name}: the {split} split is empty: its priors lie inside another split's range")


def without_validation(distribution: TaskDistribution) -> TaskDistribution:
    """The distribution with its validation tasks given back to `train`."""
    object.__setattr__(distribution, "holds_out_validation", False)  # a family may be a frozen dataclass
    return distribution
