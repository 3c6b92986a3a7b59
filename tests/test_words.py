"""The word list of CONTRIBUTING.md, where a search can hold it: names that were given up do not come back."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = [path for folder in ("metarl", "envs", "experiments", "docs") for path in (ROOT / folder).rglob("*")]
TEXTS = [path for path in (*SOURCES, ROOT / "README.md") if path.suffix in (".py", ".md", ".yaml")]

# pattern: what is said instead
GIVEN_UP = {
    r"\bTrial\b": "TrialBatch for what a unit yields; a trial is R rounds on one task",
    r"(?<!process\.)\bis_alive\b|\bmoving\b": "running, for the mask of live streams",
    r"\bon purpose\b": "deliberate",
    r"\bnobody has\b|\basked to stop\b|\bgoes on where\b": "plain words",
    r"ray_backend|cli_\w+|run_directory\.py": "the names of today's files",
}


@pytest.mark.parametrize("pattern", GIVEN_UP)
def test_a_word_that_was_given_up_is_not_used(pattern: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in TEXTS
        if "pretrained" not in path.parts
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if re.search(pattern, line)
    ]
    assert not found, f"say {GIVEN_UP[pattern]}:\n" + "\n".join(found)
