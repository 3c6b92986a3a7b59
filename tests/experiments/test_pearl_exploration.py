"""What a run's encoder reads from afar: the pretrained run goes as slowly as wanted only if it explored slowly."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from metarl.runs.build import load_run
from tests.run_contents import EXPERIMENTS

sys.path.insert(0, str(EXPERIMENTS))

import pearl_exploration

RUN = EXPERIMENTS / "pretrained" / "half_cheetah_vel_pearl"


def test_a_trial_begins_with_its_z_and_is_judged_by_its_belief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pearl_exploration, "WANTED", (0.1, 1.0, 2.0))
    monkeypatch.setattr(pearl_exploration, "EXPLORED", (-1.8, 1.2))
    trained = load_run(RUN, ["evaluation.support_episodes=1", "evaluation.episodes=2"])
    walk, run = pearl_exploration.explored(trained, seed=1)
    assert walk["explored_speed"] < 0.2
    assert run["explored_speed"] > 1.5
    np.testing.assert_allclose(walk["judged_speed"], [0.1, 1.0, 2.0], atol=0.25)
    assert run["judged_speed"][0] > 0.4
    assert run["judged_return"][0] < walk["judged_return"][0]
