"""The training loop: exact resume, clean stops, and nothing wrong that goes unnoticed."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from metarl.config import RunConfig, load_config
from metarl.errors import CheckpointError, ConfigError, EnvironmentFault, TaskError, TrainingError
from metarl.rollout.local import LocalExecutor
from metarl.rollout.types import TrialBatch
from metarl.runs import checkpoint
from metarl.runs.build import load_run
from metarl.runs.directory import open_run
from metarl.runs.records import TIMINGS, read_records
from metarl.training.loop import Outcome, resolve_device, train
from metarl.training.progress import SilentReporter, train_line
from tests.run_contents import records_of

if TYPE_CHECKING:
    from tests import toy_algorithm
else:
    import toy_algorithm  # the module that configurations name

YAML = """
seed: 3
task_distribution: {name: PointGoal, options: {horizon: 6}}
algorithm: {name: "toy_algorithm:Toy"}
training: {iterations: 8, checkpoint_every: 2, evaluate_every: 3, keep_checkpoints: 2, tasks_per_unit: 3}
evaluation: {num_tasks: 4}
executor: {backend: local}
device: cpu
"""


@pytest.fixture
def make_config(tmp_path: Path) -> Callable[..., RunConfig]:
    path = tmp_path / "config.yaml"
    path.write_text(YAML)
    return lambda *overrides: load_config(path, overrides)


def assert_same_run(a: Path, b: Path) -> None:
    first, second = checkpoint.load_latest(a / "checkpoints"), checkpoint.load_latest(b / "checkpoints")
    assert first.iteration == second.iteration
    assert first.tensors.keys() == second.tensors.keys()
    for name, tensor in first.tensors.items():
        assert torch.equal(tensor, second.tensors[name]), name
    assert {**first.meta, "wall_s": 0} == {**second.meta, "wall_s": 0}
    assert records_of(a) == records_of(b)


class Interrupting(LocalExecutor):
    """Does something once, at a given call of `collect`."""

    def __init__(self, distribution: Any, policy: Any, at: int, action: Callable[[], None]):
        super().__init__(distribution, policy)
        self._calls, self._at, self._action = 0, at, action

    def collect(self, *args: Any) -> list[TrialBatch]:
        self._calls += 1
        trials = super().collect(*args)
        if self._calls == self._at:
            self._action()
        return trials


def raising(error: BaseException) -> Callable[[], None]:
    def action() -> None:
        raise error

    return action


# --- resuming ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    (folder / "config.yaml").write_text(YAML)
    outcome = train(load_config(folder / "config.yaml"), folder / "run", LocalExecutor)
    assert (outcome.reason, outcome.iteration) == ("done", 8)
    return folder / "run"


def test_a_run_leaves_what_the_design_promises(uninterrupted: Path) -> None:
    records = read_records(uninterrupted / "metrics.jsonl")
    assert [r["iteration"] for r in records if r["kind"] == "train"] == list(range(1, 9))
    assert [r["iteration"] for r in records if r["kind"] == "evaluation"] == [0, 3, 6, 8]
    last_training = [r for r in records if r["kind"] == "train"][-1]
    assert last_training["env_steps"] == 8 * 4 * 2 * 2 * 6  # iterations, tasks, streams, rounds, steps
    assert {"return/round0", "return/round1", "loss", *TIMINGS} - {"evaluate_s"} <= set(last_training)
    assert last_training["other_s"] >= 0
    assert sorted(f.name for f in (uninterrupted / "checkpoints").iterdir()) == ["000006", "000008"]
    assert (uninterrupted / "evaluations" / "validation-000008" / "evaluation.json").is_file()
    assert json.loads((uninterrupted / "versions.json").read_text())["torch"]
    assert list(uninterrupted.glob("events.out.tfevents*"))
    assert load_config(uninterrupted / "config.yaml").training.iterations == 8


@pytest.mark.parametrize("at", range(1, 13))
def test_interrupted_anywhere_and_resumed_equals_uninterrupted(
    tmp_path: Path, make_config: Callable[..., RunConfig], uninterrupted: Path, at: int
) -> None:
    """12 calls of collect: 8 iterations and 4 evaluations. SIGTERM arrives in each of them once."""
    stop = lambda: os.kill(os.getpid(), signal.SIGTERM)  # noqa: E731
    handler_before = signal.getsignal(signal.SIGTERM)
    outcome = train(make_config(), tmp_path / "run", lambda d, p: Interrupting(d, p, at, stop))
    assert (outcome.reason, outcome.signal_number) == ("interrupted", signal.SIGTERM)
    assert checkpoint.load_latest(tmp_path / "run" / "checkpoints").iteration == outcome.iteration
    assert signal.getsignal(signal.SIGTERM) == handler_before
    train(make_config(), tmp_path / "run", LocalExecutor, resume=True)
    assert_same_run(tmp_path / "run", uninterrupted)


def test_killed_and_resumed_equals_uninterrupted(
    tmp_path: Path, make_config: Callable[..., RunConfig], uninterrupted: Path
) -> None:
    """SIGKILL in another process, after iteration 5: iteration 5 was not saved and is done again."""
    make_config()
    script = f"""
