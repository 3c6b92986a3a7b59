"""`metarl train` on Ray, as a user starts it: how it ends, what it says, and that no process outlives it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from metarl.runs import checkpoint
from metarl.runs.records import read_records
from tests.distributed.processes import HANG_S, wait_until

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
CONFIG = """
seed: 3
task_distribution: {name: "tests.toy:Point", options: {fault: FAULT, above: ABOVE, horizon: 5}}
algorithm: {name: maml, tasks_per_iteration: 4, num_streams: 2, hidden: [8], outer: {steps: 1}}
training: {iterations: 100000, checkpoint_every: 1000, evaluate_every: 0, tasks_per_unit: 1}
executor: {num_workers: 2, unit_deadline_s: DEADLINE}
device: cpu
"""


@contextmanager
def training(folder: Path, fault: str, above: float, deadline_s: float = HANG_S) -> Iterator[subprocess.Popen[str]]:
    """`metarl train` in `folder`, whose units may take `deadline_s`; its processes are killed in the end."""
    config = CONFIG.replace("FAULT", fault).replace("ABOVE", str(above)).replace("DEADLINE", str(deadline_s))
    (folder / "toy.yaml").write_text(config)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    child = subprocess.Popen(
        [sys.executable, "-m", "metarl", "train", "toy.yaml", "--run-dir", "run"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield child
    finally:
        below = processes_below(child)
        child.kill()
        child.communicate()
        for process in below:
            if process.is_running():
                process.kill()


def processes_below(child: subprocess.Popen[str]) -> list[psutil.Process]:
    try:
        return psutil.Process(child.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def first_iteration(child: subprocess.Popen[str]) -> list[psutil.Process]:
    """Wait for it; the processes that are there then."""
    assert child.stdout is not None
    assert any(line.startswith("iteration") for line in child.stdout), child.stderr and child.stderr.read()
    below = processes_below(child)
    assert any(title(p).startswith("ray::RolloutActor") for p in below)
    return below


def all_gone(processes: list[psutil.Process], but: tuple[str, ...] = ()) -> bool:
    """Whether all have ended, but for those with these titles."""
    return not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE and title(p) not in but for p in processes)


def title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()).strip()
    except psutil.NoSuchProcess:
        return ""


def test_an_environment_that_hangs_ends_the_run_with_one_message_and_its_last_iteration_saved(tmp_path: Path) -> None:
    with training(tmp_path, "hang_hard", above=0.97, deadline_s=6) as child:
        below = first_iteration(child)
        _, stderr = child.communicate(timeout=HANG_S)
        assert child.returncode == 1
        wait_until(lambda: all_gone(below))
    last = stderr.splitlines()[-1]
    assert last.startswith("error: unit ")
    assert "Point(goal=0.9" in last
    assert "failed 3 times, given up. First cause: no result within 6 s" in last
    assert "Traceback" not in stderr
    assert stderr.count("error: ") == 1
    iteration = read_records(tmp_path / "run" / "metrics.jsonl")[-1]["iteration"]
    assert checkpoint.load_latest(tmp_path / "run" / "checkpoints").iteration == iteration > 0


def test_a_run_on_ray_that_is_asked_to_end_saves_its_last_iteration_and_leaves_no_process(tmp_path: Path) -> None:
    with training(tmp_path, "none", above=1.0) as child:
        below = first_iteration(child)
        child.send_signal(signal.SIGTERM)
        _, stderr = child.communicate(timeout=HANG_S)
        assert child.returncode == 128 + signal.SIGTERM
        wait_until(lambda: all_gone(below))
    assert "stopped by SIGTERM" in stderr
    assert "Traceback" not in stderr
    iteration = read_records(tmp_path / "run" / "metrics.jsonl")[-1]["iteration"]
    assert checkpoint.load_latest(tmp_path / "run" / "checkpoints").iteration == iteration


def test_the_workers_of_a_run_that_is_killed_end_with_it(tmp_path: Path) -> None:
    """Ray's two agents of the node look for its head for another minute; they hold nothing."""
    with training(tmp_path, "none", above=1.0) as child:
        below = first_iteration(child)
        child.kill()
        wait_until(lambda: all_gone(below, but=("ray::DashboardAgent", "ray::RuntimeEnvAgent")))
