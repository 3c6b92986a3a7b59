"""Meta-World's environments: without it the learner knows all it must; with it they keep the contract."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from metarl_envs.meta_world import MetaWorldReach

from metarl.config import load_config
from metarl.errors import TaskError
from metarl.rollout.policy import Spaces
from metarl.runs.build import spaces_of
from metarl.tasks.check import check_distribution
from tests.run_contents import EXPERIMENTS


def test_the_learner_does_not_import_it() -> None:
    config = load_config(EXPERIMENTS / "meta_world_reach_rl2.yaml")
    assert spaces_of(MetaWorldReach(), config) == Spaces(39, 4)
    assert "metaworld" not in sys.modules


def test_horizons_are_those_that_meta_world_allows() -> None:
    assert MetaWorldReach(500).horizon == 500
    for horizon in (0, 501):
        with pytest.raises(TaskError, match=f"horizon must be 1 to 500, got {horizon}"):
            MetaWorldReach(horizon)


def test_it_keeps_the_contract_and_hides_the_goal() -> None:
    pytest.importorskip("metaworld", reason="Meta-World is not installed")
    family = MetaWorldReach(10)
    assert all(result.passed for result in check_distribution(family))
    one, other = (family.make(task).reset(seed=0)[0] for task in family.sample("train", 2, 0))
    np.testing.assert_array_equal(one, other)
