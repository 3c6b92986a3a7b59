"""Attributes of an environment by their path: `gravity`, `inner.gain`, one element of an array as `goal[2]`.

What is set has the shape that the environment's own value has, and is of its type where that is a list or a tuple.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from metarl.errors import TaskError, did_you_mean
from metarl.plugins import describe

_ELEMENT = re.compile(r"(?P<path>[^\[\]]+)\[(?P<index>\s*\d+\s*(,\s*\d+\s*)*)\]")


@dataclass(frozen=True)
class Attribute:
    """A path from the environment. index: that of one element of an array; None for the whole attribute."""

    where: str
    path: str
    index: tuple[int, ...] | None = None

    @staticmethod
    def of(text: str, where: str) -> Attribute:
        """The attribute that `inner.goal[2]` names; TaskError where it is no path."""
        found = _ELEMENT.fullmatch(text.strip())
        path = text.strip() if found is None else found["path"]
        if not all(part.isidentifier() for part in path.split(".")):
            raise TaskError(
                f"{where} = {text!r}: must be names with dots, such as inner.gain, and for one element of an array its "
                "index, such as goal[2]"
            )
        index = None if found is None else tuple(int(part) for part in found["index"].split(","))
        return Attribute(f"{where} = {text!r}", path, index)

    def own_value(self, env: Any) -> Any:
        """What the environment has there; TaskError suggesting the nearest names, or saying which elements it has."""
        value = self._whole(env)
        if self.index is None:
            return value
        array = _numbers(value)
        if array is None:
            raise TaskError(f"{self._in(env)} is {_kind(value)} and has no elements; write {self.path}")
        if len(self.index) != array.ndim or any(i >= n for i, n in zip(self.index, array.shape, strict=True)):
            raise TaskError(f"{self._in(env)} has no such element: {_elements(self.path, array.shape)}")
        return array[self.index].item()

    def set(self, env: Any, value: Any) -> None:
        """Give the environment `value`, [] or [n]; TaskError where its shape is not that of what it replaces."""
        own = self._whole(env)
        array = _numbers(own)
        if array is None and (own is not None or self.index is not None):
            raise TaskError(
                f"{self._in(env)} is {_kind(own)}; allowed are numbers, and arrays, lists and tuples of them"
            )
        if self.index is None:
            if array is not None and np.shape(value) != array.shape:
                raise TaskError(f"{self._in(env)} {_mismatch(self.path, array.shape, np.shape(value))}")
        else:
            assert array is not None
            if np.ndim(value):
                raise TaskError(f"{self._in(env)} is one number, and its prior draws {len(value)}")
            value = _with_element(array, self.index, value)
        self._set(env, _like(own, value))

    def put_back(self, env: Any, own: Any) -> None:
        """Give the environment its `own_value` again."""
        if self.index is None:
            self._set(env, own)
        else:
            self.set(env, own)

    def _whole(self, env: Any) -> Any:
        *parents, last = self.path.split(".")
        try:
            return getattr(reduce(getattr, parents, env), last)
        except AttributeError:
            owner = env
            for part in parents:
                owner = getattr(owner, part, owner)
            known = [n for n in dir(owner) if not n.startswith("_") and not _is_method(owner, n)]
            hint = did_you_mean(last, known)
            there = ", ".join(known)
            raise TaskError(
                f"{self.where}: {type(env).__name__} has no such attribute; {hint}there are: {there}"
            ) from None
        except Exception as error:
            raise TaskError(f"{self._in(env)} cannot be read: {describe(error)}") from error

    def _set(self, env: Any, value: Any) -> None:
        *parents, last = self.path.split(".")
        try:
            setattr(reduce(getattr, parents, env), last, value)
        except Exception as error:
            raise TaskError(
                f"{self._in(env)} cannot be set to {_shown(value)}: {describe(error)}; use another attribute, or "
                "argument, option or set_task"
            ) from error

    def _in(self, env: Any) -> str:
        return f"{self.where}: {self.path} of {type(env).__name__}"


def require_apart(attributes: Mapping[str, Sequence[Attribute]]) -> None:
    """TaskError where two parameters set the same number: the first one's value would be lost."""
    seen: list[tuple[str, Attribute]] = []
    for name, own in attributes.items():
        for attribute in own:
            for other, earlier in seen:
                is_apart = None not in (attribute.index, earlier.index) and attribute.index != earlier.index
                if attribute.path == earlier.path and not is_apart:
                    raise TaskError(
                        f"{attribute.where}: parameters.{other} sets it too; give each parameter an attribute of its "
                        f"own, or an element such as {attribute.path}[0]"
                    )
            seen.append((name, attribute))


def _is_method(owner: Any, name: str) -> bool:
    """Looked up without running properties, which may raise."""
    return inspect.isroutine(inspect.getattr_static(owner, name, None))


def _numbers(value: Any) -> np.ndarray | None:
    """The value as an array of numbers; None where it is none."""
    try:
        array = np.asarray(value)
    except Exception:  # lists of lists of different lengths, and what refuses to be an array
        return None
    return array if array.dtype.kind in "biuf" else None


def _with_element(array: np.ndarray, index: tuple[int, ...], value: Any) -> np.ndarray:
    """A copy with another element, of a type that can hold it: 0.5 makes whole numbers float64."""
    is_fraction = isinstance(value, float) and array.dtype.kind != "f"
    dtype = np.float64 if is_fraction else np.result_type(array.dtype, np.min_scalar_type(value))
    changed = array.astype(dtype)
    changed[index] = value
    return changed


def _like(own: Any, value: Any) -> Any:
    """The value as a list or a tuple, where the environment's own is one."""
    if isinstance(own, list) and isinstance(value, np.ndarray):
        return value.tolist()
    return tuple(value.tolist()) if type(own) is tuple and isinstance(value, np.ndarray) else value


def _mismatch(path: str, own: tuple[int, ...], given: tuple[int, ...]) -> str:
    """How the shapes of an attribute and of a parameter's values differ, and what to write."""
    values = "its values are single numbers" if not given else f"its prior draws {given[0]} numbers"
    if not own:
        return f"is a single number, and {values}: give it a prior of one number"
    drawn = f", or draw lists of {own[0]} numbers: prior: {{choice: [[...], ...]}}" if len(own) == 1 else ""
    return f"is an array of shape {own}, and {values}: {_elements(path, own)}{drawn}"


def _elements(path: str, shape: tuple[int, ...]) -> str:
    if not shape:
        return f"it is a single number: write {path}"
    if 0 in shape:
        return f"it has shape {shape} and no element"
    last = ",".join(str(n - 1) for n in shape)
    return f"write one element as {path}[{','.join('0' * len(shape))}] to {path}[{last}]"


def _kind(value: Any) -> str:
    return f"{type(value).__name__}, no number"


def _shown(value: Any) -> str:
    return str(value.tolist() if isinstance(value, np.ndarray) else value)
