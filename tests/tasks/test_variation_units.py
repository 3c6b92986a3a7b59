"""A unit's result is a function of its seed and tasks, with noise, values drawn anew and failures too."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from metarl.rollout.local import LocalExecutor
from metarl.rollout.types import RoundPlan, TrialBatch, TrialPlan, Unit
from metarl.tasks.variation import MujocoVariation
from tests.tasks.varied import MASS

VARY = {"mass": MASS, "friction": {"field": "geom_friction[*]", "prior": {"uniform": [0.3, 1.5]}, "redraw": 0.2}}
EFFECTS = {
    "action_noise": {"prior": {"uniform": [0.0, 0.3]}},
    "observation_noise": {"prior": {"uniform": [0.0, 0.1]}},
    "dead_motor": {"prior": {"choice": [0, 1]}, "at_step": {"uniform": [2, 8]}},
}


class Wobble:
    """Small random actions."""

    def begin_trial(self, weights: Any, num_tasks: int, num_streams: int, rng: Any) -> None:
        return None

    def act(self, state: None, observations: np.ndarray, rng: np.random.Generator, deterministic: bool) -> Any:
        return rng.uniform(-0.3, 0.3, (*observations.shape[:2], 3)).astype(np.float32), None, {}

    def observe(self, state: None, transition: Any) -> None:
        return None

    def end_round(self, state: None, episodes: Any, adapt: bool) -> Any:
        return None, {}


def collected(path: str, order: list[int]) -> dict[int, TrialBatch]:
    """Two units by index, run in this order by one worker."""
    family = MujocoVariation(env="Hopper-v5", vary=VARY, effects=EFFECTS, path=path, horizon=12)  # type: ignore[arg-type]
    tasks = family.sample("train", 4, 0)
    plan = TrialPlan(2, family.horizon, (RoundPlan("support"), RoundPlan("query")))
    units = [Unit(i, tasks[2 * i : 2 * i + 2], plan, (7, 0, 0, i)) for i in range(2)]
    executor = LocalExecutor(family, Wobble())
    trials = executor.collect([units[i] for i in order], {}, 0)
    executor.close()
    return dict(zip(order, trials, strict=True))


@pytest.mark.parametrize("path", ["native", "gymnasium"])
def test_a_unit_is_the_same_whatever_a_worker_did_before(path: str) -> None:
    first, second = collected(path, [0, 1]), collected(path, [1, 0])
    for i in (0, 1):
        for one, other in zip(first[i].rounds, second[i].rounds, strict=True):
            for name in ("observations", "actions", "rewards", "lengths"):
                assert name in {f.name for f in fields(one)}
                np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_streams_of_one_task_and_its_rounds_have_noise_of_their_own() -> None:
    rounds = collected("native", [0])[0].rounds
    first = rounds[0].observations[0, :, 0]
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(rounds[1].observations[0, 0, 0], first[0])
