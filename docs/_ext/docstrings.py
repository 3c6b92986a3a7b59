"""Docstrings are plain text with tables and diagrams drawn in it: here they become reStructuredText.

A paragraph with drawn columns or deeper indentation is shown as it stands; `name: meaning` lines become a list.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

_FIELD = re.compile(r"^`?[a-z_][\w\[\]]*`?(, `?[a-z_][\w\[\]]*`?)*: +\S")  # names, then a colon
_DRAWN = re.compile(r"\S {2,}\S|^ {2,}\S|[|+<>^]-|-[|+<>^]|-->|<--")


def setup(app: Any) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", process, priority=100)  # before napoleon
    return {"parallel_read_safe": True}


def process(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Rewrite the lines of one docstring in place."""
    lines[:] = list(as_rst(lines))


def as_rst(lines: Iterable[str]) -> Iterable[str]:
    """reStructuredText of a plain docstring."""
    for paragraph in _paragraphs(lines):
        if any(_DRAWN.search(line) for line in paragraph) and not _is_list(paragraph):
            yield from ("::", "", *(f"    {line}" for line in paragraph), "")
        elif _is_list(paragraph):
            yield from (*_as_list(paragraph), "")
        else:
            yield from (*map(_inline, paragraph), "")


def _paragraphs(lines: Iterable[str]) -> Iterable[list[str]]:
    found: list[str] = []
    for line in [*lines, ""]:
        if line.strip():
            found.append(line.rstrip())
        elif found:
            yield found
            found = []


def _is_list(paragraph: list[str]) -> bool:
    """`name: meaning` on the first line, and every other line one more of them or the end of the one before."""
    starts = [bool(_FIELD.match(line)) for line in paragraph]
    return starts[0] and all(start or line.startswith("    ") for start, line in zip(starts, paragraph, strict=True))


def _as_list(paragraph: list[str]) -> Iterable[str]:
    for line in paragraph:
        if _FIELD.match(line):
            name, _, meaning = line.partition(": ")
            bold = f"``{name.replace('`', '')}``"
            yield f"* {bold}: {_inline(meaning)}"
        else:
            yield f"  {_inline(line.strip())}"


def _inline(line: str) -> str:
    """`code` becomes literal; everything else with a meaning in reStructuredText is taken by the letter."""
    parts = re.split(r"(?<!`)`([^`\s](?:[^`]*[^`\s])?)`(?!`)", line)
    for index, part in enumerate(parts):
        parts[index] = f"\\ ``{part}``\\ " if index % 2 else re.sub(r"([*_|\\`])", r"\\\1", part)
    return "".join(parts).strip()
