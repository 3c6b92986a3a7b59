"""The in-process executor: units run here, one after the other, the physics on all processors."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from metarl.errors import ConfigError
from metarl.rollout.policy import AdaptivePolicy
from metarl.rollout.types import TrialBatch, Unit, Weights
from metarl.rollout.worker import UnitRunner
from metarl.tasks import TaskDistribution
from metarl.tasks.requirements import unmet


class LocalExecutor:
    """Executor without other processes; for debugging, machines without Ray, and the reference in tests."""

    def __init__(self, distribution: TaskDistribution, policy: AdaptivePolicy):
        if lacking := unmet(distribution.requirements):
            command = " ".join(["pip install", *map(repr, lacking)])
            raise ConfigError(
                f"{distribution.name} needs {', '.join(lacking)}, and the local executor has nothing but this Python: "
                f"install it here ({command}), or use executor.backend=ray"
            )
        self._runner = UnitRunner(distribution, policy)
        self._queue: deque[tuple[Unit, Weights, int]] = deque()

    def collect(self, units: Sequence[Unit], weights: Weights, version: int) -> list[TrialBatch]:
        return [self._runner.run(unit, weights, version) for unit in units]

    def submit(self, units: Sequence[Unit], weights: Weights, version: int) -> None:
        self._queue.extend((unit, weights, version) for unit in units)

    def ready(self, timeout_s: float | None = None) -> list[TrialBatch]:
        return [self._runner.run(*self._queue.popleft())] if self._queue else []

    def close(self) -> None:
        self._queue.clear()
        self._runner.close()
