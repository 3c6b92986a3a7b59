"""Nothing lost: wherever a training process dies or finds the disk full, it goes on to the very same result."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from metarl.config import load_config
from metarl.rollout.local import LocalExecutor
from metarl.runs import checkpoint
from metarl.training.loop import train
from tests.run_contents import left_by

TESTS = Path(__file__).parent
CONFIG = """
seed: 3
task_distribution: {name: PointGoal, options: {horizon: 4}}
algorithm: {name: "toy_algorithm:Toy", num_tasks: 2}
training: {iterations: 2, checkpoint_every: 1, evaluate_every: 0, keep_checkpoints: 1}
device: cpu
"""


@pytest.mark.parametrize("mode", ["killed", "power", "full"])
def test_a_run_that_ends_at_any_step_towards_the_disk_goes_on_to_the_same_result(
    tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    config = load_config(path)
    train(config, tmp_path / "whole", LocalExecutor)
    train(load_config(path, ["training.iterations=1"]), tmp_path / "start", LocalExecutor)

    paths = (TESTS / "dying.py", path, tmp_path / "start", tmp_path / "died")
    command = [sys.executable, *map(str, paths), mode]
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    steps = int(done.stdout)

    found = []
    for n in range(1, steps):
        run = tmp_path / "died" / str(n)
        found.append(checkpoint.load_latest(run / "checkpoints").iteration)
        train(config, run, LocalExecutor, resume=True)
        assert left_by(run, 2) == left_by(tmp_path / "whole", 2), f"after ending at step {n}"
    assert steps > 30, "the records, three files of a checkpoint, its folders and their names"
    assert found == sorted(found), "the previous one first, from some step on the new one"
    assert set(found) == {1, 2}


FILL = """
import errno, pathlib, sys, torch
from metarl.runs import checkpoint
folder = pathlib.Path(sys.argv[1]) / "checkpoints"
for iteration in range(100):
    try:
        checkpoint.save(folder, iteration, {"theta": torch.full((10_000,), float(iteration))}, {}, keep=100)
    except OSError as error:
        assert error.errno == errno.ENOSPC
        break
loaded = checkpoint.load_latest(folder)
assert torch.equal(loaded.tensors["theta"], torch.full((10_000,), iteration - 1.0))
names = sorted(path.name for path in folder.iterdir())
assert names == [f"{i:06d}" for i in range(iteration)], names
print(iteration)
"""


def test_on_a_disk_that_is_full_the_newest_whole_checkpoint_loads(tmp_path: Path) -> None:
    """A file system of 256 KiB, in a mount namespace of its own, and checkpoints of 40 kB."""
    if not shutil.which("unshare") or subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("user and mount namespaces are not permitted here")
    shell = 'mount -t tmpfs -o size=256k none "$1" && exec "$0" -c "$2" "$1"'
    command = ["unshare", "-rm", "sh", "-c", shell, sys.executable, str(tmp_path), FILL]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert 3 <= int(done.stdout) <= 6
