"""The `vary`, `parameters` and `effects` sections as YAML writes them, and the parameters that they stand for.

    mass: {field: "body_mass[torso]", mode: scale, prior: {log_uniform: [0.5, 2.0]}, ood: {log_uniform: [2.0, 3.0]}}

Every mistake is a TaskError naming the entry, the key, the value and what is allowed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from metarl.errors import TaskError, did_you_mean
from metarl.tasks.changes import AT_STEP
from metarl.tasks.distribution import Parameter
from metarl.tasks.priors import Choice, InDisc, LogUniform, Mixture, Prior, Uniform, ends_of
from metarl.tasks.task import Value

Mode = Literal["scale", "add", "set", "zero"]
Strings = Annotated[tuple[str, ...], BeforeValidator(lambda v: (v,) if isinstance(v, str) else _tuple_of(v))]
Indices = Annotated[tuple[Annotated[int, Field(ge=0)], ...], BeforeValidator(lambda v: _tuple_of(v))]
_PRIORS = "{uniform: [LOW, HIGH]}, {log_uniform: [LOW, HIGH]}, {choice: [...]}, {disc: RADIUS}, {mixture: [PRIOR, ...]}"
_ALLOWED = {  # of a key, in plain words
    "at_step": f"a whole number from 0, or a prior: {_PRIORS}",
    "columns": "a list of whole numbers from 0, such as [0]",
    "dimensions": "a list of whole numbers from 0, such as [0, 2]",
    "at": "a list of three numbers",
    "shared": "true or false",
} | dict.fromkeys(("prior", "ood", "test"), f"a prior: {_PRIORS}")
_KINDS = ("uniform", "log_uniform", "choice", "disc", "mixture")


class Entry(BaseModel):
    """What all varied quantities have: their priors, and when they change.

    shared: one value for all elements that are named; else one for each.
    at_step: the step of the episode from which the value holds, drawn with the task; before it the robot is unvaried.
    redraw: the probability per step that a new value is drawn from the prior.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)

    prior: dict[str, Any]
    ood: dict[str, Any] | None = None
    test: dict[str, Any] | None = None
    unit: str = ""
    shared: bool = True
    at_step: dict[str, Any] | Annotated[int, Field(ge=0)] | None = None
    redraw: Annotated[float, Field(gt=0, le=1)] | None = None


class FieldEntry(Entry):
    """A field of the MuJoCo model: `field` names it and its elements, or several; None: for the reward alone.

    columns: those of a field with several numbers per element; None: all of them.
    at: where a payload sits, in the frame of its body [m]; None: at its centre of mass.
    """

    field: Strings | None = None
    mode: Mode = "scale"
    columns: Indices | None = None
    at: Annotated[tuple[float, ...], BeforeValidator(lambda v: _tuple_of(v))] | None = None


class EffectEntry(Entry):
    """An effect between policy and physics. dimensions: the actions or observations that it concerns; None: all.

    effect: which one, where the entry's name is another.
    """

    effect: str | None = None
    dimensions: Indices | None = None


class GymEntry(Entry):
    """A parameter of any Gymnasium environment, and the way in which it gets there: exactly one of these.

    argument: a keyword argument of the environment. attribute: an attribute of the unwrapped environment, or several,
        by their paths: `gain`, `inner.gain`, one element of an array as `goal[2]`.
    option: a key of `reset(options=...)`. set_task: a key of what its method `set_task` is given.
    """

    argument: str | None = None
    attribute: Strings | None = None
    option: str | None = None
    set_task: str | None = None


E = TypeVar("E", bound=Entry)


def entries_of(section: Any, kind: type[E], where: str) -> dict[str, E]:
    """The entries of a section by name; TaskError naming the first that is wrong. None is an empty section."""
    if section is None:
        return {}
    if not isinstance(section, Mapping):
        raise TaskError(f"{where} = {section!r}: must be a section of names, such as {where}: {{mass: {{...}}}}")
    return {name: _entry(name, content, kind, where) for name, content in section.items()}


def _entry(name: Any, content: Any, kind: type[E], where: str) -> E:
    if not isinstance(name, str) or not name or not set(",=[]{} ").isdisjoint(name):
        raise TaskError(f"{where}: {name!r} is no name of a parameter: allowed are words without spaces, commas and =")
    if isinstance(content, kind):
        return content
    if not isinstance(content, Mapping):
        raise TaskError(f"{where}.{name} = {content!r}: must be a section with the keys {', '.join(kind.model_fields)}")
    try:
        return kind.model_validate(dict(content))
    except ValidationError as error:
        raise TaskError(_explained(error, content, kind, f"{where}.{name}")) from error


