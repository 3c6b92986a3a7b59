"""`key.sub=value`: one key of a configuration set on the command line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from metarl.config import scalars
from metarl.config.messages import shortened
from metarl.errors import ConfigError


def set_keys(data: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of `data` with every `key.sub=value` set. A value replaces what is there, a section and a list too.

    ConfigError naming the override where it is not of that form, or where the key leads into a value.
    """
    result: Any = dict(data)
    for text in overrides:
        key, value = parse_override(text)
        result = _with(result, key.split("."), value, text)
    return dict(result)


def parse_override(
    text: str, kind: str = "override", form: str = "key.sub=value", example: str = "training.iterations=100"
) -> tuple[str, Any]:
    """The key and the value of `key.sub=value`; ConfigError where it is something else.

    `kind`, `form` and `example` are what the message calls it, the form that it should have, and one that has it.
    """
    place = f"{kind} {shortened(text)}"
    key, equals, value = text.partition("=")
    if not equals or not all(key.split(".")):
        raise ConfigError(f"{place}: expected {form}, for example {example}")
    if any(character in key for character in "[]{}$'\" "):
        raise ConfigError(f"{place}: expected {form} with plain words and dots as the key, for example {example}")
    try:
        parsed = scalars.parse(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"{place}: invalid YAML value: {error}") from error
    refuse_interpolation({key: parsed}, place)
    return key, parsed


def refuse_interpolation(data: Any, place: str) -> None:
    """ConfigError where any key or value looks as if it were to be filled in: values are taken literally."""
    for key, value in _leaves(data):
        for what in (f"key {key!r}" if "${" in key else "", f"{key} = {value!r}" if _is_interpolation(value) else ""):
            if what:
                raise ConfigError(
                    f"{place}: {what}: values are taken literally, interpolation (${{...}}, ???) is not allowed"
                )


def _is_interpolation(value: Any) -> bool:
    return isinstance(value, str) and ("${" in value or value == "???")


def _leaves(data: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of everything in sections and lists that is neither."""
    items = data.items() if isinstance(data, Mapping) else enumerate(data) if isinstance(data, list) else None
    if items is None:
        yield prefix, data
        return
    for key, value in items:
        yield from _leaves(value, f"{prefix}.{key}" if prefix else str(key))


def _with(data: Any, path: Sequence[str], value: Any, text: str) -> Any:
    """`data` with the value at `path` replaced. Sections that are missing, or null, are made."""
    if not path:
        return value
    first, rest = path[0], path[1:]
    if data is None:
        data = {}
    if isinstance(data, dict):
        return {**data, first: _with(data.get(first), rest, value, text)}
    key = text.partition("=")[0]
    if isinstance(data, list):
        if not (first.isascii() and first.isdigit() and int(first) < len(data)):
            allowed = f"0 to {len(data) - 1}" if data else "none"
            raise ConfigError(f"override {text!r}: {key}: a list has no entry {first!r}; allowed: {allowed}")
        index = int(first)
        return [*data[:index], _with(data[index], rest, value, text), *data[index + 1 :]]
    raise ConfigError(f"override {text!r}: {key}: {first!r} cannot be set in the value {data!r}, which is no section")
