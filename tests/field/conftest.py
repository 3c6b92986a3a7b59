"""A small configuration in the current directory, and a run of it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from metarl.cli.app import app

YAML = """
task_distribution: {name: PointGoal, options: {horizon: 5}}
algorithm: {name: "toy_algorithm:Toy"}
training: {iterations: 4, checkpoint_every: 2, evaluate_every: 0, keep_checkpoints: 9}
evaluation: {num_tasks: 3}
executor: {backend: local}
device: cpu
"""


def command(*arguments: str) -> Result:
    """`metarl ARGUMENTS` in this process; what it prints on its two streams stays apart."""
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with small.yaml and a finished run of it in runs/small. To be copied, not changed."""
    folder, before = tmp_path_factory.mktemp("trained"), Path.cwd()
    (folder / "small.yaml").write_text(YAML)
    os.chdir(folder)
    try:
        result = command("train", "small.yaml")
    finally:
        os.chdir(before)
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """runs/small, of one's own, below the current directory, where small.yaml lies too."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return Path("runs/small")


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """small.yaml in the current directory."""
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(YAML)
    return "small.yaml"
