"""GymVariation: any Gymnasium environment whose parameters can be given to it, without a class of one's own."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import MultiDiscrete

from metarl.errors import TaskError, did_you_mean
from metarl.plugins import describe, load_target
from metarl.tasks.distribution import Parameter, TaskDistribution, require_horizon
from metarl.tasks.indexed_actions import IndexedActions
from metarl.tasks.priors import Choice
from metarl.tasks.task import Task, TaskParams, Value
from metarl.tasks.variation.attributes import Attribute, require_apart
from metarl.tasks.variation.body import Body
from metarl.tasks.variation.description import GymEntry, entries_of, parameters_of, require_within
from metarl.tasks.variation.dm_control import with_registration
from metarl.tasks.variation.schedules import Scheduled, scheduled_of
from metarl.tasks.variation.wrapper import BodyEnv

_WAYS = ("argument", "attribute", "option", "set_task")


class GymVariation(TaskDistribution):
    """Variants of one Gymnasium environment.

    env: a registered id, or module:attr of a class or function. env_options: its keyword arguments.
    parameters: by name, each with a prior and the way in which it gets into the environment, see `GymEntry`.
    effects: what lies between policy and environment, see `metarl.tasks.variation.effects`.

    Dict and Tuple observations are flattened in the order that `metarl tasks check` prints. MultiDiscrete actions
    become one Discrete action, the last part of which counts fastest; its environments take the robot's own too.
    """

    name = "GymVariation"
    version = 1

    def __init__(
        self,
        env: str,
        parameters: Mapping[str, Any] | None = None,
        effects: Mapping[str, Any] | None = None,
        env_options: Mapping[str, Any] | None = None,
        horizon: int = 200,
    ):
        require_horizon(self, horizon)
        self.horizon, self.env_id, self.env_options = horizon, env, dict(env_options or {})
        self._build = _builder(env, horizon)
        body = Body.of(effects or {})
        self._entries = entries_of(parameters, GymEntry, "parameters")
        scheduled: list[Scheduled] = []
        made: list[Parameter] = []
        for name, entry in self._entries.items():
            _require_way(name, entry)
            own = parameters_of(name, entry, f"parameters.{name}", None, "")
            made += own
            scheduled += scheduled_of(entry, own[0], float("nan"))
        self._attributes = {
            name: [Attribute.of(path, f"parameters.{name}.attribute") for path in entry.attribute or ()]
            for name, entry in self._entries.items()
        }
        require_apart(self._attributes)
        self.parameters = (*made, *body.parameters)
        if not self.parameters:
            raise TaskError(f"{self.name}: nothing varies; name at least one entry of `parameters` or `effects`")
        require_within(self.parameters, horizon)
        self.body = body.with_scheduled(scheduled) if body.declared or scheduled else None
        self._whole = {p.name for p in made if _is_whole(p)}

    def change_step(self, task: Task) -> float | None:
        return None if self.body is None else self.body.change_step(task)

    @property
    def path_taken(self) -> str:
        """How tasks are simulated, in words."""
        return f"Gymnasium path: {self.env_id}"

    @property
    def is_native(self) -> bool:
        """Never: environments are stepped one by one."""
        return False

    def unvaried(self) -> GymVariation:
        """The same tasks with nothing varied, for comparisons of speed."""
        plain = copy.copy(self)
        plain._entries, plain.body = {}, None
        return plain

    def make(self, task: Task, render_mode: str | None = None) -> gymnasium.Env:
        values = {name: self._plain(name, task[name]) for name in self._entries}
        arguments = {e.argument: values[name] for name, e in self._entries.items() if e.argument is not None}
        env = self._built(
            {**self.env_options, **({} if render_mode is None else {"render_mode": render_mode})}, arguments
        )
        if isinstance(env.action_space, MultiDiscrete):
            env = OneDiscrete(env)
        originals = {
            (name, attribute): attribute.own_value(env.unwrapped)
            for name, attributes in self._attributes.items()
            if name in self._entries
            for attribute in attributes
        }
        self._set_attributes(env, originals, values)
        given = {entry.set_task: values[name] for name, entry in self._entries.items() if entry.set_task is not None}
        if given:
            _set_task(env.unwrapped, given)
        options = {entry.option: values[name] for name, entry in self._entries.items() if entry.option is not None}
        if options:
            env = WithOptions(env, options)
        if self.body is None:
            return env

        def edit(current: TaskParams) -> None:
            names = [s.name for s in self.body.scheduled] if self.body is not None else []
            now = {name: self._plain(name, _value(current[name][0])) for name in names if name in self._entries}
            self._set_attributes(env, originals, now)

        return BodyEnv(env, self.body, task, edit)

    def _built(self, options: Mapping[str, Any], arguments: Mapping[str, Any]) -> gymnasium.Env:
        try:
            return self._build(**options, **arguments)
        except TypeError as error:
            if "argument" not in str(error):
                raise
            names = ", ".join(map(repr, arguments)) or "none"
            raise TaskError(
                f"{self.name}: {self.env_id} does not take these keyword arguments: {describe(error)}; given as "
                f"`argument`: {names}. Use attribute, option or set_task where it has no such argument"
            ) from error

    def _plain(self, name: str, value: Value) -> Any:
        """A whole number of a choice is given as an int, a tuple as an array."""
        if isinstance(value, tuple):
            return np.array(value)
        return int(value) if name in self._whole and float(value).is_integer() else value

    @staticmethod
    def _set_attributes(
        env: gymnasium.Env, originals: Mapping[tuple[str, Attribute], Any], values: Mapping[str, Any]
    ) -> None:
        """Set what `values` name; NaN puts back the environment's own value."""
        for (name, attribute), original in originals.items():
            if name in values:
                value = values[name]
                is_own = bool(np.isnan(value).all())
                if is_own:
                    attribute.put_back(env.unwrapped, original)
                else:
                    attribute.set(env.unwrapped, value)


