"""Workers are killed while a run trains: it ends as if nothing had happened, every unit counted once."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metarl.config import load_config
from metarl.distributed import RayExecutor
from metarl.rollout.local import LocalExecutor
from metarl.training.loop import train
from metarl.training.progress import SilentReporter
from tests.distributed.processes import worker_pids
from tests.run_contents import left_by

pytestmark = pytest.mark.slow

ITERATIONS, TASKS, STREAMS, HORIZON, ROUNDS = 20, 6, 3, 80, 2
CONFIG = f"""seed: 5
task_distribution: {{name: HalfCheetahVel, options: {{horizon: {HORIZON}}}}}
algorithm: {{name: maml, tasks_per_iteration: {TASKS}, num_streams: {STREAMS}, outer: {{steps: 1}}}}
training: {{iterations: {ITERATIONS}, tasks_per_unit: 1, evaluate_every: 10}}
evaluation: {{num_tasks: 4}}
device: cpu
"""


class Killing(SilentReporter):
    """Kills workers at seeded moments: in the iterations after the chosen ones, a random time after their beginning."""

    def __init__(self, seed: int, num_kills: int):
        self._rng = np.random.default_rng(seed)
        self._when = set(self._rng.choice(np.arange(1, ITERATIONS), num_kills, replace=False).tolist())
        self._timers: list[threading.Timer] = []
        self.killed: list[int] = []

    def train(self, record: Mapping[str, Any], iterations: int, eta_s: float) -> None:
        if record["iteration"] in self._when:
            timer = threading.Timer(self._rng.uniform(0.0, 0.15), self._kill, [self._rng.random()])
            timer.start()
            self._timers.append(timer)

    def _kill(self, which: float) -> None:
        pids = worker_pids("ray::RolloutActor.run") or worker_pids()  # those at work, or whichever there are
        if pids:
            victim = sorted(pids)[int(which * len(pids))]
            os.kill(victim, signal.SIGKILL)
            self.killed.append(victim)

    def join(self) -> None:
        for timer in self._timers:
            timer.join()


def test_workers_killed_at_random_moments_change_nothing(
    cluster: None, alone: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG)
    config = load_config(tmp_path / "config.yaml")
    train(config, tmp_path / "undisturbed", LocalExecutor)
    killing = Killing(seed=0, num_kills=6)
    with caplog.at_level(logging.WARNING):
        outcome = train(config, tmp_path / "run", lambda d, p: RayExecutor(d, p, num_workers=3), reporter=killing)
        killing.join()
    assert len(killing.killed) >= 3, "too few to show anything"
    assert "goes out again" in caplog.text
    assert outcome.env_steps == ITERATIONS * TASKS * STREAMS * ROUNDS * HORIZON
    assert left_by(tmp_path / "run", ITERATIONS) == left_by(tmp_path / "undisturbed", ITERATIONS)
