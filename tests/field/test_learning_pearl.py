"""PEARL and evaluations against what users of such software reported: each test is a small run of their kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from metarl.algorithms.pearl import PEARL
from metarl.algorithms.pearl.config import PEARLConfig, Recurrent
from metarl.algorithms.pearl.meta_batch import draw_context
from metarl.algorithms.pearl.replay import Replay
from metarl.cli.app import app
from metarl.config import load_config
from metarl.errors import ConfigError
from metarl.rollout.local import LocalExecutor
from metarl.rollout.spaces import Spaces
from metarl.rollout.types import Round
from metarl.runs.build import load_run
from metarl.runs.training_tasks import training_tasks
from metarl.tasks import Parameter, Task, Uniform
from metarl.tasks.arrays import ArrayTaskDistribution
from metarl.training.loop import train

CPU = torch.device("cpu")


class Dial(ArrayTaskDistribution):
    """Reward -|a - target|, target ~ U[-5, 5]. Observation: 0."""

    name, version = "Dial", 1

    def __init__(self, horizon: int = 10, low: float = -5.0, high: float = 5.0, dims: int = 1):
        super().__init__(horizon)
        self.parameters = (Parameter("target", Uniform(-5.0, 5.0)),)
        self.single_observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float64)
        bounds = np.full(dims, low, np.float32), np.full(dims, high, np.float32)
        self.single_action_space = gymnasium.spaces.Box(*bounds)

    def initial_state(self, rng: np.random.Generator, n: int) -> np.ndarray:
        return np.zeros((n, 1))

    def transition(self, rng: Any, state: np.ndarray, action: np.ndarray, params: Any) -> tuple[np.ndarray, np.ndarray]:
        return state.copy(), -np.abs(action[:, 0] - params["target"])


SMALL_PEARL = (
    "{name: pearl, num_train_tasks: 3, tasks_per_iteration: 2, hidden_dim: 8, batch_size: 8, context_size: 5, "
    "gradient_steps: 2, encoder: {name: permutation_invariant, hidden_dim: 8}}"
)
SMALL_MAML = "{name: maml, tasks_per_iteration: 2, num_streams: 2, hidden: [4]}"


def trained_run(folder: Path, algorithm: str, iterations: int = 3, options: str = "{}", seed: int = 3) -> Path:
    text = f"""
seed: {seed}
task_distribution: {{name: "{__name__}:Dial", options: {options}}}
algorithm: {algorithm}
training: {{iterations: {iterations}, evaluate_every: 0, tasks_per_unit: 4}}
executor: {{backend: local}}
device: cpu
"""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(text)
    train(load_config(folder / "config.yaml"), folder / "run", LocalExecutor)
    return folder / "run"


def tasks_of_training(run: Path) -> set[Task]:
    trained = load_run(run)
    iterations = range(trained.checkpoint.iteration)
    return {task for i in iterations for task in trained.algorithm.tasks(trained.distribution, trained.config.seed, i)}


# --- tasks that a run trained on ---------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", [SMALL_PEARL, SMALL_MAML], ids=["pearl", "maml"])
@pytest.mark.parametrize("seed", [None, 8])
def test_the_train_split_of_a_run_is_the_tasks_that_it_trained_on(algorithm, seed, tmp_path):
    run = trained_run(tmp_path, algorithm)
    arguments = ["evaluate", str(run), "--split", "train", "--tasks", "7", "--local", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, arguments + (["--seed", str(seed)] if seed is not None else []))
    assert result.exit_code == 0, result.output
    document = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    trained_on = {task["target"] for task in tasks_of_training(run)}
    evaluated = {score["task"]["target"] for score in document["per_task"]}
    assert evaluated <= trained_on
    assert len(evaluated) == min(7, len(trained_on))  # as many as there are: three of PEARL's pool, six of MAML's
    assert document["num_tasks"] == 7
    assert document["notes"][0].startswith("Evaluated on tasks that the run trained on")


def test_a_run_that_has_not_begun_has_no_tasks_that_it_trained_on(tmp_path):
    run = trained_run(tmp_path, SMALL_MAML, iterations=1)
    trained = load_run(run)
    object.__setattr__(trained.checkpoint, "iteration", 0)
    with pytest.raises(ConfigError, match="has not been trained on any task yet; allowed: test, validation, ood"):
        training_tasks(trained, 5, 0)


def test_other_seeds_draw_other_training_tasks_and_the_same_seed_the_same(tmp_path):
    trained = load_run(trained_run(tmp_path, SMALL_MAML, iterations=20))
    one, again, other = (training_tasks(trained, 5, seed) for seed in (0, 0, 1))
    assert one == again
    assert set(one) != set(other)


# --- unbounded actions -------------------------------------------------------------------------------


@pytest.mark.parametrize(("low", "high"), [(-np.inf, np.inf), (0.0, np.inf), (-np.inf, 1.0)])
def test_action_dimensions_without_bounds_are_refused_by_name(low, high):
    space = gymnasium.spaces.Box(np.array([-1, low, -1], np.float32), np.array([1, high, 1], np.float32))
    spaces = Spaces.of(gymnasium.spaces.Box(-1, 1, (2,)), space)
    with pytest.raises(ConfigError, match=r"'pearl' acts within bounds, but action dimensions 1 .*allowed here: maml"):
        PEARL(PEARLConfig(name="pearl"), spaces, CPU, 0)


def test_a_run_on_unbounded_actions_ends_before_it_begins(tmp_path):
    with pytest.raises(ConfigError, match="action dimensions 0, 1 of the environment have none"):
        trained_run(tmp_path, SMALL_PEARL, options="{low: -.inf, high: .inf, dims: 2}")
    assert trained_run(tmp_path / "bounded", SMALL_PEARL, options="{dims: 2}").is_dir()


# --- contexts ----------------------------------------------------------------------------------------


def episodes(lengths: list[int]) -> Round:
    """A stream for each length; the first observation says which, the second the step."""
    T, N = max(lengths), len(lengths)
    observations = np.zeros((1, N, T, 2), np.float32)
    observations[..., 0] = np.arange(N)[:, None]
    observations[..., 1] = np.arange(T)
    zeros, flags = np.zeros((1, N, T), np.float32), np.ones((1, N), bool)
    return Round(
        observations, zeros[..., None], zeros, np.array([lengths]), ~flags, flags, np.zeros((1, N, 2), np.float32),
        extras={}, derived={},
    )  # fmt: skip


@pytest.mark.parametrize("shortest", [1, 3, 140])
def test_runs_of_some_tasks_are_not_cut_to_those_of_a_task_that_fell_early(shortest):
    replay = Replay(3, 1000, 2, 1, CPU)
    for task, length in enumerate((shortest, 400, 400)):
        replay.add(task, episodes([length]), 0)
    generator = torch.Generator().manual_seed(0)
    assert replay.sample_runs(torch.tensor([1, 2]), 300, generator).rewards.shape == (2, 300)
    assert replay.sample_runs(torch.tensor([0, 2]), 300, generator).rewards.shape == (2, shortest)


def test_a_recurrent_encoders_context_is_one_streams_experience():
    config = PEARLConfig(name="pearl", encoder=Recurrent(), context_size=6)
    replay = Replay(1, 1000, 2, 1, CPU)
    for lengths in ([4, 9, 2], [5, 1, 8], [3, 3, 3]):
        replay.add(0, episodes(lengths), 0)
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        context = draw_context(replay, torch.tensor([0]), config, generator)[0]
        assert context.shape[0] == 6
        assert len(context[:, 0].unique()) == 1
