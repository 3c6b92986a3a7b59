"""A configuration as a person reads it: every key, its value, and what it means."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel

from metarl.config import scalars
from metarl.config.schema import RunConfig

_COLUMN = 44  # where comments begin


def to_commented_yaml(config: RunConfig) -> str:
    """The resolved configuration with each field's description as a comment; loading it gives an equal one."""
    return "\n".join(_lines(config, "")) + "\n"


def _lines(section: BaseModel, indent: str) -> Iterator[str]:
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        is_section = isinstance(value, BaseModel)
        text = f"{name}:" if is_section else scalars.dump_key(name, value)
        yield f"{indent + text:<{_COLUMN}} # {field.description}" if field.description else indent + text
        if is_section:
            yield from _lines(value, f"{indent}  ")
