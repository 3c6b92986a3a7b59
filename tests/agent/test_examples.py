"""The programs in examples/ run, and do what they say."""

from __future__ import annotations

import importlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.run_contents import EXPERIMENTS

EXAMPLES = EXPERIMENTS.parent / "examples"
PRETRAINED = EXPERIMENTS / "pretrained"
RUN = PRETRAINED / "half_cheetah_vel_rl2"


def run(*arguments: object, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_program_trains_evaluates_and_acts(tmp_path: Path) -> None:
    out = run(EXAMPLES / "train_and_act.py", tmp_path / "run", cwd=tmp_path)
    assert "adaptation gains" in out
    assert "has adapted once" in out


@pytest.mark.slow
def test_a_controller_that_is_killed_in_mid_episode_goes_on_where_it_was(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    robot = subprocess.Popen(
        [sys.executable, EXAMPLES / "robot" / "robot.py", "--run", RUN, "--port", port, "--period", "0.06"],
        stdout=subprocess.PIPE,
        text=True,
    )
    log = tmp_path / "log.jsonl"
    command: list[str | Path] = [
        EXAMPLES / "robot" / "controller.py",
        "--run",
        RUN,
        "--port",
        port,
        "--episodes",
        "2",
        "--wait",
        "120",
    ]
    try:
        first = subprocess.Popen([sys.executable, *command], cwd=tmp_path)
        deadline = time.monotonic() + 240
        while not log.exists() or len(log.read_text().splitlines()) < 300:  # in the second half of the first episode
            assert time.monotonic() < deadline
            assert first.poll() is None
            time.sleep(0.02)
        first.kill()
        first.wait()
        out = run(*command, cwd=tmp_path)
        assert robot.wait(60) == 0
    finally:
        for process in (robot, first):
            process.kill()
            process.wait()
    assert "continues: episode 1, step " in out
    assert "done: episode 3, step 0" in out
    assert robot.stdout is not None
    said = robot.stdout.read()
    robot.stdout.close()
    assert "standing still at step" in said
    returns = run(EXAMPLES / "robot" / "plot.py", log, "adaptation.png", cwd=tmp_path)
    assert (tmp_path / "adaptation.png").stat().st_size > 1000
    sys.path.insert(0, str(EXAMPLES / "robot"))
    rewards_of = importlib.import_module("plot").rewards_of
    lengths = {episode: len(rewards) for episode, rewards in rewards_of(log).items()}
    assert lengths == {1: 200, 2: 200}, returns  # no step of either episode is missing


@pytest.mark.parametrize("name", ["sparse_point_rl2", "point_goal_pearl"])
def test_an_exported_policy_runs_without_torch_and_without_this_package(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    run("-m", "metarl", "export", PRETRAINED / name, "--out", tmp_path / "exported", cwd=tmp_path)
    refuse = "import sys; sys.modules |= {'torch': None, 'metarl': None}; import runpy; sys.argv = sys.argv[1:]; "
    script = EXAMPLES / "run_exported_policy.py"
    program = [refuse + "runpy.run_path(sys.argv[0], run_name='__main__')", script, tmp_path / "exported", "4"]
    out = run("-c", *program, cwd=tmp_path)
    assert out.count("return -") == 4
    assert len(script.read_text().splitlines()) <= 40


def test_nothing_is_left_in_the_examples_folder() -> None:
    assert not [path for path in EXAMPLES.rglob("*") if path.suffix in (".png", ".jsonl", ".state")]
    assert os.access(EXAMPLES / "robot" / "robot.py", os.R_OK)