import os, signal, pathlib
from metarl.config import load_config
from metarl.training.loop import train
from test_loop import Interrupting
kill = lambda: os.kill(os.getpid(), signal.SIGKILL)
config = load_config(pathlib.Path({str(tmp_path / "config.yaml")!r}))
train(config, pathlib.Path({str(tmp_path / "run")!r}), lambda d, p: Interrupting(d, p, 8, kill))
"""
    environment = {**os.environ, "PYTHONPATH": f"{Path(__file__).parents[1]}:{Path(__file__).parent}"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, timeout=600)
    assert done.returncode == -signal.SIGKILL
    assert [r["iteration"] for r in records_of(tmp_path / "run")] == [0, 1, 2, 3, 3, 4, 5]
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "iter')  # a line cut off
    train(make_config(), tmp_path / "run", LocalExecutor, resume=True)
    assert_same_run(tmp_path / "run", uninterrupted)


def test_a_damaged_checkpoint_costs_time_and_nothing_else(
    tmp_path: Path,
    make_config: Callable[..., RunConfig],
    uninterrupted: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    train(make_config("training.iterations=6"), tmp_path / "run", LocalExecutor)
    (tmp_path / "run" / "checkpoints" / "000006" / "state.safetensors").write_bytes(b"damaged")
    with caplog.at_level(logging.WARNING):
        train(make_config(), tmp_path / "run", LocalExecutor, resume=True)
    assert "skipping a damaged checkpoint" in caplog.text
    assert_same_run(tmp_path / "run", uninterrupted)


def test_more_iterations_may_be_asked_for_and_a_finished_run_has_nothing_to_do(
    tmp_path: Path, make_config: Callable[..., RunConfig], uninterrupted: Path
) -> None:
    train(make_config("training.iterations=6"), tmp_path / "run", LocalExecutor)
    train(make_config(), tmp_path / "run", LocalExecutor, resume=True)
    assert_same_run(tmp_path / "run", uninterrupted)
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    assert train(make_config(), tmp_path / "run", LocalExecutor, resume=True).reason == "done"
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before


def test_resume_without_a_run_starts_one(tmp_path: Path, make_config: Callable[..., RunConfig]) -> None:
    config = make_config("training.iterations=1", "training.evaluate_every=0")
    assert train(config, tmp_path / "run", LocalExecutor, resume=True).iteration == 1


def test_a_run_that_came_to_nothing_does_not_stand_in_the_way(
    tmp_path: Path, make_config: Callable[..., RunConfig]
) -> None:
    def broken(*_: Any) -> LocalExecutor:
        raise EnvironmentFault("no workers")

    with pytest.raises(EnvironmentFault):
        train(make_config("seed=8"), tmp_path / "run", broken)
    assert train(make_config("training.iterations=1"), tmp_path / "run", LocalExecutor).iteration == 1


# --- refusals ----------------------------------------------------------------------------------------


def test_another_configuration_is_refused_and_named(
    tmp_path: Path, make_config: Callable[..., RunConfig], uninterrupted: Path
) -> None:
    before = (uninterrupted / "metrics.jsonl").read_bytes()
    with pytest.raises(ConfigError, match=r"another configuration(.|\n)*seed: 3 -> 4"):
        train(make_config("seed=4"), uninterrupted, LocalExecutor, resume=True)
    with pytest.raises(ConfigError, match="add --resume"):
        train(make_config(), uninterrupted, LocalExecutor)
    assert (uninterrupted / "metrics.jsonl").read_bytes() == before


def test_two_processes_cannot_train_in_one_directory(tmp_path: Path, make_config: Callable[..., RunConfig]) -> None:
    config = make_config()
    with open_run(tmp_path / "run", config, resume=False), pytest.raises(ConfigError, match="another process"):
        train(config, tmp_path / "run", LocalExecutor, resume=True)
    assert train(make_config("training.iterations=1"), tmp_path / "run", LocalExecutor).reason == "done"


def test_other_tasks_under_the_same_name_are_refused(
    tmp_path: Path, make_config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    train(make_config("training.iterations=1"), tmp_path / "run", LocalExecutor)
    from metarl_envs.point import PointGoal

    monkeypatch.setattr(PointGoal, "version", 99)
    with pytest.raises(CheckpointError, match=r"trained on .*PointGoal.*installed is .*99"):
        train(make_config(), tmp_path / "run", LocalExecutor, resume=True)


def test_wrong_input_leaves_no_run_directory(tmp_path: Path, make_config: Callable[..., RunConfig]) -> None:
    for override in ("task_distribution.name=Nowhere", "task_distribution.options.horizn=3"):
        with pytest.raises(TaskError):
            train(make_config(override), tmp_path / "run", LocalExecutor)
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="CUDA"):
            train(make_config("device=cuda"), tmp_path / "run", LocalExecutor)
        assert resolve_device("auto") == torch.device("cpu")
    assert not (tmp_path / "run").exists()


# --- faults and ends ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "message"),
    [("algorithm.spoil_at=6", "weights 'bias' are not finite"), ("algorithm.nan_metric_at=6", "metric 'loss' is nan")],
)
def test_divergence_stops_the_run_and_is_never_saved(
    tmp_path: Path, make_config: Callable[..., RunConfig], override: str, message: str
) -> None:
    with pytest.raises(TrainingError, match=rf"{message} after iteration 6.*last checkpoint: iteration 4"):
        train(make_config(override), tmp_path / "run", LocalExecutor)
    assert checkpoint.load_latest(tmp_path / "run" / "checkpoints").iteration == 4
    assert records_of(tmp_path / "run")[-1]["iteration"] == 5


def test_state_that_is_not_finite_but_not_a_weight_is_never_saved(
    tmp_path: Path, make_config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = toy_algorithm.Toy.state_dict

    def spoiled(self: Any) -> dict[str, torch.Tensor]:
        state = original(self)
        return {**state, "m": state["m"] * float("nan")} if self._updates > 3 else state

    monkeypatch.setattr(toy_algorithm.Toy, "state_dict", spoiled)
    with pytest.raises(TrainingError, match="'m' holds"):
        train(make_config(), tmp_path / "run", LocalExecutor)
    assert checkpoint.load_latest(tmp_path / "run" / "checkpoints").iteration == 2


def test_a_fault_of_the_environment_loses_no_completed_iteration(
    tmp_path: Path, make_config: Callable[..., RunConfig], uninterrupted: Path
) -> None:
    fault = raising(EnvironmentFault("PointGoal(...): hung"))
    with pytest.raises(EnvironmentFault, match="hung"):
        train(make_config(), tmp_path / "run", lambda d, p: Interrupting(d, p, 8, fault))
    assert checkpoint.load_latest(tmp_path / "run" / "checkpoints").iteration == 5
    train(make_config(), tmp_path / "run", LocalExecutor, resume=True)
    assert_same_run(tmp_path / "run", uninterrupted)


def test_the_time_limit_counts_earlier_sessions(tmp_path: Path, make_config: Callable[..., RunConfig]) -> None:
    limit = ("training.iterations=100000", "training.time_limit_minutes=0.005", "training.evaluate_every=1000000")
    first = train(make_config(*limit), tmp_path / "run", LocalExecutor)
    assert (first.reason, first.iteration > 0) == ("time limit", True)
    assert first.wall_s >= 0.3
    evaluated = [r["iteration"] for r in records_of(tmp_path / "run") if r["kind"] == "evaluation"]
    assert evaluated == [0, first.iteration]
    again = train(make_config(*limit), tmp_path / "run", LocalExecutor, resume=True)
    assert (again.reason, again.iteration) == ("time limit", first.iteration)
    longer = (limit[0], f"training.time_limit_minutes={first.wall_s / 60 + 0.01}", limit[2])
    assert train(make_config(*longer), tmp_path / "run", LocalExecutor, resume=True).iteration > first.iteration


def test_the_iteration_that_reaches_the_limit_of_steps_is_the_last(
    tmp_path: Path, make_config: Callable[..., RunConfig], uninterrupted: Path
) -> None:
    per_iteration = 4 * 2 * 2 * 6  # tasks, streams, rounds, steps
    limit = ("training.iterations=1000", f"training.env_steps_limit={3 * per_iteration + 1}")
    first = train(make_config(*limit), tmp_path / "run", LocalExecutor)
    assert (first.reason, first.iteration, first.env_steps) == ("done", 4, 4 * per_iteration)
    again = train(make_config(*limit), tmp_path / "run", LocalExecutor, resume=True)
    assert (again.reason, again.iteration) == ("done", 4)
    more = train(make_config(), tmp_path / "run", LocalExecutor, resume=True)  # as many iterations as ever
    assert more.iteration == 8
    last = checkpoint.load_latest(tmp_path / "run" / "checkpoints")
    expected = checkpoint.load_latest(uninterrupted / "checkpoints")
    assert all(torch.equal(last.tensors[name], tensor) for name, tensor in expected.tensors.items())


def test_schedules_and_the_time_left_follow_the_limit_of_steps(
    tmp_path: Path, make_config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []
    update = toy_algorithm.Toy.update

    def watched(self: Any, batches: Any, progress: float) -> dict[str, float]:
        seen.append(progress)
        return update(self, batches, progress)

    shown: list[int] = []

    class Watching(SilentReporter):
        def train(self, record: Any, iterations: int, eta_s: float) -> None:
            shown.append(iterations)

    monkeypatch.setattr(toy_algorithm.Toy, "update", watched)
    limit = ("training.iterations=1000", f"training.env_steps_limit={4 * 96}", "training.evaluate_every=0")
    train(make_config(*limit), tmp_path / "run", LocalExecutor, reporter=Watching())
    assert seen == [0, 0.25, 0.5, 0.75]
    assert shown == [4, 4, 4, 4]


def test_a_second_signal_stops_at_once(tmp_path: Path, make_config: Callable[..., RunConfig]) -> None:
    def twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    former = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a script runs the tests
    try:
        with pytest.raises(KeyboardInterrupt):
            train(make_config(), tmp_path / "run", lambda d, p: Interrupting(d, p, 6, twice))
    finally:
        signal.signal(signal.SIGINT, former)
    assert checkpoint.load_latest(tmp_path / "run" / "checkpoints").iteration == 2


def test_threads_and_signals_are_as_before(tmp_path: Path, make_config: Callable[..., RunConfig]) -> None:
    before = (torch.get_num_threads(), signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))
    train(make_config("training.iterations=1"), tmp_path / "run", LocalExecutor)
    assert (torch.get_num_threads(), signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


# --- the rest ----------------------------------------------------------------------------------------


def test_tasks_and_returns_do_not_depend_on_how_tasks_are_grouped_into_workers(
    tmp_path: Path, make_config: Callable[..., RunConfig], uninterrupted: Path
) -> None:
    """Units come back in any order from real workers; the loop must see them in unit order and no other."""

    class Reversed(LocalExecutor):
        def collect(self, units: Any, weights: Any, version: int) -> list[TrialBatch]:
            return super().collect(list(units)[::-1], weights, version)[::-1]

    train(make_config(), tmp_path / "run", Reversed)
    assert_same_run(tmp_path / "run", uninterrupted)


def test_evaluation_leaves_training_untouched(
    tmp_path: Path, make_config: Callable[..., RunConfig], uninterrupted: Path
) -> None:
    """The same run without evaluations: the same parameters and training records."""
    train(make_config("training.evaluate_every=0"), tmp_path / "run", LocalExecutor)
    assert records_of(tmp_path / "run") == [r for r in records_of(uninterrupted) if r["kind"] == "train"]
    a, b = (checkpoint.load_latest(run / "checkpoints").tensors for run in (tmp_path / "run", uninterrupted))
    assert all(torch.equal(a[name], b[name]) for name in b)


def test_a_trained_run_loads_from_its_configuration_and_checkpoints_alone(tmp_path: Path, uninterrupted: Path) -> None:
    import shutil

    shutil.copytree(uninterrupted / "checkpoints", tmp_path / "checkpoints")
    with pytest.raises(ConfigError, match=r"no config\.yaml"):
        load_run(tmp_path)
    shutil.copy(uninterrupted / "config.yaml", tmp_path)
    trained = load_run(tmp_path)
    assert trained.checkpoint.iteration == 8
    np.testing.assert_array_equal(trained.algorithm.weights()["bias"], trained.checkpoint.tensors["bias"].numpy())


def test_a_checkpoint_of_another_algorithm_is_named(
    tmp_path: Path, make_config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    train(make_config("training.iterations=1"), tmp_path / "run", LocalExecutor)

    def needs_more(self: Any, state: dict[str, torch.Tensor]) -> None:
        state["something else"]

    monkeypatch.setattr(toy_algorithm.Toy, "load_state_dict", needs_more)
    with pytest.raises(CheckpointError, match="does not fit"):
        load_run(tmp_path / "run")


def test_the_progress_line_says_what_counts() -> None:
    record = {"iteration": 3, "return/round0": 1.23, "return/round1": 8.9, "env_steps_per_s": 25_300.4}
    assert train_line(record, 500, 3723) == "iteration 3/500  return 1.2 -> 8.9  25,300 env steps/s  1:02:03 left"
    SilentReporter().note("nothing")
    assert Outcome("done", 1, 2, 3.0).signal_number is None
