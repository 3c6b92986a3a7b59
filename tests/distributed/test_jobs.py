"""`metarl submit` and `metarl jobs` against a real head that asks for a token and has nothing of this library."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from metarl.cli.app import app
from metarl.distributed.jobs import JobServer
from metarl.runs import checkpoint
from tests.distributed.head import TOKEN, Head, started_head
from tests.distributed.processes import HANG_S

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
YAML = """
task_distribution: {name: "my_tasks:MyGoal", options: {horizon: 5}}
algorithm: {name: maml, tasks_per_iteration: 2, num_streams: 2}
training: {iterations: 2, evaluate_every: 0, tasks_per_unit: 1}
executor: {num_workers: 1, unit_deadline_s: 20}
device: cpu
"""
PLUGIN = """
from metarl_envs.point import PointGoal
class MyGoal(PointGoal):
    name = "MyGoal"
"""


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    with started_head(tmp_path_factory.mktemp("head")) as found:
        yield found


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This library in a folder, with a plug-in of the user's in another one and one that is not sent."""
    folder = tmp_path_factory.mktemp("project")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "metarl", folder / "metarl", ignore=ignored)
    shutil.copytree(ROOT / "envs" / "metarl_envs", folder / "src" / "metarl_envs", ignore=ignored)
    (folder / "src" / "my_tasks.py").write_text(PLUGIN)
    (folder / "src" / "kept_here.py").write_text(PLUGIN)
    (folder / ".gitignore").write_text("kept_here.py\n")
    (folder / "small.yaml").write_text(YAML)
    return folder


@pytest.fixture(autouse=True)
def client(head: Head, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the project, with the head's token."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")  # an address that is given wins
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    monkeypatch.chdir(project)
    monkeypatch.syspath_prepend("src")


def metarl_(head: Head, *arguments: str) -> Result:
    result = CliRunner().invoke(app, [*arguments, "--address", head.address])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    assert TOKEN not in result.output
    return result


def job_in(text: str) -> str:
    return re.findall(r"raysubmit_\w+", text)[0]


def test_a_job_takes_library_and_plug_in_along_and_succeeds(head: Head) -> None:
    result = metarl_(head, "submit", "small.yaml", "seed=3")
    assert result.exit_code == 0, result.output
    assert "iteration 2/2" in result.stdout
    assert f"{job_in(result.stderr)}: SUCCEEDED" in result.stderr
    run = head.home / "runs" / "small"
    newest = checkpoint.load_latest(run / "checkpoints")
    assert newest.iteration == 2
    assert "seed: 3" in (run / "config.yaml").read_text()
    assert json.loads((run / "versions.json").read_text())["metarl"]
    assert not any(TOKEN.encode() in path.read_bytes() for path in run.rglob("*") if path.is_file())


def test_ctrl_c_leaves_a_job_alone_stop_lets_it_save_and_submitted_again_it_goes_on(head: Head, project: Path) -> None:
    arguments = ["submit", "small.yaml", "training.checkpoint_every=100000", "--run-dir", str(head.home / "long run")]
    following = subprocess.Popen(
        [sys.executable, "-m", "metarl", *arguments, "training.iterations=100000", "--address", head.address],
        env={**os.environ, "PYTHONPATH": "src", "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert following.stdout is not None
    lines = []
    for line in following.stdout:
        lines.append(line)
        if line.startswith("iteration"):
            break
    following.send_signal(signal.SIGINT)
    told = following.communicate(timeout=HANG_S)[0]
    job_id = job_in("".join(lines))
    assert following.returncode == 130, told
    assert f"job {job_id} continues" in told
    assert f"metarl jobs stop {job_id}" in told

    listed = metarl_(head, "jobs", "list")
    assert re.search(rf"{job_id}\s+RUNNING", listed.stdout), listed.output
    stopped = metarl_(head, "jobs", "stop", job_id)
    assert stopped.exit_code == 0, stopped.output
    assert f"{job_id}: STOPPED" in stopped.stderr
    log = metarl_(head, "jobs", "logs", job_id).stdout
    assert "stopped by SIGTERM" in log
    assert "everything is saved" in log
    newest = checkpoint.load_latest(head.home / "long run" / "checkpoints")
    assert f"after {newest.iteration} iterations" in log

    last = newest.iteration + 2
    again = metarl_(head, *arguments, f"training.iterations={last}")
    assert again.exit_code == 0, again.output
    assert f"iteration {last}/{last}" in again.stdout
    assert "iteration 1/" not in again.stdout


def test_what_is_not_on_the_nodes_is_named(head: Head, tmp_path: Path) -> None:
    """A plug-in that is not sent; this library, where it is neither sent nor installed there."""
    plug_in = "task_distribution.name=kept_here:MyGoal"
    without_plug_in = metarl_(head, "submit", "small.yaml", plug_in, "--run-dir", "no_plug_in", "--detach")
    os.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(YAML)
    without_library = metarl_(head, "submit", "small.yaml", "--detach")
    assert without_plug_in.exit_code == without_library.exit_code == 0, without_library.output
    assert "metarl is not in the current directory" in without_library.stderr

    result = metarl_(head, "jobs", "logs", job_in(without_plug_in.stderr), "--follow")
    assert result.exit_code == 1, result.output
    assert "error: cannot import 'kept_here'" in result.stdout
    assert "FAILED" in result.stderr
    assert "kept_here is not on the cluster's nodes" in result.stderr
    result = metarl_(head, "jobs", "logs", job_in(without_library.stderr), "--follow")
    assert result.exit_code == 1, result.output
    assert re.search(r"(metarl|my_tasks) is not on the cluster's nodes", result.stderr)  # installed there by copying?


def test_resources_that_are_nowhere_are_waited_for_once_and_not_for_ever(head: Head) -> None:
    start = time.monotonic()
    result = metarl_(head, "submit", "small.yaml", "--learner-cpus", "40", "--start-timeout", "2")
    assert time.monotonic() - start < HANG_S
    assert result.exit_code == 2, result.output
    assert "did not start within 2 s and is stopped: it wants 40 CPU, 0 GPU on one node" in result.stderr
    assert "there is 1 node of 2 CPU, 0 GPU" in result.stderr
    assert JobServer(head.address).job(job_in(result.stderr)).has_ended


def test_a_missing_token_says_how_to_give_one(head: Head, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setenv("HOME", str(tmp_path))
    for arguments in (["submit", "small.yaml"], ["jobs", "list"], ["jobs", "logs", "x"], ["jobs", "stop", "x"]):
        result = metarl_(head, *arguments)
        assert result.exit_code == 2, result.output
        assert "wants a token (401)" in result.stderr
        assert all(way in result.stderr for way in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token"))


def test_a_wrong_token_is_refused_and_not_shown(head: Head, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    (tmp_path / "token").write_text("not-the-token\n")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    result = metarl_(head, "submit", "small.yaml")
    assert result.exit_code == 2, result.output
    assert f"refuses the token of RAY_AUTH_TOKEN_PATH={tmp_path / 'token'} (403)" in result.stderr
    assert "not-the-token" not in result.output


def test_a_job_that_is_not_there_is_named(head: Head) -> None:
    for command in (["logs", "raysubmit_x"], ["logs", "raysubmit_x", "--follow"], ["stop", "raysubmit_x"]):
        result = metarl_(head, "jobs", *command)
        assert result.exit_code == 2, result.output
        assert "no job raysubmit_x at" in result.stderr
