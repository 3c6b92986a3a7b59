"""Finding task distributions: by entry point (group `metarl.task_distributions`) or by `module:attr`."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

from metarl.errors import TaskError
from metarl.tasks.distribution import TaskDistribution

GROUP = "metarl.task_distributions"
_log = logging.getLogger(__name__)


def available_distributions() -> dict[str, str]:
    """Registered names and the `module:attr` each stands for, sorted by name. Imports none of them."""
    return {entry.name: entry.value for entry in sorted(entry_points(group=GROUP), key=lambda e: e.name)}


def load_distribution(name: str, **kwargs: Any) -> TaskDistribution:
    """The task distribution registered as `name`, or built by `module:attr`, with keyword arguments.

    `attr` may be a TaskDistribution subclass, a function returning one, or an instance. TaskError
    where it cannot be found, imported or built.
    """
    registered = available_distributions()
    target = registered.get(name, name)
    if ":" not in target:
        known = ", ".join(registered) or "none installed"
        raise TaskError(f"unknown task distribution {name!r}; known: {known}; or name your own as module:attr")
    if name not in registered:
        _log.warning("importing task distribution code from %s", target)
    factory = _import(target)
    if isinstance(factory, TaskDistribution):
        if kwargs:
            raise TaskError(f"{target} is already an instance and takes no options, got {sorted(kwargs)}")
        return factory
    try:
        distribution = factory(**kwargs)
    except TypeError as error:
        raise TaskError(f"{name}: options {kwargs} do not fit: {error}") from error
    if not isinstance(distribution, TaskDistribution):
        raise TaskError(f"{target} gave {type(distribution).__name__}, not a TaskDistribution")
    return distribution


def _import(target: str) -> Callable[..., Any] | TaskDistribution:
    module_name, _, attribute = target.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise TaskError(f"cannot import {module_name!r} of {target!r}: {error}") from error
    if not hasattr(module, attribute):
        names = [n for n, v in vars(module).items() if isinstance(v, type) and issubclass(v, TaskDistribution)]
        raise TaskError(f"{module_name!r} has no {attribute!r}; task distributions there: {', '.join(names) or 'none'}")
    return getattr(module, attribute)
