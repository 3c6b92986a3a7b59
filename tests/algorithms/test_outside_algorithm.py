"""An algorithm in a folder outside the repository, by `module:attr`: trained here and on Ray, resumed, evaluated."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TOY = (Path(__file__).parents[1] / "toy_algorithm.py").read_text()
CONFIG = """seed: 3
task_distribution: {name: PointGoal, options: {horizon: 5}}
algorithm: {name: "stranger:Toy", num_tasks: 4}
training: {iterations: 2, tasks_per_unit: 2, evaluate_every: 2, checkpoint_every: 1}
evaluation: {num_tasks: 3}
executor: {num_workers: 2}
device: cpu
"""


def metarl(folder: Path, *arguments: str) -> None:
    """The command line as a stranger runs it, in a folder of their own."""
    program = Path(sys.executable).with_name("metarl")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    result = subprocess.run(
        [program, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


def losses(run: Path) -> list[tuple[int, float]]:
    records = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [(r["iteration"], r["loss"]) for r in records if r["kind"] == "train"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "stranger.py").write_text(TOY)
    (tmp_path / "stranger.yaml").write_text(CONFIG)
    return tmp_path


@pytest.mark.slow
def test_an_algorithm_outside_the_repository_trains_resumes_and_evaluates_as_any_other(folder):
    longer = "training.iterations=3"
    metarl(folder, "train", "stranger.yaml", "--run-dir", "local", "--local", longer)
    metarl(folder, "train", "stranger.yaml", "--run-dir", "ray")
    metarl(folder, "train", "stranger.yaml", "--run-dir", "ray", "--resume", longer)
    assert losses(folder / "ray") == losses(folder / "local")
    assert [iteration for iteration, _ in losses(folder / "ray")] == [1, 2, 3]
    metarl(folder, "evaluate", "ray", "--local", "--tasks", "3", "--out", "out")
    evaluation = json.loads((folder / "out" / "evaluation.json").read_text())
    assert evaluation["iteration"] == 3
    assert len(evaluation["per_task"]) == 3
