"""Work side by side on Ray Tune, and whole sweeps of the command line, on a real Ray."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from metarl.cli.app import app
from metarl.cli.sweep import _Lines
from metarl.config import load_config
from metarl.distributed.actor import Failure
from metarl.distributed.tune import Halving, Work, run_side_by_side
from metarl.errors import ConfigError
from metarl.rollout.local import LocalExecutor
from metarl.runs.directory import read_records
from metarl.training.loop import train
from metarl.training.stop import StopRequest
from tests.run_contents import left_by

pytestmark = pytest.mark.usefixtures("cluster")

YAML = """
task_distribution: {name: PointGoal, options: {horizon: 4}}
algorithm: {name: maml, tasks_per_iteration: 2, num_streams: 2}
training: {iterations: 2, evaluate_every: 1}
evaluation: {num_tasks: 3}
device: cpu
"""
SLOW_TASKS = """
import time
from metarl_envs.point import PointGoal

class Slow(PointGoal):
    name = "Slow"

    def sample(self, split, n, seed):
        time.sleep(0.15)
        return super().sample(split, n, seed)
"""


def scores(*values: float) -> Callable[[Any], Any]:
    """Work that reports these, one step each; returns the last step, and whether it was cut."""

    def run(link: Any) -> tuple[int, bool]:
        for step, value in enumerate(values, start=1):
            link.judged(step, value)
            if link.signal_number is not None:
                return step, link.is_cut
        return len(values), link.is_cut

    return run


def test_works_give_results_failures_and_events_and_a_lost_process_is_started_again(tmp_path: Path) -> None:
    mark = tmp_path / "was here"

    def dies_once(link: Any) -> str:
        if not mark.exists():
            mark.touch()
            os._exit(1)
        link.emit(("note", ("again",)))
        return "survived"

    def fails(link: Any) -> None:
        raise ConfigError("no such thing")

    events: list[Any] = []
    works = [Work("dies", dies_once), Work("fails", fails), Work("good", scores(1.0, 2.0))]
    results = run_side_by_side(works, lambda name, event: events.append((name, event)), StopRequest())
    failure = results.pop("fails")
    assert results == {"dies": "survived", "good": (2, False)}
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.message) == ("input", "no such thing")
    assert ("dies", ("note", ("again",))) in events


def test_halving_stops_the_worst_right_where_it_is_judged_and_knows_earlier_scores() -> None:
    halving = Halving(first=1, last=9, earlier={"before": [(1, 10.0), (3, 10.0)]})
    works = [Work("bad", scores(0.0, 50.0, 50.0)), Work("good", scores(20.0, 20.0, 20.0))]
    works.append(Work("late", scores(20.0, 20.0, 5.0, 50.0)))
    results = run_side_by_side(works, lambda name, event: None, StopRequest(), halving)
    assert results == {"bad": (1, True), "good": (3, False), "late": (3, True)}


def test_what_no_node_has_is_refused() -> None:
    with pytest.raises(ConfigError, match="x wants 1 CPU and 1 GPU on one node, and there is 3 CPU, 0 GPU"):
        run_side_by_side([Work("x", scores(), num_gpus=1)], lambda name, event: None, StopRequest())


# --- whole sweeps ------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("small.yaml").write_text(YAML)
    Path("slow_tasks.py").write_text(SLOW_TASKS)
    return tmp_path


def metarl_(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


def test_a_sweep_ends_with_a_table_a_picture_and_ordinary_runs(here: Path) -> None:
    lists = ["--sweep", "algorithm.inner_lr=0.1,1e-2", "--sweep", "algorithm.outer=ppo,trpo", "--seeds", "2"]
    result = metarl_("train", "small.yaml", *lists)
    assert result.exit_code == 0, result.output
    content = json.loads(Path("runs/small-sweep/sweep.json").read_text())
    assert [len(s["scores"]) for s in content["settings"]] == [2, 2, 2, 2]
    assert {run["status"] for s in content["settings"] for run in s["runs"]} == {"done"}
    assert Path("runs/small-sweep/sweep.png").stat().st_size > 10_000
    name = "inner_lr=0.01,outer=trpo"
    assert result.stdout.count(f"{name}-seed1: iteration 2: 3 test tasks, return") == 1
    assert "2/2" in result.stdout
    assert "Configuration for experiment" not in result.stdout  # Tune's own
    assert sorted(path.name for path in Path("runs/small-sweep").iterdir() if path.is_dir()) == sorted(
        f"inner_lr={lr},outer={outer}-seed{seed}" for lr in (0.1, 0.01) for outer in ("ppo", "trpo") for seed in (0, 1)
    )
    run = Path(f"runs/small-sweep/{name}-seed1")
    overrides = ["algorithm.inner_lr=0.01", "algorithm.outer=trpo", "seed=1", "executor.backend=local"]
    train(load_config(Path("small.yaml"), overrides), Path("plain"), LocalExecutor)
    assert left_by(run, 2) == left_by(Path("plain"), 2)
    assert metarl_("evaluate", str(run), "--local").exit_code == 0
    before = (run / "metrics.jsonl").stat().st_mtime_ns
    start = time.monotonic()
    assert metarl_("train", "small.yaml", *lists, "--resume").exit_code == 0  # nothing is left to do
    assert (run / "metrics.jsonl").stat().st_mtime_ns == before
    assert time.monotonic() - start < 30


def test_interrupted_it_saves_and_the_command_it_gives_goes_on_exactly(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    show = _Lines.show

    def interrupt(lines: _Lines, name: str, event: Any) -> None:
        show(lines, name, event)
        if event[0] == "evaluation" and not Path("told").exists():
            Path("told").touch()
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(_Lines, "show", interrupt)
    overrides = ["task_distribution={name: 'slow_tasks:Slow'}", "training.iterations=12"]
    arguments = ["train", "small.yaml", *overrides, "training.evaluate_every=12", "--seeds", "3", "--run-dir", "s"]
    result = metarl_(*arguments)
    assert result.exit_code == 130, result.output
    assert "stopped by SIGINT: 0 of 3 runs have ended, the others are saved" in result.stderr
    assert "--seeds 3 --run-dir s --resume" in result.stderr
    reached = [len(read_records(path)) - 1 for path in Path("s").glob("*/metrics.jsonl")]
    assert 0 < max(reached) < 12

    result = metarl_(*arguments, "--resume")
    assert result.exit_code == 0, result.output
    train(load_config(Path("small.yaml"), [*overrides, "training.evaluate_every=12"]), Path("plain"), LocalExecutor)
    assert left_by(Path("s/base-seed0"), 12) == left_by(Path("plain"), 12)
    (setting,) = json.loads(Path("s/sweep.json").read_text())["settings"]
    assert [run["iteration"] for run in setting["runs"]] == [12] * 3


def test_a_run_that_fails_leaves_the_others_alone_and_is_named_with_its_reason(here: Path) -> None:
    result = metarl_("train", "small.yaml", "--sweep", "algorithm.inner_lr=0.1,1e300", "--run-dir", "s")
    assert result.exit_code == 1, result.output
    assert "error: inner_lr=1e+300-seed0 failed: " in result.stderr
    assert "Traceback" not in result.output
    good, bad = json.loads(Path("s/sweep.json").read_text())["settings"]
    assert (good["runs"][0]["status"], good["is_best"], bad["runs"][0]["status"]) == ("done", True, "failed")
    assert bad["runs"][0]["error"] in result.stderr


def test_asha_marks_what_it_stops(here: Path) -> None:
    arguments = ["train", "small.yaml", "training.iterations=9", "--asha", "--run-dir", "s"]
    result = metarl_(*arguments, "--sweep", "algorithm.inner_lr=0.05,0.1,0.2")
    assert result.exit_code == 0, result.output
    runs = [run for s in json.loads(Path("s/sweep.json").read_text())["settings"] for run in s["runs"]]
    stopped = [run for run in runs if run["status"] == "stopped early"]
    assert {run["status"] for run in runs} <= {"done", "stopped early"}
    assert {run["iteration"] for run in stopped} <= {1, 3}
    assert all(run["iteration"] == 9 for run in runs if run["status"] == "done")
    assert ("stopped early, at iteration" in result.stdout) == bool(stopped)
