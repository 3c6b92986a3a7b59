"""Finding task distributions: by entry point (group `metarl.task_distributions`) or by `module:attr`."""

from __future__ import annotations

import inspect
from typing import Any

from metarl.errors import TaskError
from metarl.plugins import available, load_target, plugin_errors
from metarl.tasks.distribution import TaskDistribution, require_description

GROUP = "metarl.task_distributions"


def available_distributions() -> dict[str, str]:
    """Registered names and the `module:attr` each stands for, sorted by name. Imports none of them."""
    return available(GROUP)


def load_distribution(name: str, **kwargs: Any) -> TaskDistribution:
    """The task distribution registered as `name`, or built by `module:attr`, with keyword arguments.

    `attr` may be a TaskDistribution subclass, a function returning one, or an instance. TaskError where it cannot be
    found, imported or built, with the file and line in the user's code, and where it lacks what it must state.
    """
    factory = load_target(GROUP, name, "task distribution", TaskError)
    if isinstance(factory, TaskDistribution):
        if kwargs:
            raise TaskError(f"{name} is already an instance and takes no options, got {sorted(kwargs)}")
        distribution: Any = factory
    else:
        distribution = _built(name, factory, kwargs)
    if not isinstance(distribution, TaskDistribution):
        raise TaskError(f"{name} gave {type(distribution).__name__}, not a TaskDistribution")
    with plugin_errors(f"{name}: reading name, parameters and horizon", TaskError):
        require_description(distribution)
    return distribution


def _built(name: str, factory: Any, kwargs: dict[str, Any]) -> Any:
    if not callable(factory):
        raise TaskError(f"{name} is {type(factory).__name__}, not a TaskDistribution nor a function returning one")
    if inspect.isabstract(factory):
        missing = ", ".join(sorted(factory.__abstractmethods__))
        raise TaskError(f"{name}: the class {factory.__name__} does not define {missing}")
    _require_options(name, factory, kwargs)
    with plugin_errors(f"{name}: building it", TaskError):
        return factory(**kwargs)


def _require_options(name: str, factory: Any, kwargs: dict[str, Any]) -> None:
    """TaskError naming the options that there are, where `kwargs` do not fit."""
    try:
        signature, (known, is_open) = inspect.signature(factory), _options_of(factory)
    except (TypeError, ValueError):  # without a signature: a builtin
        return
    unknown = [] if is_open else [option for option in kwargs if option not in known]
    try:
        signature.bind(**kwargs)
        problem = f"no option {', '.join(unknown)}" if unknown else ""
    except TypeError as error:
        problem = str(error)
    if problem:
        raise TaskError(f"{name}: options {kwargs} do not fit: {problem}; there are: {', '.join(known) or 'none'}")


def _options_of(factory: Any) -> tuple[list[str], bool]:
    """The keyword arguments, and whether any other is taken too. Where a class hands **kwargs on, those of the next
    constructor count."""
    names: list[str] = []
    functions = [factory]
    if inspect.isclass(factory):
        functions = [vars(kind)["__init__"] for kind in factory.__mro__[:-1] if "__init__" in vars(kind)]
    for function in functions:
        parameters = list(inspect.signature(function).parameters.values())
        kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        names += [p.name for p in parameters if p.kind in kinds and p.name != "self" and p.name not in names]
        if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
            return names, False
    return names, bool(functions)
