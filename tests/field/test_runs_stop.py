"""Runs with Ray that are stopped, by signals to some or all of their processes: what is complete is saved."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import ray  # noqa: F401  (brings psutil)

import psutil  # isort: skip

from metarl.runs import checkpoint
from metarl.runs.records import read_records
from tests.distributed.test_train_command import first_iteration, processes_below, title, training

HANG_S = 300.0
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ray")]


def send(processes: list[psutil.Process], number: int) -> None:
    for process in processes:
        if process.is_running():
            process.send_signal(number)


def of_ray(below: list[psutil.Process]) -> list[psutil.Process]:
    """The two processes that nothing works without."""
    found = [p for p in below if any(f"/{name} " in title(p) for name in ("gcs_server", "raylet"))]
    assert len(found) == 2
    return found


def assert_saved(run: Path) -> None:
    last = read_records(run / "metrics.jsonl")[-1]["iteration"]
    assert checkpoint.load_latest(run / "checkpoints").iteration == last >= 1


def everything(child: subprocess.Popen[str], below: list[psutil.Process]) -> None:
    send([psutil.Process(child.pid), *below], signal.SIGTERM)


def command_of_a_ray_that_hangs(child: subprocess.Popen[str], below: list[psutil.Process]) -> None:
    send(of_ray(below), signal.SIGSTOP)
    time.sleep(3)  # until the next look at the cluster's nodes, which is every 2 s
    child.send_signal(signal.SIGTERM)


@pytest.mark.parametrize("stop", [everything, command_of_a_ray_that_hangs])
def test_sigterm_saves_without_ray_and_names_the_command_that_continues(
    tmp_path: Path, stop: Callable[[subprocess.Popen[str], list[psutil.Process]], None]
) -> None:
    with training(tmp_path, "none", above=1.0) as child:
        stop(child, first_iteration(child))
        _, stderr = child.communicate(timeout=HANG_S)
    assert child.returncode == 128 + signal.SIGTERM, stderr
    assert "stopped by SIGTERM" in stderr
    assert "metarl train toy.yaml --run-dir run --resume" in stderr
    assert_saved(tmp_path / "run")


def test_ray_is_as_nice_as_the_run_and_in_a_session_of_its_own(tmp_path: Path) -> None:
    with training(tmp_path, "none", above=1.0) as child:
        below = first_iteration(child)
        workers = [p for p in below if title(p).startswith("ray::RolloutActor")]
        assert {p.nice() for p in workers} == {psutil.Process(child.pid).nice()}
        assert session(child.pid) not in {session(p.pid) for p in of_ray(below)}
        child.send_signal(signal.SIGTERM)
        _, stderr = child.communicate(timeout=HANG_S)
    assert child.returncode == 128 + signal.SIGTERM, stderr


def test_sigterm_while_ray_starts_is_exit_code_143(tmp_path: Path) -> None:
    with training(tmp_path, "none", above=1.0) as child:
        end = time.monotonic() + HANG_S
        while not any("/gcs_server " in title(p) for p in processes_below(child)):
            assert time.monotonic() < end
            time.sleep(0.02)
        child.send_signal(signal.SIGTERM)
        _, stderr = child.communicate(timeout=HANG_S)
    assert child.returncode == 128 + signal.SIGTERM, stderr
    assert "Traceback" not in stderr


def session(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[3])
