"""The toy distribution and policy, evaluated in this process."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from guess import PLAN, Guess, GuessPolicy, weights

from metarl.evaluation.evaluate import Evaluation, evaluate
from metarl.executor.local import LocalExecutor
from metarl.experience import TrialPlan
from metarl.tasks import Split, TaskDistribution


@pytest.fixture
def run() -> Callable[..., Evaluation]:
    def run_guess(
        distribution: TaskDistribution | None = None,
        *,
        split: Split = "test",
        num_tasks: int = 12,
        seed: int = 3,
        plan: TrialPlan = PLAN,
        tasks_per_unit: int = 5,
        noise: float = 0.3,
    ) -> Evaluation:
        distribution = distribution or Guess()
        return evaluate(
            LocalExecutor(distribution, GuessPolicy()),
            distribution,
            plan,
            weights(noise=noise),
            split=split,
            num_tasks=num_tasks,
            seed=seed,
            tasks_per_unit=tasks_per_unit,
        )

    return run_guess