class WithOptions(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Gives `options` to every reset."""

    def __init__(self, env: gymnasium.Env, options: Mapping[str, Any]):
        super().__init__(env)
        self._options = dict(options)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        return self.env.reset(seed=seed, options={**(options or {}), **self._options})


class OneDiscrete(gymnasium.ActionWrapper[Any, Any, Any]):
    """A MultiDiscrete action as one Discrete action, see `metarl.tasks.indexed_actions`. It takes both."""

    def __init__(self, env: gymnasium.Env):
        super().__init__(env)
        space: Any = env.action_space
        self.indexed_actions = IndexedActions(space, env.unwrapped.__class__.__name__)
        self.action_space: Any = self.indexed_actions.index_space

    def action(self, action: Any) -> Any:
        return self.indexed_actions.action(self.indexed_actions.index(action))


def _builder(env: str, horizon: int) -> Callable[..., gymnasium.Env]:
    """What makes the environment of an id, or of module:attr."""
    if not isinstance(env, str) or not env:
        raise TaskError(f"GymVariation: env must be a Gymnasium id or module:attr, got {env!r}")
    env = with_registration(env, "GymVariation")
    module, _, attribute = env.partition(":")
    if attribute and all(part.isidentifier() for part in (*module.split("."), *attribute.split("."))):
        found = _factory(env)
        if not callable(found):
            raise TaskError(f"GymVariation: env = {env!r} is {type(found).__name__}, no class nor function")
        return _Named(env)
    if env not in gymnasium.registry and not attribute:
        hint = did_you_mean(env, gymnasium.registry)
        raise TaskError(f"GymVariation: env = {env!r} is not registered with Gymnasium; {hint}your own is module:attr")
    return _Registered(env, horizon)


class _Registered:
    """Makes a registered environment; picklable."""

    def __init__(self, env: str, horizon: int):
        self._env, self._horizon = env, horizon

    def __call__(self, **options: Any) -> gymnasium.Env:
        return gymnasium.make(self._env, max_episode_steps=self._horizon, disable_env_checker=True, **options)


class _Named:
    """Makes the environment that module:attr names; picklable."""

    def __init__(self, target: str):
        self._target = target

    def __call__(self, **options: Any) -> gymnasium.Env:
        made: gymnasium.Env = _factory(self._target)(**options)
        return made


@cache
def _factory(target: str) -> Any:
    """What module:attr names; looked up, and announced, once in a process."""
    return load_target("metarl.task_distributions", target, "environment", TaskError)


def _require_way(name: str, entry: GymEntry) -> None:
    """TaskError unless exactly one way in is named, and values that change in mid-episode go into an attribute."""
    named = [way for way in _WAYS if getattr(entry, way) is not None]
    if len(named) != 1:
        what = f"{' and '.join(named)} exclude each other" if named else "how it gets into the environment is missing"
        raise TaskError(f"parameters.{name}: {what}; give exactly one of {', '.join(_WAYS)}")
    if (entry.at_step is not None or entry.redraw is not None) and named != ["attribute"]:
        raise TaskError(f"parameters.{name}: at_step and redraw need an attribute; {named[0]} is given once alone")
    if not entry.shared:
        raise TaskError(f"parameters.{name}: shared does not apply to parameters of an environment")


def _value(row: np.ndarray) -> Value:
    """The value in a row of an array of values, [] or [size]."""
    return tuple(row.tolist()) if row.ndim else float(row)


def _is_whole(parameter: Parameter) -> bool:
    options = parameter.prior.options if isinstance(parameter.prior, Choice) else None
    return options is not None and all(np.ndim(v) == 0 and float(v).is_integer() for v in options)  # type: ignore[arg-type]


def _set_task(env: Any, values: Mapping[str, Any]) -> None:
    if not callable(getattr(env, "set_task", None)):
        raise TaskError(f"parameters: {type(env).__name__} has no method `set_task`; use attribute, argument or option")
    env.set_task(dict(values))
