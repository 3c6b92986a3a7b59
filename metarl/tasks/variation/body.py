"""What lies between policy and physics, for n simulations in one batch and for one Gymnasium environment alike.

reset    schedule at step 0 -> observation effects
step     schedule -> action effects -> physics -> observation effects
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete

from metarl.errors import TaskError, did_you_mean
from metarl.tasks.action_space import bounded_dimensions
from metarl.tasks.changes import change_steps
from metarl.tasks.distribution import Parameter
from metarl.tasks.priors import Prior, ends_of
from metarl.tasks.task import Task
from metarl.tasks.variation.description import EffectEntry, entries_of, parameters_of
from metarl.tasks.variation.effects import EFFECTS, Channel, Effect, Side
from metarl.tasks.variation.randomness import RowNoise
from metarl.tasks.variation.schedules import Schedule, Scheduled, scheduled_of

_LONGEST_DELAY = 1000


@dataclass(frozen=True)
class Declared:
    """One entry of `effects`."""

    name: str
    kind: str
    entry: EffectEntry
    parameters: tuple[Parameter, ...]

    @property
    def effect(self) -> type[Effect]:
        return EFFECTS[self.kind]

    @property
    def priors(self) -> list[Prior]:
        """Those of its value."""
        value = self.parameters[0]
        return [prior for prior in (value.prior, value.test, value.ood) if prior is not None]

    @property
    def ends(self) -> np.ndarray:
        """The lowest and the highest value of its priors."""
        ends = [ends_of(prior) for prior in self.priors]
        return np.array([min(float(low.min()) for low, _ in ends), max(float(high.max()) for _, high in ends)])

    @property
    def is_whole(self) -> bool:
        """Whether its priors hold whole numbers alone."""
        options = [prior.options for prior in self.priors]
        return all(values is not None and not (np.ravel(values) % 1).any() for values in options)


@dataclass(frozen=True)
class Body:
    """The effects of a family, and those of its other parameters that change in mid-episode."""

    declared: tuple[Declared, ...]
    scheduled: tuple[Scheduled, ...] = ()

    @staticmethod
    def of(effects: Mapping[str, Any]) -> Body:
        """The body that a section `effects` describes; TaskError naming what is wrong with it."""
        declared = [_declared(name, entry) for name, entry in entries_of(effects, EffectEntry, "effects").items()]
        order = list(EFFECTS)
        return Body(tuple(sorted(declared, key=lambda d: order.index(d.kind))))

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """What tasks must say of it."""
        return tuple(parameter for declared in self.declared for parameter in declared.parameters)

    @property
    def schedules(self) -> list[Scheduled]:
        """All that changes in mid-episode: of other parameters, and of the effects."""
        own = [
            scheduled
            for declared in self.declared
            for scheduled in scheduled_of(declared.entry, declared.parameters[0], declared.effect.neutral)
        ]
        return [*self.scheduled, *own]

    @property
    def redrawn(self) -> tuple[Parameter, ...]:
        """The parameters of which new values are drawn in mid-episode."""
        return tuple(scheduled.parameter for scheduled in self.schedules if scheduled.redraw)

    def with_scheduled(self, scheduled: Sequence[Scheduled]) -> Body:
        """The same body, beside which these parameters change."""
        return replace(self, scheduled=tuple(scheduled))

    def change_step(self, task: Task) -> float | None:
        """The first step at which a value of `task` begins to hold that is not neutral; None where there is none."""
        steps = change_steps(task)
        changing = [s for s in self.schedules if s.name in steps]
        real = [steps[s.name] for s in changing if (np.asarray(task[s.name]) != s.neutral).any()]
        return min((step for step in real if step > 0), default=None)

    def start(self, action_space: Any, num_observations: int, num_rows: int) -> BodyState:
        """The body of `num_rows` robots. TaskError where an effect does not fit their spaces."""
        return BodyState(self, action_space, num_observations, num_rows)


def _declared(name: str, entry: EffectEntry) -> Declared:
    where, kind = f"effects.{name}", entry.effect or name
    if kind not in EFFECTS:
        raise TaskError(f"{where}: unknown effect {kind!r}; {did_you_mean(kind, EFFECTS)}allowed: {', '.join(EFFECTS)}")
    effect = EFFECTS[kind]
    if entry.dimensions is not None and (effect.is_index or not entry.dimensions):
        why = "its value is the index of the dimension" if effect.is_index else "it names none"
        raise TaskError(f"{where}.dimensions = {list(entry.dimensions)}: {why}; leave it out")
    if not entry.shared and effect.has_one_value:
        raise TaskError(f"{where}: shared: false does not apply to {kind}, which has one value")
    if not entry.shared and entry.dimensions is None:
        raise TaskError(f"{where}: shared: false needs dimensions, the list of those that get a value each")
    size = None if entry.shared or len(entry.dimensions or ()) == 1 else len(entry.dimensions or ())
    declared = Declared(name, kind, entry, parameters_of(name, entry, where, size, effect.unit, _limits(effect)))
    _require_allowed(declared, where)
    return declared


def _require_allowed(declared: Declared, where: str) -> None:
    """TaskError where a value of the priors is none that the effect can have."""
    _require_between(declared, declared.ends, where, "in its priors")
    if declared.effect.is_index and not declared.is_whole:
        raise TaskError(f"{where}: its value is an index, -1 for none: give prior: {{choice: [-1, 0, 1]}}")


def _require_between(declared: Declared, values: np.ndarray, where: str, what: str) -> None:
    """TaskError where one of `values` lies beyond what the effect can have."""
    low, high = _limits(declared.effect)
    wrong = values[(values < low) | (values > high)]
    if wrong.size:
        allowed = f"{low:g} or more" if high == math.inf else f"{low:g} to {high:g}"
        raise TaskError(f"{where}: {declared.kind} = {wrong[0]:g} is {what}; allowed: {allowed}")


def _limits(effect: type[Effect]) -> tuple[float, float]:
    """The lowest and the highest value that an effect can have."""
    high = _LONGEST_DELAY if effect.unit == "steps" else effect.high
    return -math.inf if effect.low is None else effect.low, math.inf if high is None else high


class BodyState:
    """A running `Body` of n rows. `values`: all parameters as they are at the current step."""

    def __init__(self, body: Body, action_space: Any, num_observations: int, num_rows: int):
        self._schedule = Schedule(body.schedules)
        channels = {"action": _action_channel(action_space, num_rows)}
        channels["observation"] = Channel(np.ones(num_observations), np.zeros(num_observations), num_rows)
        self._is_discrete = isinstance(action_space, Discrete)
        self._steps: dict[Side, list[_Step]] = {"action": [], "observation": []}
        used = {"num_normal": 0, "num_uniform": 0}
        for declared in body.declared:
            step = _Step.of(declared, channels[declared.effect.side], self._is_discrete, used)
            self._steps[declared.effect.side].append(step)
        self._first_uniform = used["num_uniform"]
        self._noise = RowNoise(num_rows, used["num_normal"], used["num_uniform"] + self._schedule.num_uniform)
        if isinstance(action_space, Box):
            self._low, self._high, self._dtype = action_space.low, action_space.high, action_space.dtype
        self._all, self._time = np.arange(num_rows), np.zeros(num_rows, np.int64)
        self._seen = np.zeros((num_rows, num_observations))
        self._fingerprints = [0] * num_rows

    @property
    def values(self) -> dict[str, np.ndarray]:
        return self._schedule.values

    def set_tasks(self, tasks: Sequence[Task], params: Mapping[str, np.ndarray]) -> None:
        known = {task: task.fingerprint() for task in set(tasks)}
        self._fingerprints = [known[task] for task in tasks]
        for step in (*self._steps["action"], *self._steps["observation"]):
            step.expect(params[step.name])
        self._schedule.set_tasks(tasks, params)

    def reset(self, mask: np.ndarray, seeds: Sequence[int | None]) -> bool:
        """Begin episodes of the masked rows. Whether values of the model may have changed."""
        rows = np.flatnonzero(mask)
        self._noise.reset(rows, seeds, self._fingerprints)
        self._schedule.reset(rows)
        self._time[rows] = 0
        for step in (*self._steps["action"], *self._steps["observation"]):
            step.effect.reset(rows)
        return self._schedule.changes

    def advance(self, running: np.ndarray | None) -> bool:
        """The next step of the running rows (None: all) begins. Whether any value changed."""
        rows = self._all if running is None else np.flatnonzero(running)
        self._noise.advance(rows)
        changed = self._schedule.advance(rows, self._time[rows], self._noise, self._first_uniform)
        self._time[rows] += 1
        return changed

    def act(self, actions: np.ndarray, running: np.ndarray | None) -> np.ndarray:
        """The actions [n, A] (or [n] discrete ones) that reach the physics, in the action space's own numbers."""
        if not self._steps["action"]:
            return actions
        if running is None:
            return self._arrived(actions, self._all)
        rows, arrived = np.flatnonzero(running), actions.copy()
        arrived[rows] = self._arrived(actions[rows], rows)
        return arrived

    def _arrived(self, actions: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The actions [m, A] or [m] of the rows that reach the physics."""
        if self._is_discrete:
            delayed = self._through("action", actions[:, None], rows)
            return np.rint(delayed[:, 0]).astype(actions.dtype)
        limited = np.minimum(np.maximum(actions, self._low), self._high)
        arrived = np.minimum(np.maximum(self._through("action", limited, rows), self._low), self._high)
        if self._dtype.kind != "f":
            arrived = np.rint(arrived)
        return arrived.astype(self._dtype).astype(actions.dtype)

    def observe(self, observations: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
        """What is seen of `observations` [n, O]; rows that are not masked (None: all are) keep what was seen before."""
        if mask is None:
            self._seen = self._through("observation", observations, self._all)
        else:
            rows = np.flatnonzero(mask)
            seen = self._seen.copy()
            seen[rows] = self._through("observation", observations[rows], rows)
            self._seen = seen
        return self._seen

    def _through(self, side: Side, values: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """`values` [m, W] of the rows after all effects of a side."""
        x = np.array(values, dtype=np.float64)
        for step in self._steps[side]:
            x = step.effect(x, self.values[step.name][rows], rows, step.random(self._noise, rows))
        return x


@dataclass(frozen=True)
class _Step:
    """An effect in use, and which columns of the random numbers are its own."""

    declared: Declared
    effect: Effect
    is_whole: bool  # whether its values must be whole numbers
    normals: slice
    uniforms: slice

    @staticmethod
    def of(declared: Declared, channel: Channel, is_discrete: bool, used: dict[str, int]) -> _Step:
        where, kind, width = f"effects.{declared.name}", declared.effect, channel.width
        acts_on_discrete = is_discrete and kind.side == "action"
        if acts_on_discrete and (declared.kind != "action_delay" or not declared.is_whole):
            raise TaskError(
                f"{where}: actions are discrete; allowed for them is action_delay by whole steps, such as "
                "{choice: [0, 1, 2]}"
            )
        dimensions = declared.entry.dimensions if declared.entry.dimensions is not None else tuple(range(width))
        largest = int(declared.ends[1]) if kind.is_index else max(dimensions)
        if largest >= width:
            raise TaskError(f"{where}: {_no_dimension(kind.side, largest, width)}")
        effect = kind(channel, dimensions)
        slices = {}
        for what in ("num_normal", "num_uniform"):
            count = getattr(kind, what) * len(dimensions)
            slices[what] = slice(used[what], used[what] + count)
            used[what] += count
        is_whole = kind.is_index or acts_on_discrete
        return _Step(declared, effect, is_whole, slices["num_normal"], slices["num_uniform"])

    @property
    def name(self) -> str:
        return self.declared.name

    def expect(self, values: np.ndarray) -> None:
        """New tasks come with these values; TaskError where the effect cannot have one of them."""
        where, width = f"effects.{self.name}", self.effect.channel.width
        _require_between(self.declared, values, where, "that of a task")
        if self.is_whole and (values % 1).any():
            raise TaskError(f"{where} = {values[values % 1 != 0][0]:g} of a task: must be a whole number here")
        if self.effect.is_index and values.max() >= width:
            raise TaskError(f"{where}: {_no_dimension(self.effect.side, int(values.max()), width)}")
        self.effect.expect(max(float(values.max()), self.declared.ends[1]))

    def random(self, noise: RowNoise, rows: np.ndarray) -> np.ndarray:
        if self.effect.num_normal:
            return noise.normal[rows, self.normals]
        return noise.uniform[rows, self.uniforms]


def _no_dimension(side: Side, index: int, width: int) -> str:
    return f"there is no {side} dimension {index}; allowed: 0 to {width - 1}"


def _action_channel(space: Any, num_rows: int) -> Channel:
    if isinstance(space, Discrete):
        return Channel(np.ones(1), np.array([float(space.start)]), num_rows)
    low, high, has_range = space.low.astype(np.float64), space.high.astype(np.float64), bounded_dimensions(space)
    half = np.where(has_range, 0.5 * (np.where(has_range, high, 1.0) - np.where(has_range, low, -1.0)), 1.0)
    return Channel(half, np.clip(np.zeros(len(low)), low, high), num_rows)
