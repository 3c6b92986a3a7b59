"""Shapes of `metarl.kernels`, `metarl.ops` and `metarl.nets` are checked at every call under test; shared fixtures."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from jaxtyping import install_import_hook

install_import_hook(["metarl.kernels", "metarl.ops", "metarl.nets"], "beartype.beartype")

from metarl.evaluation.evaluate import Evaluation, evaluate  # noqa: E402
from metarl.rollout.local import LocalExecutor  # noqa: E402
from metarl.rollout.types import TrialPlan  # noqa: E402
from metarl.tasks import Split, TaskDistribution  # noqa: E402
from tests.guess import PLAN, Guess, GuessPolicy, weights  # noqa: E402  (after the hook)

_WITH_RAY = ("cluster", "distributed", "test_plugin.py", "test_promises.py")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that start Ray run one after the other, in one of the processes of `pytest -n`."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and item.path.relative_to(here).parts[0] in _WITH_RAY:
            item.add_marker(pytest.mark.xdist_group("ray"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a GPU")


@pytest.fixture(autouse=True, scope="session")
def _usual_signals() -> None:
    """Signals as in a terminal, here and in children: jobs in the background of a script or of nohup ignore some."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture
def run() -> Callable[..., Evaluation]:
    """Evaluates the guessing policy of `guess.py` in this process."""

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
