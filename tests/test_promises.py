"""Promises that hold for a whole run on MuJoCo: worker-count invariance and exact resume, bitwise."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from metarl.config import RunConfig, load_config
from metarl.distributed import RayExecutor, connect
from metarl.errors import ConfigError
from metarl.rollout.executor import MakeExecutor
from metarl.rollout.local import LocalExecutor
from metarl.training.loop import train
from metarl.training.progress import SilentReporter
from metarl.training.stop import StopRequest
from tests.run_contents import left_by, records_of

CONFIG = """seed: 5
task_distribution: {name: HalfCheetahVel, options: {horizon: 12}}
algorithm: ALGORITHM
training: {iterations: ITERATIONS, tasks_per_unit: 1, evaluate_every: 2, overlap: OVERLAP}
evaluation: {num_tasks: 4}
"""

PEARL = (
    "{name: pearl, num_train_tasks: 6, initial_episodes: 2, gradient_steps: 3, hidden_dim: 16,"
    " encoder: {name: permutation_invariant, hidden_dim: 8}}"
)
ALGORITHMS = {
    "maml": "{name: maml, tasks_per_iteration: 6, num_streams: 3, outer: {name: ppo, steps: 2}}",
    "rl2": "{name: rl2, tasks_per_iteration: 6, core: {name: gru, hidden_dim: 16}, lr_schedule: linear}",
    "pearl": PEARL,
    "pearl with overlap": PEARL,
}


class StopAfter(SilentReporter):
    """Requests a stop when an iteration is complete."""

    def __init__(self, iteration: int, stop: StopRequest):
        self._iteration, self._stop = iteration, stop

    def train(self, record: Mapping[str, Any], iterations: int, eta_s: float) -> None:
        if record["iteration"] == self._iteration:
            self._stop.signal_number = signal.SIGTERM


@pytest.fixture(scope="module", autouse=True)
def _ray() -> Iterator[None]:
    with connect(None, num_cpus=3):
        yield


def config_for(folder: Path, algorithm: str, iterations: int) -> RunConfig:
    folder.mkdir(exist_ok=True)
    text = CONFIG.replace("ITERATIONS", str(iterations)).replace("ALGORITHM", ALGORITHMS[algorithm])
    text = text.replace("OVERLAP", str("overlap" in algorithm).lower())
    (folder / "config.yaml").write_text(text)
    return load_config(folder / "config.yaml")


def executor_of(workers: int) -> MakeExecutor:
    if workers == 0:
        return LocalExecutor
    return lambda distribution, policy: RayExecutor(distribution, policy, num_workers=workers)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_local_and_one_and_three_actors_learn_bitwise_the_same(tmp_path, algorithm):
    outcomes = []
    for workers in (0, 1, 3):
        train(config_for(tmp_path / "c", algorithm, 3), tmp_path / f"run{workers}", executor_of(workers))
        outcomes.append(left_by(tmp_path / f"run{workers}", 3))
    assert outcomes[0] == outcomes[1] == outcomes[2]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_resumed_run_equals_the_uninterrupted_one_bitwise(tmp_path, algorithm):
    """Interrupted, not trained for fewer iterations: a learning rate that falls linearly knows how many there are."""
    config = config_for(tmp_path / "c", algorithm, 4)
    train(config, tmp_path / "straight", executor_of(2))
    stop = StopRequest()
    outcome = train(config, tmp_path / "halved", executor_of(2), reporter=StopAfter(2, stop), stop=stop)
    assert (outcome.reason, outcome.iteration) == ("interrupted", 2)
    train(config, tmp_path / "halved", executor_of(0), resume=True)
    assert left_by(tmp_path / "straight", 4) == left_by(tmp_path / "halved", 4)


def test_with_overlap_trials_are_one_update_old_from_the_third_iteration_on(tmp_path):
    train(config_for(tmp_path / "c", "pearl with overlap", 4), tmp_path / "run", executor_of(2))
    assert [r["weights_lag"] for r in records_of(tmp_path / "run") if r["kind"] == "train"] == [0, 0, 1, 1]


@pytest.mark.parametrize("algorithm", ["maml", "rl2"])
def test_overlap_is_refused_where_the_algorithm_learns_from_its_newest_policy_alone(tmp_path, algorithm):
    config = config_for(tmp_path / "c", algorithm, 1)
    overlapping = config.model_copy(update={"training": config.training.model_copy(update={"overlap": True})})
    with pytest.raises(ConfigError, match="newest policy alone"):
        train(overlapping, tmp_path / "run", executor_of(0))
