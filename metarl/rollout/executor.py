"""Where units run. The training loop and evaluation see this interface alone.

submit(units, weights) --> [ workers ] --> ready() one by one, in any order
collect(units, weights) = submit, wait for all, in unit order
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from metarl.rollout.policy import AdaptivePolicy
from metarl.rollout.types import TrialBatch, Unit, Weights
from metarl.tasks import TaskDistribution


class Executor(Protocol):
    """Runs units on workers. Results do not depend on how many there are."""

    def collect(self, units: Sequence[Unit], weights: Weights, version: int) -> list[TrialBatch]:
        """All units' trials in unit order. Raises EnvironmentFault with the first cause where a unit cannot be run."""
        ...

    def submit(self, units: Sequence[Unit], weights: Weights, version: int) -> None:
        """Queue units; `version` names the weights and comes back with each trial."""
        ...

    def ready(self, timeout_s: float | None = None) -> list[TrialBatch]:
        """Trials finished since the last call, waiting for at least one (None: for ever); [] when the time is up
        or nothing is under way."""
        ...

    def close(self) -> None:
        """End the workers. Safe to call twice."""
        ...


MakeExecutor = Callable[[TaskDistribution, AdaptivePolicy[Any]], Executor]
