"""The experiments that come with the project: configurations are valid, pretrained runs load and adapt."""

from __future__ import annotations

import pytest
import torch

from metarl.config import load_config
from metarl.evaluation.evaluate import Evaluation
from metarl.evaluation.statistics import iqm
from metarl.rollout.local import LocalExecutor
from metarl.rollout.types import Unit
from metarl.runs.build import load_run
from metarl.training.loop import prepare
from tests.run_contents import EXPERIMENTS

CONFIGS = sorted(EXPERIMENTS.glob("*.yaml"))
PRETRAINED = sorted(path.parent for path in EXPERIMENTS.glob("pretrained/*/config.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_configuration_can_begin(path):
    config = load_config(path)
    if "dm_control/" in str(config.task_distribution.options.get("env")):
        for package in ("shimmy", "dm_control"):
            pytest.importorskip(package, reason="needs shimmy[dm-control]")
    distribution, algorithm = prepare(config, torch.device("cpu"))
    assert len(algorithm.tasks(distribution, 0, 0)) >= 1


@pytest.mark.parametrize("path", PRETRAINED, ids=lambda path: path.name)
def test_a_pretrained_run_still_earns_what_its_evaluation_says(path):
    """A changed default would load without complaint and act otherwise. Of few tasks, so without the extreme ones."""
    run, stated = load_run(path), Evaluation.load(path / "evaluation.json")
    plan = run.algorithm.evaluation_plan(run.distribution.horizon, run.config.evaluation.settings)
    unit = Unit(0, run.distribution.sample("test", 20, 0), plan, (0, 1))
    (trial,) = LocalExecutor(run.distribution, run.algorithm.policy).collect([unit], run.algorithm.weights(), 0)
    expected = stated.rounds[-1].iqm
    assert iqm(trial.returns[-1].mean(axis=1)) > expected - 0.3 * max(abs(expected), 30)
