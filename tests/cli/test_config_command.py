"""`metarl config`: what comes with the package, what a configuration resolves to, and the schema."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from metarl.cli.app import app
from metarl.config import load_config
from tests.run_contents import EXPERIMENTS


def output_of(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["config", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_all_configurations_are_listed_with_what_they_are() -> None:
    lines = output_of("list").splitlines()
    assert [line.split()[0] for line in lines] == sorted(path.stem for path in EXPERIMENTS.glob("*.yaml"))
    assert any(line.startswith("sparse_point_pearl ") and "PEARL on SparsePointGoal" in line for line in lines)
    assert all(len(line.split()) > 2 for line in lines), "every configuration says in its first line what it is"


def test_what_is_shown_loads_to_the_same_configuration(tmp_path: Path) -> None:
    shown = output_of("show", "half_cheetah_dir_promp", "seed=7", "task_distribution.options={word: yes, a: [1, b]}")
    (tmp_path / "shown.yaml").write_text(shown)
    config = load_config(tmp_path / "shown.yaml")
    assert config == load_config(
        "half_cheetah_dir_promp", ["seed=7", "task_distribution.options={word: yes, a: [1, b]}"]
    )
    assert config.seed == 7


@pytest.mark.parametrize("name", ["quickstart", "bandit", "sparse_point_pearl"])
def test_every_key_is_shown_with_what_it_means(name: str) -> None:
    assert [line for line in output_of("show", name).splitlines() if " # " not in line] == []


def test_the_schema_is_json_and_knows_every_section() -> None:
    schema = json.loads(output_of("schema"))
    assert set(schema["required"]) == {"task_distribution", "algorithm", "training"}
    assert schema["properties"]["algorithm"]["anyOf"]


def test_a_run_says_what_its_preset_stands_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(
        "task_distribution: {name: PointGoal, options: {horizon: 2}}\n"
        "algorithm: {name: fomaml, tasks_per_iteration: 1, num_streams: 1, hidden: [2]}\n"
        "training: {iterations: 1, evaluate_every: 0}\ndevice: cpu\n"
    )
    cases = {"fomaml": "algorithm fomaml: maml, outer trpo", "maml": "algorithm maml, outer ppo"}
    for name, line in cases.items():
        arguments = ["train", "small.yaml", f"algorithm.name={name}", "--local", "--run-dir", name]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
        assert line in result.stdout.splitlines()
