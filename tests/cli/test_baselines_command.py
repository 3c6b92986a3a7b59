"""`metarl baselines`: equal steps, nothing trained twice, and a comparison that says what adaptation recovers."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from metarl.cli.app import app
from metarl.rollout.local import LocalExecutor
from metarl.runs import checkpoint
from tests.run_contents import records_of

YAML = """
task_distribution: {name: PointGoal, options: {horizon: 5}}
algorithm: {name: rl2, tasks_per_iteration: 4, minibatches: 2, core: {hidden_dim: 8}, encoded_obs_dim: 8, head_dim: 8}
training: {iterations: 3, evaluate_every: 0}
evaluation: {num_tasks: 4}
device: cpu
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(YAML)
    return "small.yaml"


def baselines(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["baselines", *arguments, "--local"])


def env_steps(run: str) -> int:
    return int(checkpoint.load_latest(Path(run) / "checkpoints").meta["env_steps"])


def comparison() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path("runs/small-baselines/comparison.json").read_text())
    return content


def test_a_configuration_is_trained_and_compared_with_its_baselines(config: str) -> None:
    done = baselines(config)
    assert done.exit_code == 0, done.output
    assert env_steps("runs/small") == 3 * 4 * 2 * 5
    for name in ("task_blind", "oracle"):
        assert env_steps(f"runs/small-baselines/{name}") == env_steps("runs/small")
    found = comparison()
    assert set(found["evaluations"]) == {
        *("adaptive", "adaptive, blank context", "task_blind", "task_blind, fine-tuned", "oracle")
    }
    tasks = {json.dumps([score["task"] for score in one["per_task"]]) for one in found["evaluations"].values()}
    assert len(tasks) == 1
    assert found["gap"]["oracle"] == "oracle"
    assert Path("runs/small-baselines/comparison.png").is_file()


def test_what_is_trained_is_kept_and_a_run_that_went_on_takes_them_along(config: str) -> None:
    assert baselines(config).exit_code == 0
    before = {name: records_of(Path(f"runs/small-baselines/{name}")) for name in ("task_blind", "oracle")}
    assert baselines("runs/small").exit_code == 0
    assert {name: records_of(Path(f"runs/small-baselines/{name}")) for name in before} == before
    assert baselines(config, "training.iterations=5").exit_code == 0
    assert env_steps("runs/small-baselines/oracle") == env_steps("runs/small") == 5 * 4 * 2 * 5


def test_an_interrupted_baseline_continues_with_the_command_that_is_printed(
    config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    collect, calls = LocalExecutor.collect, [0]

    def interrupting(self: Any, *arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] == 5:  # the second iteration of the first baseline
            os.kill(os.getpid(), signal.SIGTERM)
        return collect(self, *arguments)

    monkeypatch.setattr(LocalExecutor, "collect", interrupting)
    stopped = baselines(config)
    assert stopped.exit_code == 128 + signal.SIGTERM
    assert "metarl baselines small.yaml --out runs/small-baselines --split test --local" in stopped.stderr
    assert 0 < env_steps("runs/small-baselines/task_blind") < env_steps("runs/small")
    assert not Path("runs/small-baselines/oracle").exists()
    assert baselines(config, "--out", "runs/small-baselines").exit_code == 0
    assert env_steps("runs/small-baselines/task_blind") == env_steps("runs/small-baselines/oracle") == 120


def test_an_oracle_has_no_baselines_and_nothing_is_trained(config: str) -> None:
    done = baselines(config, "task_distribution.reveal_task=true")
    assert done.exit_code == 2
    assert "task_distribution.reveal_task = True" in done.stderr
    assert not Path("runs").exists()
