"""Whether a step was a success, as environments report it in the step's info."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metarl.errors import EnvironmentFault
from metarl.tasks.task import Task

SUCCESS_KEYS = ("success", "is_success")  # the second counts where the first is missing: Gymnasium-Robotics' name


def reported_success(info: Any) -> tuple[str, Any] | None:
    """The key and the value under which `info` reports success; None where it reports none."""
    if not isinstance(info, Mapping):
        return None
    return next(((key, info[key]) for key in SUCCESS_KEYS if info.get(key) is not None), None)


def success_of_step(info: Any, task: Task) -> bool | None:
    """What one environment's `info` reports; None where it reports none. EnvironmentFault where that is anything but
    True, False, 1 or 0."""
    reported = reported_success(info)
    if reported is None:
        return None
    key, value = reported
    if value is True or value is False:
        return bool(value)
    flags, is_wrong = _flags(value)
    if flags.ndim or is_wrong.any():
        raise _fault(key, value, task)
    return bool(flags)


def successes_of_step(info: Any, tasks: Sequence[Task]) -> np.ndarray | None:
    """The same of a batch with one environment of each of `tasks`: bool [n]."""
    reported = reported_success(info)
    if reported is None:
        return None
    key, values = reported
    flags, is_wrong = _flags(values)
    if flags.shape != (len(tasks),):
        raise EnvironmentFault(f'info["{key}"] has shape {flags.shape}, must be ({len(tasks)},): one per environment')
    if is_wrong.any():
        row = int(np.argmax(is_wrong))
        raise _fault(key, np.asarray(values)[row].item(), tasks[row])
    return flags


def _flags(value: Any) -> tuple[np.ndarray, np.ndarray]:
    """`value` [...] as bool, and where it is neither True, False, 1 nor 0, bool [...] each."""
    try:
        values = np.asarray(value)
    except ValueError:  # rows of different lengths
        values = np.empty((), dtype=object)
    if values.dtype.kind not in "biuf":
        return np.zeros(values.shape, bool), np.ones(values.shape, bool)
    return values == 1, (values != 0) & (values != 1)


def _fault(key: str, value: Any, task: Task) -> EnvironmentFault:
    text = repr(value)
    shown = text if len(text) < 60 else f"{text[:57]}..."
    return EnvironmentFault(f'{task}: step returned info["{key}"] = {shown}; allowed: True, False, 1 or 0')
