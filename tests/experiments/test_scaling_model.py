"""The model of sampling on many actors: its limits, and what it calls the bottleneck."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments" / "benchmarks"))

from _scaling_model import Costs, collect_s, iteration_s, predict, unit_times

IDEAL = Costs(unit_s=0.1, spread=0.0, call_s=0.0, transfer_s=0.0, learner_s=0.0)
REAL = Costs(unit_s=0.1, spread=0.2, call_s=0.001, transfer_s=0.002, learner_s=0.003)


def test_one_actor_with_one_unit_at_a_time_takes_the_sum_of_all_there_is() -> None:
    times = unit_times(REAL, 7, np.random.default_rng(0))
    assert collect_s(REAL, 1, times, in_flight=1) == pytest.approx(times.sum() + 7 * (0.001 + 0.002))
    costs = replace(REAL, spread=0.0)
    assert iteration_s(costs, 1, 7, in_flight=1) == pytest.approx(7 * (0.1 + 0.001 + 0.002 + 0.003))


def test_a_second_unit_in_flight_hides_the_driver_behind_the_actor() -> None:
    """The first is handed out and the last taken in; between them, the actor never waits."""
    assert collect_s(REAL, 1, np.full(7, 0.1), in_flight=2) == pytest.approx(0.0005 + 7 * 0.1 + 0.0005 + 0.002)


@pytest.mark.parametrize("actors", [1, 8, 1000])
def test_a_driver_that_costs_nothing_with_equal_units_is_perfect(actors: int) -> None:
    prediction = predict(IDEAL, actors, 3 * actors)
    assert prediction.efficiency == pytest.approx(1.0)
    assert prediction.iteration_s == pytest.approx(0.3)
    assert prediction.bottleneck == "none"


def test_a_driver_that_never_rests_sets_the_pace() -> None:
    """1000 actors want 10,000 units a second; the driver gets through 1 / (1 + 2) ms."""
    assert iteration_s(replace(REAL, learner_s=0.0), 1000, 4000) == pytest.approx(4000 * 0.003, rel=0.02)


def test_units_keep_their_mean_and_spread() -> None:
    times = unit_times(REAL, 200_000, np.random.default_rng(0))
    assert times.mean() == pytest.approx(0.1, rel=0.01)
    assert times.std() == pytest.approx(0.02, rel=0.02)


def test_fewer_units_than_actors_leave_actors_idle_and_are_named() -> None:
    prediction = predict(IDEAL, actors=8, units=4)
    assert prediction.efficiency == pytest.approx(0.5)
    assert prediction.bottleneck == "too few units"
    assert predict(REAL, 100, 10).bottleneck == "too few units"


def test_one_unit_too_many_costs_a_whole_wave() -> None:
    """9 equal units on 8 actors take two unit times."""
    prediction = predict(IDEAL, actors=8, units=9)
    assert prediction.iteration_s == pytest.approx(0.2)
    assert prediction.bottleneck == "too few units"


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"call_s": 0.02}, "driver"),
        ({"transfer_s": 0.02}, "transfer"),
        ({"spread": 1.0}, "stragglers"),
        ({"learner_s": 0.02}, "learner"),
    ],
)
def test_the_one_cost_there_is_is_the_bottleneck(change: dict[str, float], name: str) -> None:
    prediction = predict(replace(IDEAL, **change), actors=16, units=64)
    assert prediction.bottleneck == name
    assert prediction.efficiency < 0.9


def test_without_overlap_of_learner_and_actors_the_learner_bounds_efficiency() -> None:
    """Amdahl: 16 actors, units of 100 ms, 2 ms of learning each: 0.1 / (0.1 + 16 * 0.002)."""
    assert predict(replace(IDEAL, learner_s=0.002), 16, 64).efficiency == pytest.approx(0.1 / 0.132)
