"""Whether varied fields stay physical: masses above 0, no negative friction, ranges in order. And that they vary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metarl.errors import TaskError
from metarl.tasks.distribution import Parameter
from metarl.tasks.priors import Mixture, Prior, ends_of
from metarl.tasks.variation.field_values import changed_fields
from metarl.tasks.variation.fields import KINDS, FieldChange, base_of, names_of

_ALLOWED = {"positive": "above 0", "nonnegative": "0 or more", "any": "finite numbers"}


def require_valid(change: FieldChange, parameter: Parameter, model: Any) -> None:
    """TaskError where a value of the parameter's priors would make the model unphysical, or where none changes it."""
    values = _extremes(parameter, change)
    if change.entry.mode == "zero":
        _require_indices(change, values)
    arrays = changed_fields([change], model, len(values), {change.name: values})
    for field, array in arrays.items():
        if field not in KINDS:
            continue
        bad = _unphysical(field, array, model)
        if bad.any():
            row, index = (int(i) for i in np.argwhere(bad)[0])
            raise TaskError(
                f"{change.where}: with the value {_shown(values[row])} of its priors, "
                f"{_would_be(field, array[row, index], index, model)}"
            )
    if all(np.array_equal(array, np.broadcast_to(_base(model, field), array.shape)) for field, array in arrays.items()):
        where = ", ".join(name for address in change.addresses for name in address.names if name)
        raise TaskError(
            f"{change.where}: it changes nothing: {change.addresses[0].field} is 0 in the model at "
            f"{where or 'the world'}, and 0 scaled is 0; use mode: set or mode: add"
        )


def require_physical(arrays: Mapping[str, np.ndarray], model: Any, names: Sequence[object]) -> None:
    """TaskError naming the task whose values make a field unphysical: one outside the priors, or several together."""
    for field, array in arrays.items():
        bad = _unphysical(field, array, model) if field in KINDS else np.zeros((1, 1), bool)
        if bad.any():
            row, index = (int(i) for i in np.argwhere(bad)[0])
            raise TaskError(
                f"{names[row]}: with these values {_would_be(field, array[row, index], index, model)}. Choose other "
                "values, or narrow the priors that hold them"
            )


def _would_be(field: str, value: np.ndarray, index: int, model: Any) -> str:
    """What is wrong with a row of a field, and what is allowed."""
    element = KINDS[field].element
    name = names_of(model, element)[_element_of(field, index, model)] if element else "the world"
    return f"{field} of {name} would be {_shown(np.atleast_1d(value))}; allowed: {_allowed(field)}"


def _unphysical(field: str, array: np.ndarray, model: Any) -> np.ndarray:
    """Which rows [n, rows] break the field's bound. What the model itself says (the world's mass is 0) is allowed."""
    base = _base(model, field)
    bound = KINDS[field].bound
    if field == "jnt_range":
        return np.asarray((array[..., 0] >= array[..., 1]) & (model.jnt_limited != 0))
    wrong = ~np.isfinite(array)
    if bound != "any":
        wrong |= (array <= 0) if bound == "positive" else (array < 0)
    wrong &= array != base
    return np.asarray(wrong.any(axis=tuple(range(2, wrong.ndim))))


def _allowed(field: str) -> str:
    return "a lower end below the upper one" if field == "jnt_range" else _ALLOWED[KINDS[field].bound]


def _base(model: Any, field: str) -> np.ndarray:
    return base_of(model, field) if field in KINDS else np.array(getattr(model, field), dtype=np.float64)


def _element_of(field: str, row: int, model: Any) -> int:
    return int(model.dof_jntid[row]) if field.startswith("dof_") else row


def _extremes(parameter: Parameter, change: FieldChange) -> np.ndarray:
    """The ends of the parameter's priors, and all options of finite ones, [n] or [n, size]."""
    values: list[Any] = []
    for prior in (parameter.prior, parameter.test, parameter.ood):
        for part in _parts(prior) if prior is not None else ():
            options = part.options
            values += list(options) if options is not None else [_plain(end, change.size) for end in ends_of(part)]
    shapes = {np.shape(value) for value in values}
    if shapes != {() if change.size is None else (change.size,)}:
        raise TaskError(
            f"{change.where}.prior = {parameter.prior}: its values must be numbers, one for all elements "
            f"({change.num_elements} here)"
        )
    return np.array(values, dtype=np.float64)


def _parts(prior: Prior) -> tuple[Prior, ...]:
    return prior.parts if isinstance(prior, Mixture) else (prior,)


def _plain(end: np.ndarray, size: int | None) -> Any:
    return float(end[0]) if size is None else tuple(np.broadcast_to(end, size))


def _require_indices(change: FieldChange, values: np.ndarray) -> None:
    count = change.num_elements
    wrong = [value for value in values.ravel() if value != int(value) or not -1 <= value < count]
    if wrong:
        raise TaskError(
            f"{change.where}.prior: {wrong[0]:g} is no index of an element; allowed: 0 to {count - 1} "
            f"({', '.join(change.addresses[0].names)}), and -1 for none"
        )


def _shown(value: Any) -> str:
    return np.array2string(np.asarray(value), precision=4)
