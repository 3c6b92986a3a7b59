"""Tasks on a grid of parameter values, also far outside every range: where a policy adapts, and where no longer.

Parameters that are not on an axis are held at the values of a base task. A vector-valued parameter is varied by its
components, `goal[0]`. Letters: P points of the grid, R rounds, N streams.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metarl.errors import ConfigError, MetarlError, TaskError
from metarl.evaluation.evaluate import TASKS_PER_UNIT, evaluation_units
from metarl.evaluation.statistics import Interval, seed_ci95
from metarl.files import write_json
from metarl.rollout.executor import Executor
from metarl.rollout.types import TrialPlan, Weights
from metarl.tasks import InDisc, Mixture, OnSphere, Parameter, Prior, Task, TaskDistribution, Uniform
from metarl.tasks.changes import redraw_notes
from metarl.tasks.priors import is_log
from metarl.tasks.task import Value

MOST_POINTS = 1000
INSIDE, BEYOND, OUTSIDE = "training range", "test or ood range", "outside all ranges"
_COMPONENT = re.compile(r"(?P<name>.+)\[(?P<index>\d+)\]")


@dataclass(frozen=True)
class Axis:
    """One parameter, or one component of it, at these values. `low` and `high` bound its training range; None where
    that has no bounds to speak of."""

    name: str
    values: tuple[float, ...]
    unit: str = ""
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Point:
    """One task of a grid: its values on the axes, where it lies, its mean return per round, and the 95 % interval of
    the last round's over its episodes (None of one episode)."""

    at: tuple[float, ...]
    name: str
    where: str
    returns: tuple[float, ...]
    ci95: Interval | None


@dataclass(frozen=True)
class Grid:
    """The result of `evaluate_grid`; `points` in the order of the axes, the last one fastest."""

    distribution: str
    axes: tuple[Axis, ...]
    held: dict[str, Value]  # the parameters, or what of them, that no axis varies
    points: tuple[Point, ...]
    episodes: int
    iteration: int
    env_steps: int
    seed: int
    notes: tuple[str, ...] = ()  # what a reader must know to read it right; earlier versions did not write them

    def write(self, path: Path) -> None:
        """Write grid.json; atomic."""
        write_json(path, asdict(self))

    @staticmethod
    def load(path: Path) -> Grid:
        """Read what `write` wrote. MetarlError naming the file where it is not a grid."""
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            content["axes"] = tuple(Axis(**{**a, "values": tuple(a["values"])}) for a in content["axes"])
            content["held"] = {n: tuple(v) if isinstance(v, list) else v for n, v in content["held"].items()}
            content["points"] = tuple(
                Point(tuple(p["at"]), p["name"], p["where"], tuple(p["returns"]), p["ci95"] and tuple(p["ci95"]))
                for p in content["points"]
            )
            content["notes"] = tuple(content.get("notes", ()))
            return Grid(**content)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise MetarlError(f"{path}: not a grid file ({error!r})") from error


# --- axes --------------------------------------------------------------------------------------------


def axis_of(distribution: TaskDistribution, text: str) -> Axis:
    """The axis of `mass=0.3:4:15`: 15 values from 0.3 to 4, evenly, or in ratios for a log-uniform parameter; of
    `mass=[0.5,1,2]`: these values.

    ConfigError where it is none of this distribution.
    """
    name, _, numbers = text.partition("=")
    name = name.strip()
    parameter, index = _parameter(distribution, name, text)
    try:
        if numbers.strip().startswith("["):
            values = [float(part) for part in numbers.strip().removeprefix("[").removesuffix("]").split(",")]
        else:
            low, high, count = (part.strip() for part in numbers.split(":"))
            values = _spread(float(low), float(high), int(count), is_log(parameter.prior))
    except ValueError:
        raise ConfigError(
            f"--vary {text}: allowed is NAME=LOW:HIGH:NUMBER, such as {name}=0.5:2:9, or NAME=[VALUE,VALUE,...]"
        ) from None
    if not values or not all(map(math.isfinite, values)):
        raise ConfigError(f"--vary {text}: allowed are finite numbers, and at least one of them")
    bounds = bounds_of(parameter.prior, index)
    return Axis(name, tuple(values), parameter.unit, *(bounds or (None, None)))


def usual_axis(distribution: TaskDistribution, name: str, number: int) -> Axis | None:
    """`number` values over the training and the ood range of a parameter, or a component `goal[0]`, and as much again
    as a quarter of the width at either end; None where it has no bounds.

    A parameter with finitely many values is varied over these.
    """
    parameter, index = _parameter(distribution, name, name)
    bounds = bounds_of(parameter.prior, index)
    if bounds is None or isinstance(parameter.prior, OnSphere):  # whose components cannot vary alone
        return None
    if parameter.prior.options is not None:
        values = sorted({float(np.atleast_1d(option)[index or 0]) for option in parameter.prior.options})
        return Axis(name, tuple(values), parameter.unit, *bounds)
    ends = [bounds, *(b for b in [bounds_of(parameter.ood, index) if parameter.ood else None] if b is not None)]
    low, high = min(b[0] for b in ends), max(b[1] for b in ends)
    if is_log(parameter.prior):
        spare = (high / low) ** 0.125
        low, high = low / spare, high * spare
    else:
        spare = 0.125 * (high - low)
        low, high = (low if low == 0 else low - spare if low < 0 or low - spare > 0 else low), high + spare
    low, high = max(low, parameter.limits[0]), min(high, parameter.limits[1])
    return Axis(name, tuple(_spread(low, high, number, is_log(parameter.prior))), parameter.unit, *bounds)


