"""What is wrong with a configuration: one line per key, with its value and what is allowed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from metarl.config.migrate import moved_key, moved_value
from metarl.errors import did_you_mean

_LONGEST_VALUE = 80
_NOT_A_SECTION = ("model_type", "dict_type", "model_attributes_type")


@dataclass(frozen=True)
class _Place:
    """Where an error lies, by pydantic's location: the key without the tags of unions that pydantic puts in."""

    key: tuple[str, ...]
    section: type[BaseModel] | None  # that holds the key's last part; None inside free-form values
    field: FieldInfo | None  # of the key's last part
    tag: str | None  # where `section` is one of several choices: its name
    choices: dict[str, type[BaseModel]]  # and all of them


def explain(error: ErrorDetails, model: type[BaseModel], prefix: Sequence[str]) -> tuple[str, str]:
    """The key and `key = value: what is allowed` of an error that pydantic found in `model`, the section `prefix`."""
    found = _locate(model, error["loc"])
    key = ".".join((*prefix, *found.key))
    return key, _explain(error, found, key, prefix)


def _explain(error: ErrorDetails, found: _Place, key: str, prefix: Sequence[str]) -> str:
    kind, value = error["type"], shortened(error["input"])
    choices = choices_of(found.field.annotation) if found.field is not None else {}
    if kind == "missing":
        return f"{key} is missing; it has no default"
    if kind == "extra_forbidden":
        return f"{key} = {value}: {_why_unknown(found, prefix)}"
    if kind == "union_tag_not_found":
        return f"{key}.name is missing; allowed: {', '.join(choices)}"
    if kind == "union_tag_invalid":
        tag = error["input"]["name"]
        allowed = ", ".join(choices)
        return f"{key}.name = {shortened(tag)}: unknown; {did_you_mean(tag, choices)}allowed: {allowed}"
    if kind in _NOT_A_SECTION:
        return f"{key} = {value}: must be a section, such as {_example(error['input'], found, choices)}"
    if kind == "value_error":
        return f"{key}: {error['msg'].removeprefix('Value error, ')}"
    message = error["msg"].replace("Input should be", "must be").replace("valid tuple", "list")
    if new := moved_value(key, error["input"]):
        message += f"; it is {new} now"
    return f"{key} = {value}: {message}"


def shortened(value: Any) -> str:
    """A value as messages show it."""
    try:
        text = repr(value)
    except ValueError:  # a whole number of thousands of digits
        return "a number that is too long"
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."


def choices_of(annotation: Any) -> dict[str, type[BaseModel]]:
    """The sections that a key can hold, by the `name` that chooses each; empty where there is no choice."""
    found = {tag: section for section in sections_of(annotation) for tag in _names_of(section)}
    return found if len(found) > 1 else {}


def sections_of(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections among an annotation's alternatives."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) is Annotated:
        yield from sections_of(get_args(annotation)[0])
    else:
        for part in get_args(annotation):
            yield from sections_of(part)


def _names_of(section: type[BaseModel]) -> tuple[str, ...]:
    name = section.model_fields.get("name")
    return tuple(arg for arg in get_args(name.annotation) if isinstance(arg, str)) if name is not None else ()


def _example(value: Any, found: _Place, choices: dict[str, type[BaseModel]]) -> str:
    """How the section that stands here looks; the chosen one where the value is the name of a choice."""
    word = found.key[-1]
    if choices:
        chosen = value if isinstance(value, str) and value in choices else next(iter(choices))
        return f"{word}: {{name: {chosen}}}, with name one of {', '.join(choices)}"
    sections = list(sections_of(found.field.annotation)) if found.field is not None else []
    if sections:
        return f"{word}: {{{', '.join(f'{name}: ...' for name in list(sections[0].model_fields)[:2])}}}"
    return f"{word}: {{key: value}}"


def _why_unknown(found: _Place, prefix: Sequence[str]) -> str:
    """Why a section does not know a key: it was renamed, belongs to another choice, lies deeper, or is misspelt."""
    *parents, word = (*prefix, *found.key)
    valid = list(found.section.model_fields) if found.section is not None else []
    keys_here = f"valid keys here: {', '.join(valid)}"
    owners = [name for name, other in found.choices.items() if word in other.model_fields]
    if owners:
        chosen = f"{'.'.join((*parents, 'name'))} = {found.tag}"
        return f"does not apply to {chosen}; it belongs to {', '.join(owners)}; {keys_here}"
    if new := moved_key((*parents, word), valid):
        return f"it is {new} now"
    for name, field in found.section.model_fields.items() if found.section is not None else ():
        choices = choices_of(field.annotation)
        inner = [tag for tag, section in choices.items() if word in section.model_fields]
        if inner:
            return f"it is {'.'.join((*parents, name, word))}, of name {' or '.join(inner)}"
    return f"unknown key; {did_you_mean(word, valid)}{keys_here}"


def _locate(model: type[BaseModel], loc: Sequence[int | str]) -> _Place:
    key: list[str] = []
    section: type[BaseModel] | None = model
    field: FieldInfo | None = None
    tag: str | None = None
    choices: dict[str, type[BaseModel]] = {}
    rest = [part for part in loc if part != "[key]"]
    while rest:
        part = str(rest.pop(0))
        key.append(part)
        field = section.model_fields.get(part) if section is not None else None
        if not rest or field is None:
            section = section if not rest else None
            continue
        choices = choices_of(field.annotation)
        tag = str(rest.pop(0)) if rest[0] in choices else None
        section = choices[tag] if tag is not None else next(sections_of(field.annotation), None)
        if not rest:
            return _Place(tuple(key), section, field, tag, choices)
        if section is None and isinstance(rest[0], str) and not _is_mapping(field.annotation):
            rest.pop(0)  # the type's name, of a union of plain values
    return _Place(tuple(key), section, field, tag, choices)


def _is_mapping(annotation: Any) -> bool:
    return annotation is dict or get_origin(annotation) is dict
