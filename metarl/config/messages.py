"""What is wrong with a configuration: one line per key, with its value and what is allowed."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Sequence
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

_Choice = tuple[str, dict[str, type[BaseModel]]]  # a section's tag, and all sections that it was chosen from
_KINDS = {"model_type": "a section", "dict_type": "a section", "model_attributes_type": "a section"}


def explain(error: ErrorDetails, model: type[BaseModel], prefix: Sequence[str], place: str) -> str:
    """`place: key = value: what is allowed`, of one error that pydantic found in `model`, whose section is `prefix`."""
    parts, section, choice = _walk(model, error["loc"])
    key, kind = ".".join((*prefix, *parts)), error["type"]
    if kind == "missing":
        return f"{place}: {key} is missing; it has no default"
    if kind == "extra_forbidden":
        return f"{place}: {key} = {error['input']!r}: {_unknown(parts, section, choice, prefix)}"
    if kind == "union_tag_not_found":
        return f"{place}: {key}.name is missing; allowed: {_tags(error)}"
    if kind == "union_tag_invalid":
        tag = error["ctx"]["tag"]
        allowed = _tags(error)
        return f"{place}: {key}.name = {tag!r}: unknown;{did_you_mean(tag, allowed.split(', '))} allowed: {allowed}"
    if kind in _KINDS and section is not None:
        shape = "{" + ", ".join(f"{name}: ..." for name in list(section.model_fields)[:2]) + "}"
        return f"{place}: {key} = {error['input']!r}: must be a section, such as {shape}"
    message = error["msg"][:1].lower() + error["msg"][1:]
    if kind == "value_error":
        message = message.removeprefix("value error, ")
        return f"{place}: {key}: {message}"
    return f"{place}: {key} = {error['input']!r}: {message}"


def did_you_mean(word: Any, known: Collection[str]) -> str:
    """` did you mean 'x'?` where a known word is near, else nothing."""
    close = difflib.get_close_matches(str(word), list(known), n=1)
    return f" did you mean {close[0]!r}?" if close else ""


def _tags(error: ErrorDetails) -> str:
    expected = error.get("ctx", {}).get("expected_tags", "")
    return str(expected).replace("'", "")


def _unknown(
    parts: Sequence[str],
    section: type[BaseModel] | None,
    choice: _Choice | None,
    prefix: Sequence[str],
) -> str:
    """Why a key is not allowed in `section`: it belongs to another choice, or to nothing."""
    valid = list(section.model_fields) if section is not None else []
    word = parts[-1]
    if choice is not None:
        tag, others = choice
        owners = [name for name, other in others.items() if word in other.model_fields]
        where = ".".join((*prefix, *parts[:-1], "name"))
        if owners:
            belongs = f"does not apply to {where} = {tag}; it belongs to {', '.join(owners)}"
            return f"{belongs}; valid keys here: {', '.join(valid)}"
    return f"unknown key;{did_you_mean(word, valid)} valid keys here: {', '.join(valid)}"


def _walk(model: type[BaseModel], loc: Sequence[int | str]) -> tuple[list[str], type[BaseModel] | None, _Choice | None]:
    """The key's parts without the tags that pydantic puts in, the section that holds the key (or that it should be),
    and, where that section is one of several choices, its tag and all choices."""
    parts: list[str] = []
    section: type[BaseModel] | None = model
    choice: _Choice | None = None
    rest = list(loc)
    while rest:
        part = rest.pop(0)
        parts.append(str(part))
        field = section.model_fields.get(str(part)) if section is not None else None
        if field is None:
            if rest:
                section = None
            continue
        options = {tag: found for found in _sections(field.annotation) for tag in _tag_of(found)}
        if len(options) > 1 and rest and rest[0] in options:
            tag = str(rest.pop(0))
            section, choice = options[tag], (tag, options)
        else:
            inner = next(_sections(field.annotation), None)
            if inner is not None:
                section, choice = inner, None
            elif rest:
                section, choice = None, None
    return parts, section, choice


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections among an annotation's alternatives."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) is Annotated:
        yield from _sections(get_args(annotation)[0])
    else:
        for part in get_args(annotation):
            yield from _sections(part)


def _tag_of(section: type[BaseModel]) -> tuple[str, ...]:
    name = section.model_fields.get("name")
    return tuple(map(str, get_args(name.annotation))) if name is not None else ()
