"""YAML's scalars are those of YAML 1.2's core schema, and what is written is read back."""

from __future__ import annotations

import math
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metarl.config.scalars import dump, parse

LIKE_NUMBERS = ("yes", "no", "on", "off", "y", "010", "5:30", "1:20:30", "1_000", "2020-01-01", "0b11", "=")
OTHERS = (
    "<<",
    "null",
    "~",
    "true",
    ".inf",
    ".nan",
    "1e3",
    "0x1F",
    "-",
    ".",
    "!",
    "&a",
    "*a",
    "%",
    "",
    " ",
    "a: b",
    "'",
)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda parts: st.lists(parts) | st.dictionaries(st.text(), parts),
    max_leaves=8,
)


@pytest.mark.parametrize("word", LIKE_NUMBERS)
def test_what_yaml_1_1_takes_for_something_else_is_a_word(word: str) -> None:
    assert parse(word) == word


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1e6", 1e6),
        ("1.", 1.0),
        (".5", 0.5),
        ("+1", 1),
        ("-0", 0),
        ("0o17", 15),
        ("0x1F", 31),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        (".inf", math.inf),
        ("-.inf", -math.inf),
        ("{a: &x {b: 1, c: 2}, d: {<<: *x, c: 3}}", {"a": {"b": 1, "c": 2}, "d": {"b": 1, "c": 3}}),
    ],
)
def test_scalars_are_those_of_the_core_schema(text: str, value: Any) -> None:
    assert repr(parse(text)) == repr(value)


@pytest.mark.parametrize(
    "text",
    [
        "!!int x",
        "!!bool x",
        "!!timestamp 2",
        "!!set {a}",
        "!!binary aa",
        "!!python/name:os.system x",
        "&a [*a]",
        "a: 1\na: 2",
        "{[1]: 2}",
        "!!map 3",
        pytest.param("[" * 5000, id="deep"),
        pytest.param("9" * 5000, id="long"),
        "\0",
    ],
)
def test_what_is_no_plain_data_is_an_error_of_yaml(text: str) -> None:
    with pytest.raises(yaml.YAMLError):
        parse(text)


@pytest.mark.parametrize("word", [*LIKE_NUMBERS, *OTHERS, "\u00e9", "\x85", "a\x85b\n", "\u2028"])
def test_words_survive_writing_and_reading(word: str) -> None:
    assert parse(dump({word: [word]})) == {word: [word]}
    assert yaml.safe_load(dump([word])) == [word], "other readers see a word too"


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)  # other work may load the machine
@given(PLAIN)
def test_plain_data_survives_writing_and_reading(data: Any) -> None:
    assert repr(parse(dump(data))) == repr(data)
