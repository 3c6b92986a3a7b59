"""Whole sweeps of the command line on a real Ray, which the tests of this folder share."""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from metarl.cli.app import app
from metarl.config import load_config
from metarl.rollout.local import LocalExecutor
from metarl.runs import checkpoint
from metarl.runs.records import read_records
from metarl.training.loop import train
from tests.run_contents import left_by

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("cluster"),
    # Tune leaves its own logs open where a callback ends its loop
    pytest.mark.filterwarnings("ignore:unclosed file.*driver_artifacts:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Exception ignored in.*FileIO:pytest.PytestUnraisableExceptionWarning"),
]
_DEADLINE_S = 600.0

YAML = """
task_distribution: {name: PointGoal, options: {horizon: 4}}
algorithm: {name: maml, tasks_per_iteration: 2, num_streams: 2}
training: {iterations: 2, evaluate_every: 1}
evaluation: {num_tasks: 3}
device: cpu
"""
TASKS = """
import os, time
from pathlib import Path
from metarl_envs.point import PointGoal

class Fated(PointGoal):
    name = "Fated"

    def __init__(self, horizon=4, fate="fine"):
        super().__init__(horizon)
        self.fate = fate

    def sample(self, split, n, seed):
        if os.getpid() != {pid} and self.fate == "slow":
            time.sleep(0.15)
        elif os.getpid() != {pid} and self.fate != "fine" and not Path({folder!r}, self.fate).exists():
            if self.fate == "fails":
                raise RuntimeError("a part is missing")
            Path({folder!r}, self.fate).touch()
            os._exit(1)
        return super().sample(split, n, seed)
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "fated_tasks", raising=False)
    Path("small.yaml").write_text(YAML)
    Path("fated_tasks.py").write_text(TASKS.format(pid=os.getpid(), folder=str(tmp_path)))
    return tmp_path


def metarl_(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


def runs_of(folder: str) -> dict[str, dict[str, Any]]:
    content = json.loads(Path(folder, "sweep.json").read_text())
    return {run["name"]: run for setting in content["settings"] for run in setting["runs"]}


def test_runs_are_ordinary_ones_a_lost_process_starts_again_and_a_failure_leaves_the_others_alone() -> None:
    name, fate = "task_distribution.name=fated_tasks:Fated", "task_distribution.options.fate"
    given = ["small.yaml", name, f"{fate}=fine,dies,fails", "--run-dir", "s"]
    result = metarl_("sweep", *given)
    assert result.exit_code == 1, result.output
    assert "fate=dies-seed0: its process has ended: it is started again" in result.stdout
    assert "error: fate=fails-seed0 failed: RuntimeError: a part is missing" in result.stderr
    assert "Traceback" not in result.output
    assert result.stdout.count("fate=fine-seed0: iteration 2: 3 validation tasks, return") == 1
    assert "1 failed" in result.stdout
    statuses = {name: run["status"] for name, run in runs_of("s").items()}
    assert statuses == {"fate=fine-seed0": "done", "fate=dies-seed0": "done", "fate=fails-seed0": "failed"}
    assert Path("s/sweep.png").stat().st_size > 10_000

    overrides = [name, f"{fate}=fine", "executor.backend=local"]
    train(load_config(Path("small.yaml"), overrides), Path("plain"), LocalExecutor)
    assert left_by(Path("s/fate=fine-seed0"), 2) == left_by(Path("plain"), 2)
    assert metarl_("evaluate", "s/fate=fine-seed0", "--local").exit_code == 0
    longer = [name, f"{fate}=dies", "training.iterations=3", "--local", "--resume", "--run-dir", "s/fate=dies-seed0"]
    assert metarl_("train", "small.yaml", *longer).exit_code == 0

    Path("fails").touch()  # the missing part
    before = Path("s/fate=fine-seed0/metrics.jsonl").stat().st_mtime_ns
    result = metarl_("sweep", *given, "--resume")
    assert result.exit_code == 0, result.output
    assert "2 ended already" in result.stdout
    assert runs_of("s")["fate=fails-seed0"]["status"] == "done"
    judged = json.loads(Path("s/sweep.json").read_text())["test"]
    assert f"{judged['setting']} on test tasks, which nothing was chosen by: return" in result.stdout
    assert Path("s/fate=fine-seed0/metrics.jsonl").stat().st_mtime_ns == before


def stop_when(condition: Callable[[], bool], number: signal.Signals) -> threading.Thread:
    """Send this process a signal, which is handled in its main thread, once `condition` holds."""

    def watch() -> None:
        end = time.monotonic() + _DEADLINE_S
        while not condition() and time.monotonic() < end:
            time.sleep(0.1)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def iterations_of(pattern: str) -> list[int]:
    return [read_records(path)[-1]["iteration"] for path in Path().glob(pattern) if read_records(path)]


def test_stopped_by_signals_it_saves_and_the_command_it_gives_goes_on_exactly() -> None:
    slow = ["task_distribution.name=fated_tasks:Fated", "task_distribution.options.fate=slow"]
    overrides = [*slow, "training.iterations=12", "training.evaluate_every=12"]
    given = ["sweep", "small.yaml", *overrides, "--seeds", "4", "--run-dir", "s"]
    watcher = stop_when(lambda: sum(i > 0 for i in iterations_of("s/*/metrics.jsonl")) >= 2, signal.SIGTERM)
    result = metarl_(*given)
    watcher.join(_DEADLINE_S)
    assert result.exit_code == 143, result.output
    assert "of 4 runs have ended, the others are saved" in result.stderr
    assert "stopped by SIGTERM" in result.stderr
    assert "--seeds 4 --run-dir s --resume" in result.stderr
    reached = {
        path.parent.name: read_records(path)[-1]["iteration"]
        for path in Path().glob("s/*/metrics.jsonl")
        if read_records(path)
    }
    assert {name: checkpoint.load_latest(Path("s", name, "checkpoints")).iteration for name in reached} == reached
    assert min(reached.values()) < 12

    watcher = stop_when(lambda: sum(iterations_of("s/*/metrics.jsonl")) >= sum(reached.values()) + 3, signal.SIGINT)
    result = metarl_(*given, "--resume")
    watcher.join(_DEADLINE_S)
    assert result.exit_code == 130, result.output

    result = metarl_(*given, "--resume")
    assert result.exit_code == 0, result.output
    train(load_config(Path("small.yaml"), overrides), Path("plain"), LocalExecutor)
    assert left_by(Path("s/base-seed0"), 12) == left_by(Path("plain"), 12)
    assert {run["iteration"] for run in runs_of("s").values()} == {12}
    gc.collect()  # here, where the warnings of what Tune has left open are ignored


def test_what_no_node_has_is_refused() -> None:
    result = metarl_("sweep", "small.yaml", "--seeds", "2", "--cpus-per-run", "4")
    assert result.exit_code == 2, result.output
    assert "a run takes 4 CPU and 0 GPU on one node, and there is 3 CPU, 0 GPU" in result.stderr
