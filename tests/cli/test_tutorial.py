"""Every file of docs/tutorials/robot-model.md is written and every command run, as they stand there."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from metarl.cli.app import app

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorials" / "robot-model.md"
BLOCK = re.compile(r"(?:^`(?P<file>[\w.]+)`:\n\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_the_tutorial_runs_as_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    said: dict[str, str] = {}
    for block in BLOCK.finditer(TUTORIAL.read_text(encoding="utf-8")):
        if block["file"]:
            Path(block["file"]).write_text(block["text"], encoding="utf-8")
        elif not block["language"]:
            for line in block["text"].splitlines():
                said[line] = _run(line, monkeypatch)
    checks = [line for line in said if line.startswith("metarl tasks check")]
    assert len(checks) == 5
    assert "payload changes observation dimension" in said["metarl tasks check simple.yaml"]
    assert "dead_motor.at_step changes" in said["metarl tasks check worn.yaml"]
    assert "Change in mid-episode" in said["metarl evaluate runs/worn --local"]


def _run(line: str, monkeypatch: pytest.MonkeyPatch) -> str:
    program, *arguments = shlex.split(line)
    if program == "cd":
        monkeypatch.chdir(arguments[0])
        sys.path.insert(0, os.getcwd())
        return ""
    assert program == "metarl"
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, f"{line}\n{result.output}"
    return result.output