def _explained(error: ValidationError, content: Mapping[str, Any], kind: type[Entry], where: str) -> str:
    """The first mistake in an entry, in one paragraph."""
    details = error.errors()[0]
    key = str(details["loc"][0]) if details["loc"] else ""
    keys = ", ".join(kind.model_fields)
    if details["type"] == "missing":
        return f"{where}: {key} is missing; it has no default. Keys here: {keys}"
    if details["type"] == "extra_forbidden":
        return f"{where}: unknown key {key!r}; {did_you_mean(key, kind.model_fields)}keys here: {keys}"
    if key in _ALLOWED:
        return f"{where}.{key} = {content[key]!r}: must be {_ALLOWED[key]}"
    return f"{where}.{key} = {details['input']!r}: {details['msg'].replace('Input should be', 'must be')}"


def _tuple_of(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


# --- priors ------------------------------------------------------------------------------------------


def prior_of(content: Any, where: str, size: int | None = None) -> Prior:
    """The prior that a mapping such as {uniform: [0.5, 2.0]} describes, of `size` components where that is given."""
    if not isinstance(content, Mapping) or len(content) != 1:
        raise TaskError(f"{where} = {content!r}: must be one prior: {_PRIORS}")
    kind, values = next(iter(content.items()))
    if kind not in _KINDS:
        raise TaskError(f"{where}: unknown prior {kind!r}; {did_you_mean(kind, _KINDS)}allowed: {_PRIORS}")
    try:
        return _prior(str(kind), values, where, size)
    except TaskError as error:
        text = str(error)
        raise TaskError(text if text.startswith(where) else f"{where} = {dict(content)}: {text}") from error


def _prior(kind: str, values: Any, where: str, size: int | None) -> Prior:
    if kind == "mixture":
        if not isinstance(values, list | tuple) or not values:
            raise TaskError("must be a list of priors")
        return Mixture(*(prior_of(part, where, size) for part in values))
    if kind == "disc":
        return InDisc(_numbers([values], 1)[0])
    if kind == "choice":
        if not isinstance(values, list | tuple) or not values:
            raise TaskError("must be a list of values")
        if size is not None:
            raise TaskError("a choice is one value for all: write shared: true, or give uniform or log_uniform")
        return Choice(list(values))
    low, high = _numbers(values, 2)
    return (Uniform if kind == "uniform" else LogUniform)(low, high, size)


def _numbers(values: Any, count: int) -> list[float]:
    is_list = isinstance(values, list | tuple) and len(values) == count
    if not is_list or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        raise TaskError("must be a number" if count == 1 else f"must be [LOW, HIGH], got {values!r}")
    return [float(v) for v in values]


def parameters_of(
    name: str,
    entry: Entry,
    where: str,
    size: int | None,
    unit: str,
    limits: tuple[float, float] = (-math.inf, math.inf),
) -> tuple[Parameter, ...]:
    """The parameters of an entry: its value, and, where it changes at a step, `NAME.at_step`."""
    priors = {key: getattr(entry, key) for key in ("prior", "test", "ood")}
    made = {
        key: None if content is None else prior_of(content, f"{where}.{key}", size) for key, content in priors.items()
    }
    prior, test, ood = made["prior"], made["test"], made["ood"]
    assert prior is not None
    if ood is not None:
        _require_outside(prior, ood, f"{where}.ood")
    value = Parameter(name, prior, entry.unit or unit, test, ood, limits)
    step = _step_prior(entry, where)
    return (value,) if step is None else (value, Parameter(name + AT_STEP, step, "step", limits=(0, math.inf)))


def _require_outside(prior: Prior, ood: Prior, where: str) -> None:
    """TaskError where the ood range lies inside the training range."""
    rng = np.random.Generator(np.random.Philox(0))
    drawn: list[Value] = [ood.sample(rng) for _ in range(100)]
    if all(prior.contains(value) for value in drawn):
        raise TaskError(f"{where} = {ood} lies inside the training range {prior}: it must reach outside of it")


def require_within(parameters: Sequence[Parameter], horizon: int) -> None:
    """TaskError where names are used twice, or where a change can only come after the end of an episode."""
    names = [parameter.name for parameter in parameters]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise TaskError(f"{', '.join(twice)}: named both in vary and in effects; names must differ")
    for parameter in parameters:
        if parameter.name.endswith(AT_STEP) and ends_of(parameter.prior)[0].min() >= horizon:
            raise TaskError(
                f"{parameter.name} = {parameter.prior}: the change never happens: the horizon is {horizon} steps; make "
                "it longer, or the step smaller"
            )


def _step_prior(entry: Entry, where: str) -> Prior | None:
    if entry.at_step is None:
        return None
    if entry.redraw is not None:
        raise TaskError(
            f"{where}: at_step and redraw exclude each other: a value changes at one step, or again and again"
        )
    prior = Choice((entry.at_step,)) if isinstance(entry.at_step, int) else prior_of(entry.at_step, f"{where}.at_step")
    low, _ = ends_of(prior)
    if len(low) != 1 or low[0] < 0:
        raise TaskError(f"{where}.at_step = {prior}: must be steps of an episode, 0 or more")
    return prior
