"""The link to another host goes down for good in the middle of a run: it stalls a moment, and ends the same."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from metarl.config import load_config
from metarl.rollout.local import LocalExecutor
from metarl.training.loop import train
from tests.cluster.test_training_elastic import CONFIG, ITERATIONS
from tests.run_contents import left_by

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
_TRY = "ip link set lo up && unshare -n true && ip link add name one type veth peer name two"


def test_a_link_that_goes_down_stalls_a_run_for_a_bounded_time_and_changes_nothing(tmp_path: Path) -> None:
    if not (shutil.which("unshare") and shutil.which("ip") and shutil.which("nsenter")):
        pytest.skip("there is no unshare, nsenter or ip here")
    if subprocess.run(["unshare", "-rn", "sh", "-c", _TRY], capture_output=True).returncode:
        pytest.skip("network namespaces are not permitted here")
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    train(load_config(path), tmp_path / "undisturbed", LocalExecutor)
    command = [
        "unshare",
        "-rn",
        sys.executable,
        str(ROOT / "tests/cluster/two_hosts.py"),
        str(path),
        str(tmp_path / "run"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["is_down"]
    assert seen["longest_s"] < 60
    assert left_by(tmp_path / "run", ITERATIONS) == left_by(tmp_path / "undisturbed", ITERATIONS)
