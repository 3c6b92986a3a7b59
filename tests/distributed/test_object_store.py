"""Ray's shared memory does not fill up with the weights and the trials of iterations that are over."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from metarl.config import load_config
from metarl.distributed import RayExecutor
from metarl.training.loop import train
from metarl.training.progress import SilentReporter
from tests.distributed.ray_internals import object_store_mb

pytestmark = pytest.mark.slow

MB = 1e6
WEIGHTS_MB = 1.0
CONFIG = f"""
task_distribution: {{name: PointGoal, options: {{horizon: 40}}}}
algorithm: {{name: "toy_algorithm:Toy", num_tasks: 2, num_streams: 100, ballast: {int(WEIGHTS_MB * MB / 4)}}}
training: {{iterations: 200, checkpoint_every: 1000, evaluate_every: 0, tasks_per_unit: 1}}
device: cpu
"""


class Looking(SilentReporter):
    """What is in use after each tenth iteration, in MB."""

    def __init__(self) -> None:
        self.used: list[float] = []

    def train(self, record: Mapping[str, Any], iterations: int, eta_s: float) -> None:
        if record["iteration"] % 10 == 0:
            self.used.append(object_store_mb())


def test_200_iterations_use_no_more_than_40_do(
    cluster: None, alone: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version of the weights is 1 MB, an iteration's two trials are 0.33 MB: 266 MB altogether.

    Ray frees what nobody holds any more 100 objects at a time: those of 33 iterations here, 44 MB.
    """
    (tmp_path / "config.yaml").write_text(CONFIG)
    before, looking = object_store_mb(), Looking()
    train(
        load_config(tmp_path / "config.yaml"),
        tmp_path / "run",
        lambda d, p: RayExecutor(d, p, num_workers=2),
        reporter=looking,
    )
    assert len(looking.used) == 20
    assert max(looking.used) - before > WEIGHTS_MB, "the newest weights at the least"
    assert max(looking.used) - before < 60
