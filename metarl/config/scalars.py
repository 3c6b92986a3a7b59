"""YAML with the scalars of YAML 1.2's core schema: `yes` is a word, `5:30` is no number, `1e-3` is one.

PyYAML follows YAML 1.1, in which `yes` is true, `010` is 8 and `5:30` is 330.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

_PLAIN = ("null", "bool", "int", "float", "str", "seq", "map")  # no dates, sets or binary data
_LINE_BREAKS = frozenset("\x85\u2028\u2029")
_SCALARS = {  # tag: pattern, characters that such a scalar can start with
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "null": (r"~|null|Null|NULL", "~nN"),
    "int": (r"[-+]?(0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    "float": (
        r"[-+]?((0|[1-9][0-9]*)\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?(0|[1-9][0-9]*)[eE][-+]?[0-9]+"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
}


def _tag(name: str) -> str:
    return f"tag:yaml.org,2002:{name}"


class _Loader(yaml.SafeLoader):
    """Plain data alone; a key that is given twice is an error. `<<` merges, as many YAML files expect."""

    yaml_implicit_resolvers: dict[str | None, list[Any]] = {}  # noqa: RUF012  (PyYAML's own name and type)
    yaml_constructors = {  # noqa: RUF012
        tag: constructor
        for tag, constructor in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag in map(_tag, _PLAIN)
    }


for _name, (_pattern, _first) in _SCALARS.items():
    _Loader.add_implicit_resolver(_tag(_name), re.compile(f"^(?:{_pattern})$"), list(_first))
_Loader.add_implicit_resolver(_tag("null"), re.compile("^$"), [""])
_Loader.add_implicit_resolver(_tag("merge"), re.compile("^<<$"), ["<"])


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    if not isinstance(node, yaml.MappingNode):
        raise yaml.constructor.ConstructorError(None, None, "expected keys and values", node.start_mark)
    own = [key_node for key_node, _ in node.value if key_node.tag != _tag("merge")]
    seen: set[Any] = set()
    for key_node in own:
        key = loader.construct_object(key_node, deep=True)
        if isinstance(key, list | dict):
            raise yaml.constructor.ConstructorError(None, None, "a key must be a word", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key!r}", key_node.start_mark)
        seen.add(key)
    loader.flatten_mapping(node)  # puts merged keys first, so that own ones replace them
    return {loader.construct_object(k, deep=True): loader.construct_object(v, deep=True) for k, v in node.value}


def _sequence(loader: _Loader, node: yaml.SequenceNode) -> list[Any]:
    return [*loader.construct_sequence(node, deep=True)]  # a list that holds itself is refused


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    return int(node.value, 0)


_Loader.add_constructor(_tag("map"), _mapping)
_Loader.add_constructor(_tag("seq"), _sequence)
_Loader.add_constructor(_tag("int"), _integer)


def parse(text: str) -> Any:
    """The plain data in `text`; yaml.YAMLError where it is no YAML or more than plain data."""
    try:
        return yaml.load(text, _Loader)
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        raise yaml.YAMLError(f"a value does not fit its tag: {error}") from error  # such as `!!int x`
    except RecursionError as error:
        raise yaml.YAMLError("nested too deeply") from error


class _Dumper(yaml.SafeDumper):
    """Writes what `parse` reads back; words that YAML 1.1 takes for numbers are quoted for other readers."""

    def ignore_aliases(self, data: Any) -> bool:
        """Shared lists and sections are written out each time."""
        return True


for _name, (_pattern, _first) in _SCALARS.items():
    _Dumper.add_implicit_resolver(_tag(_name), re.compile(f"^(?:{_pattern})$"), list(_first))


def _word(dumper: _Dumper, value: str) -> yaml.ScalarNode:
    """Line breaks of Unicode are escaped: in other styles PyYAML folds them, and reads a space back."""
    style = '"' if _LINE_BREAKS.intersection(value) else None
    return dumper.represent_scalar(_tag("str"), value, style=style)


_Dumper.add_representer(str, _word)
_Dumper.add_representer(tuple, lambda dumper, value: dumper.represent_list(list(value)))


def dump(data: Any) -> str:
    """`data` as YAML, keys in the order given; tuples become lists."""
    return str(yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True))


def dump_key(key: str, value: Any) -> str:
    """`key: value` on one line, sections and lists in braces and brackets."""
    text = str(yaml.dump({key: value}, Dumper=_Dumper, default_flow_style=True, allow_unicode=True, width=2**31))
    return text.strip()[1:-1]
