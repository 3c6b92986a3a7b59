"""What a run is compared with: the same tasks and steps, without adaptation."""

from __future__ import annotations

from pathlib import Path

import pytest

from metarl.algorithms.rl2.config import RL2Config
from metarl.config import RunConfig, baselines_of, load_config, to_yaml
from metarl.errors import ConfigError

YAML = """
seed: 4
task_distribution: {name: PointGoal, options: {horizon: 7}}
algorithm: {name: NAME}
training: {iterations: 9, time_limit_minutes: 3, tasks_per_unit: 2}
evaluation: {num_tasks: 6, rounds: 3}
"""


def configured(tmp_path: Path, name: str, *overrides: str) -> RunConfig:
    path = tmp_path / "config.yaml"
    path.write_text(YAML.replace("NAME", name))
    return load_config(path, overrides)


def rl2_of(config: RunConfig) -> RL2Config:
    assert isinstance(config.algorithm, RL2Config)
    return config.algorithm


@pytest.mark.parametrize("name", ["rl2", "maml_trpo", "pearl"])
def test_baselines_have_the_run_s_tasks_and_steps_and_no_memory(tmp_path: Path, name: str) -> None:
    config = configured(tmp_path, name)
    found = baselines_of(config, 5000)
    assert list(found) == ["task_blind", "oracle"]
    for label, baseline in found.items():
        assert rl2_of(baseline).memory == "none"
        assert (baseline.training.env_steps_limit, baseline.training.time_limit_minutes) == (5000, None)
        assert baseline.training.iterations >= 5000  # of one step each
        assert (baseline.seed, baseline.training.tasks_per_unit, baseline.evaluation.num_tasks) == (4, 2, 6)
        assert baseline.evaluation.rounds is None
        told = label == "oracle"
        assert baseline.task_distribution == config.task_distribution.model_copy(update={"reveal_task": told})
        path = tmp_path / f"{label}.yaml"
        path.write_text(to_yaml(baseline))
        assert load_config(path) == baseline  # valid as a configuration of its own


def test_an_rl2_run_keeps_its_network_and_its_learning_settings(tmp_path: Path) -> None:
    changed = ("algorithm.core={name: lstm, hidden_dim: 32}", "algorithm.lr=0.002", "algorithm.episode_credit=elapsed")
    blind = rl2_of(baselines_of(configured(tmp_path, "rl2", *changed), 10)["task_blind"])
    assert (blind.core.name, blind.core.hidden_dim, blind.lr, blind.credit_across) == ("lstm", 32, 0.002, "none")


def test_a_run_that_is_told_the_task_has_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="reveal_task"):
        baselines_of(configured(tmp_path, "rl2", "task_distribution.reveal_task=true"), 10)