def bounds_of(prior: Prior, index: int | None = None) -> tuple[float, float] | None:
    """The lowest and the highest value of a prior, of one component where `index` is given; None where unknown."""
    if isinstance(prior, Uniform):
        return prior.low, prior.high
    if isinstance(prior, OnSphere | InDisc):
        return -prior.radius, prior.radius
    if isinstance(prior, Mixture):
        parts = [bounds_of(part, index) for part in prior.parts]
        known = [part for part in parts if part is not None]
        return (min(p[0] for p in known), max(p[1] for p in known)) if len(known) == len(parts) else None
    if prior.options is not None:
        values = [float(np.atleast_1d(option)[index or 0]) for option in prior.options]
        return min(values), max(values)
    return None


def _parameter(distribution: TaskDistribution, name: str, text: str) -> tuple[Parameter, int | None]:
    found = {parameter.name: parameter for parameter in distribution.parameters}
    component = _COMPONENT.fullmatch(name)
    allowed = [one for parameter in distribution.parameters for one in parameter.components]
    if name not in allowed:
        raise ConfigError(f"--vary {text}: {distribution.name} has no {name!r}; allowed: {', '.join(allowed)}")
    return (found[component["name"]], int(component["index"])) if component else (found[name], None)


def _spread(low: float, high: float, count: int, in_ratios: bool) -> list[float]:
    if count < 1 or (count == 1 and low != high):
        raise ValueError("a number of values")
    spread = np.geomspace if in_ratios and low > 0 and high > 0 else np.linspace
    return [float(v) for v in spread(low, high, count)]


# --- evaluation --------------------------------------------------------------------------------------


def grid_tasks(
    distribution: TaskDistribution, axes: Sequence[Axis], base: Task
) -> list[tuple[tuple[float, ...], Task]]:
    """The values on the axes and the task of every point. ConfigError where two axes vary the same, or where there are
    too many points."""
    names = [axis.name for axis in axes]
    if len(set(names)) < len(names) or not axes:
        raise ConfigError(f"--vary: each parameter once, got {', '.join(names) or 'none'}")
    count = math.prod(len(axis.values) for axis in axes)
    if count > MOST_POINTS:
        raise ConfigError(f"--vary: the grid has {count} points; allowed are {MOST_POINTS}")
    points = []
    for at in itertools.product(*(axis.values for axis in axes)):
        values = base.values
        for name, value in zip(names, at, strict=True):
            component = _COMPONENT.fullmatch(name)
            if component and component["name"] in values:
                parts = list(values[component["name"]])  # type: ignore[arg-type]
                parts[int(component["index"])] = value
                values[component["name"]] = tuple(parts)
            else:
                values[name] = value
        points.append((at, Task.of(distribution.name, values)))
    return points


def where_of(distribution: TaskDistribution, task: Task) -> str:
    """Whether a task lies in the training range, in that of another split, or outside all of them."""
    try:
        distribution.task(**task.values)
    except TaskError:
        return OUTSIDE
    inside = all(p.prior.contains(task[p.name]) for p in distribution.parameters)
    return INSIDE if inside else BEYOND


def evaluate_grid(
    executor: Executor,
    distribution: TaskDistribution,
    plan: TrialPlan,
    weights: Weights,
    axes: Sequence[Axis],
    base: Task,
    *,
    seed: int,
    iteration: int = 0,
    tasks_per_unit: int = TASKS_PER_UNIT,
) -> Grid:
    """Collect a trial on every point of the grid. A function of the arguments alone, however many workers there are."""
    points = grid_tasks(distribution, axes, base)
    tasks = [task for _, task in points]
    units = evaluation_units(distribution, plan, "ood", len(tasks), seed, tasks_per_unit, tasks)
    trials = executor.collect(units, weights, iteration)
    returns = np.concatenate([trial.returns for trial in trials], axis=1)  # [R, P, N]
    found = tuple(
        Point(
            at,
            str(task),
            where_of(distribution, task),
            tuple(returns[:, p].mean(axis=1).tolist()),
            seed_ci95(returns[-1, p].tolist()) if returns.shape[2] > 1 else None,
        )
        for p, (at, task) in enumerate(points)
    )
    held = _held(distribution, {axis.name for axis in axes}, base)
    env_steps = sum(trial.num_steps for trial in trials)
    return Grid(
        distribution.name,
        tuple(axes),
        held,
        found,
        plan.num_streams,
        iteration,
        env_steps,
        seed,
        redraw_notes(distribution),
    )


def _held(distribution: TaskDistribution, varied: set[str], base: Task) -> dict[str, Value]:
    """The values of what no axis varies; of a vector-valued parameter whose other components vary, by component."""
    held: dict[str, Value] = {}
    for parameter in distribution.parameters:
        value, names = base[parameter.name], parameter.components
        if varied.isdisjoint(names):
            held[parameter.name] = value
        elif isinstance(value, tuple):
            held |= {name: part for name, part in zip(names, value, strict=True) if name not in varied}
    return held
