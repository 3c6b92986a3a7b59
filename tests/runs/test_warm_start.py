"""A run that begins with the weights of another: weights and normalisers, nothing else, and only where they fit."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from metarl.algorithms.base import Algorithm
from metarl.config import RunConfig, load_config
from metarl.errors import CheckpointError, ConfigError
from metarl.rollout.local import LocalExecutor
from metarl.runs import checkpoint
from metarl.runs.build import load_run
from metarl.runs.warm_start import ORIGIN, apply_warm_start, read_warm_start
from metarl.training.loop import prepare, train

PROMP = "{name: promp, tasks_per_iteration: 2, num_streams: 2, hidden: [4, 4]}"
RL2 = "{name: rl2, tasks_per_iteration: 2, minibatches: 1, core: {name: gru, hidden_dim: 4}, head_dim: 4}"
PEARL = (
    "{name: pearl, num_train_tasks: 2, tasks_per_iteration: 1, initial_episodes: 2, gradient_steps: 2, meta_batch: 2, "
    "hidden_dim: 4, batch_size: 4, context_size: 4, replay_capacity: 100, context_capacity: 100, "
    "encoder: {name: permutation_invariant, hidden_dim: 4}}"
)


def config_of(folder: Path, algorithm: str, *overrides: str) -> RunConfig:
    folder.mkdir(exist_ok=True)
    (folder / "c.yaml").write_text(
        f"task_distribution: {{name: PointGoal, options: {{horizon: 4}}}}\nalgorithm: {algorithm}\n"
        "training: {iterations: 2, evaluate_every: 0}\ndevice: cpu\n"
    )
    return load_config(folder / "c.yaml", overrides)


def trained(folder: Path, algorithm: str) -> Path:
    train(config_of(folder, algorithm), folder / "run", LocalExecutor)
    return folder / "run"


def built(folder: Path, algorithm: str, *overrides: str) -> Algorithm:
    return prepare(config_of(folder, algorithm, *overrides), torch.device("cpu"))[1]


@pytest.mark.parametrize("algorithm", [PROMP, RL2, PEARL], ids=["maml", "rl2", "pearl"])
def test_a_run_begins_with_the_weights_and_without_the_optimisers_moments(tmp_path: Path, algorithm: str) -> None:
    source = trained(tmp_path / "a", algorithm)
    fresh = built(tmp_path / "b", algorithm, "seed=9")
    before = fresh.state_dict()
    apply_warm_start(read_warm_start(source, "source"), fresh)
    expected, weights = load_run(source).algorithm.weights(), fresh.weights()
    assert all(np.array_equal(weights[name], expected[name]) for name in expected)
    assert fresh.state_dict().keys() == before.keys(), "no moments of an optimiser"
    counters = [name for name, value in before.items() if not value.is_floating_point()]
    assert all(torch.equal(fresh.state_dict()[name], before[name]) for name in counters)


def test_other_hyper_parameters_and_another_member_of_the_family_begin_with_the_same_weights(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    start = read_warm_start(trained(tmp_path / "a", PROMP), "source")
    for name in ("maml_trpo", "fomaml", "meta_sgd"):
        other = built(tmp_path / "b", PROMP.replace("promp", name), "algorithm.inner_lr=0.3")
        with caplog.at_level(logging.WARNING):
            apply_warm_start(start, other)
        state = other.state_dict()
        assert all(torch.equal(state[name], value) for name, value in start.weights.items())
    assert "keep their initial values" in caplog.text, "Meta-SGD's rates"


@pytest.mark.parametrize(
    ("algorithm", "overrides", "says"),
    [
        (PROMP, ["algorithm.hidden=[4, 5]"], r"weights\.\w+ \(4, 4\) there, \(4, 5\) here"),
        (PROMP, ["algorithm.hidden=[4]"], r"weights\.\w+ \(4, 4\) there, \(4, 2\) here"),
        (PEARL, [], "only there: weights.*only here: params"),
    ],
)
def test_weights_that_do_not_fit_are_named_with_both_shapes(
    tmp_path: Path, algorithm: str, overrides: list[str], says: str
) -> None:
    start = read_warm_start(trained(tmp_path / "a", PROMP), "runs/source")
    with pytest.raises(CheckpointError, match=rf"weights of runs/source \(maml on PointGoal\) do not fit .*{says}"):
        apply_warm_start(start, built(tmp_path / "b", algorithm, *overrides))


def test_the_run_directory_says_where_the_weights_came_from(tmp_path: Path) -> None:
    source = trained(tmp_path / "a", PROMP)
    start, config, run = (
        read_warm_start(source, "source"),
        config_of(tmp_path / "b", PROMP, "seed=9"),
        tmp_path / "b" / "r",
    )
    train(config, run, LocalExecutor, start=start)
    origin = {"run": "source", "iteration": 2, "algorithm": "maml", "task_distribution": "PointGoal"}
    assert json.loads((run / ORIGIN).read_text()) == origin
    straight = checkpoint.load_latest(run / "checkpoints").tensors
    train(config, tmp_path / "b" / "cold", LocalExecutor)
    cold = checkpoint.load_latest(tmp_path / "b" / "cold" / "checkpoints").tensors
    assert not torch.equal(straight["weights.w0"], cold["weights.w0"])
    assert not (tmp_path / "b" / "cold" / ORIGIN).exists()


def test_a_run_that_began_from_another_goes_on_as_that_and_as_no_other(tmp_path: Path) -> None:
    start = read_warm_start(trained(tmp_path / "a", PROMP), "source")
    config, run = config_of(tmp_path / "b", PROMP), tmp_path / "b" / "r"
    train(config, run, LocalExecutor, start=start)
    longer = config_of(tmp_path / "b", PROMP, "training.iterations=3")
    assert train(longer, run, LocalExecutor, resume=True).iteration == 3
    other = read_warm_start(trained(tmp_path / "c", PROMP), "other")
    with pytest.raises(ConfigError, match=r"--from other: the run in .* began with the weights of source"):
        train(longer, run, LocalExecutor, resume=True, start=other)
    for folder in (run / "checkpoints").iterdir():
        folder.rename(tmp_path / folder.name)
    (run / "metrics.jsonl").write_text("")
    with pytest.raises(ConfigError, match="begins with the weights of source: add --from source"):
        train(longer, run, LocalExecutor, resume=True)


def test_what_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--from nothing: not a run directory"):
        read_warm_start(tmp_path / "nothing", "nothing")
