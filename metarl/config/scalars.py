"""YAML with the scalars of YAML 1.2's core schema: `yes` is a word, `5:30` is no number, `1e-3` is one.

PyYAML follows YAML 1.1, in which `yes` is true, `010` is 8 and `5:30` is 330.
"""

from __future__ import annotations

import re
from typing import Any

import yaml  # type: ignore[import-untyped]


class _Loader(yaml.SafeLoader):
    """Plain data alone; a key that is given twice is an error."""

    yaml_implicit_resolvers: dict[str | None, list[Any]] = {}  # noqa: RUF012  (PyYAML's own name and type)


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("int", r"[-+]?(0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?((0|[1-9][0-9]*)\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?(0|[1-9][0-9]*)[eE][-+]?[0-9]+"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^({_pattern})$"), list(_first))
_Loader.yaml_implicit_resolvers.setdefault("", []).append(("tag:yaml.org,2002:null", re.compile("^$")))


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    loader.flatten_mapping(node)
    result: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if isinstance(key, list | dict):
            raise yaml.constructor.ConstructorError(None, None, "a key must be a word", key_node.start_mark)
        if key in result:
            raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key!r}", key_node.start_mark)
        result[key] = loader.construct_object(value_node, deep=True)
    return result


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    return int(node.value, 0)


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
_Loader.add_constructor("tag:yaml.org,2002:int", _integer)


def parse(text: str) -> Any:
    """The plain data in `text`; yaml.YAMLError where it is no YAML or more than plain data."""
    return yaml.load(text, _Loader)


class _Dumper(yaml.SafeDumper):
    """Writes what `parse` reads back: words that YAML 1.1 takes for numbers are quoted for other readers."""


for _start, _resolvers in _Loader.yaml_implicit_resolvers.items():
    for _name, _regex in _resolvers:
        if _name.endswith(":float"):
            _Dumper.add_implicit_resolver(_name, _regex, [_start])
_Dumper.add_representer(tuple, lambda dumper, value: dumper.represent_list(list(value)))


def dump(data: Any) -> str:
    """`data` as YAML, keys in the order given; tuples become lists."""
    return str(yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True))
