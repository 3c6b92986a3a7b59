"""Priors: sampling, membership, support."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from metarl.errors import TaskError
from metarl.tasks import Choice, InDisc, LogUniform, Mixture, OnSphere, Prior, Simplex, Uniform
from metarl.tasks.variation.description import prior_of

ALL: list[Prior] = [
    Uniform(-1.0, 3.0),
    Uniform(0.0, 1.0, 4),
    LogUniform(0.5, 2.0),
    LogUniform(0.1, 10.0, 3),
    Choice((-1.0, 1.0)),
    OnSphere(3, 2.0),
    InDisc(2.0, inner=1.0),
    InDisc(1.0, angle_high=math.pi),
    Simplex(3, rows=2),
    Mixture(Uniform(0.0, 0.5), Uniform(3.0, 3.5)),
]


@pytest.mark.parametrize("prior", ALL, ids=str)
def test_every_sample_lies_in_its_prior_and_is_plain_python(prior: Prior) -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        value = prior.sample(rng)
        assert prior.contains(value)
        assert isinstance(value, float) or all(type(v) is float for v in value)


@pytest.mark.parametrize(
    ("prior", "outside"),
    [
        (Uniform(0.0, 3.0), 3.1),
        (Uniform(0.0, 3.0), -0.1),
        (Uniform(0.0, 3.0), math.nan),
        (Uniform(0.0, 3.0), (1.0, 1.0)),
        (Uniform(0.0, 1.0, 2), (0.5, 1.5)),
        (Uniform(0.0, 1.0, 2), 0.5),
        (LogUniform(0.5, 2.0), 0.4),
        (Choice((-1.0, 1.0)), 0.0),
        (OnSphere(2), (1.0, 1.0)),
        (InDisc(2.0, inner=1.0), (0.5, 0.5)),
        (InDisc(2.0, inner=1.0), (2.0, 2.0)),
        (InDisc(1.0, angle_high=math.pi), (0.5, -0.5)),
        (Simplex(3), (0.5, 0.5, 0.5)),
        (Simplex(3), (1.5, -0.5, 0.0)),
        (Mixture(Uniform(0.0, 0.5), Uniform(3.0, 3.5)), 1.0),
    ],
    ids=str,
)
def test_a_value_outside_is_not_contained(prior: Prior, outside: float | tuple[float, ...]) -> None:
    assert not prior.contains(outside)


def test_bounds_belong_to_the_prior() -> None:
    assert Uniform(0.0, 3.0).contains(0.0)
    assert Uniform(0.0, 3.0).contains(3.0)
    assert InDisc(2.0, inner=1.0).contains((1.0, 0.0))
    assert InDisc(2.0, inner=1.0).contains((0.0, -2.0))


def test_only_finite_priors_list_their_options() -> None:
    assert Choice((-1.0, 1.0)).options == (-1.0, 1.0)
    assert Mixture(Choice((1.0,)), Choice((2.0, 3.0))).options == (1.0, 2.0, 3.0)
    assert Mixture(Choice((1.0,)), Uniform(2.0, 3.0)).options is None
    assert Uniform(0.0, 1.0).options is None


def test_a_mixture_weighs_its_parts_by_their_size() -> None:
    # lengths 1 and 3: a quarter of the draws from the first
    prior = Mixture(Uniform(0.0, 1.0), Uniform(10.0, 13.0))
    rng = np.random.default_rng(0)
    share = np.mean([float(np.asarray(prior.sample(rng))) < 5 for _ in range(4000)])
    assert share == pytest.approx(0.25, abs=0.03)


def test_a_disc_is_uniform_over_its_area() -> None:
    # half of the area of the unit disc lies within r = 1 / sqrt 2
    rng = np.random.default_rng(0)
    points = np.array([InDisc(1.0).sample(rng) for _ in range(4000)])
    assert np.mean(np.hypot(*points.T) < math.sqrt(0.5)) == pytest.approx(0.5, abs=0.03)


def test_log_uniform_halves_as_often_as_it_doubles() -> None:
    rng = np.random.default_rng(0)
    draws = np.array([LogUniform(0.25, 4.0).sample(rng) for _ in range(4000)])
    assert np.mean(draws < 1) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: Choice((1, 1, 2)), "Choice: the value 1 is given 2 times; allowed is each value once"),
        (lambda: Choice((True, 2.0, 1)), "Choice: the value 1 is given 2 times"),
        (lambda: Choice(np.array([[0, 1], [2, 3], [0, 1]])), r"Choice: the value \(0.0, 1.0\) is given 2 times"),
        (lambda: Choice((-1, 0, -1, -1)), "Choice: the value -1 is given 3 times"),
        (lambda: Mixture(Choice((1, 2)), Choice((2, 3))), "Mixture: the value 2 is given 2 times"),
        (lambda: Mixture(Mixture(Choice((1,)), Choice((2,))), Choice((2,))), "Mixture: the value 2 is given 2 times"),
        (lambda: prior_of({"choice": [1, 1, 2]}, "vary.mass.prior"), r"vary\.mass\.prior = .*the value 1 is given 2"),
        (
            lambda: prior_of({"mixture": [{"choice": [1]}, {"choice": [1, 2]}]}, "vary.mass.ood"),
            r"vary\.mass\.ood = .*Mixture: the value 1 is given 2 times",
        ),
    ],
)
def test_a_value_that_is_repeated_is_refused_by_name(build: Callable[[], Prior], says: str) -> None:
    with pytest.raises(TaskError, match=says):
        build()


def test_values_that_differ_a_little_are_no_repetition_and_ranges_may_overlap() -> None:
    assert len(Choice((-1, 0, 1, 1.5)).values) == 4
    air = Uniform(0.0, 0.5)
    assert Mixture(Choice((0.0,)), air, air).measure == 2.0


@pytest.mark.parametrize(
    "build",
    [
        lambda: Uniform(1.0, 1.0),
        lambda: Uniform(0.0, math.inf),
        lambda: LogUniform(0.0, 1.0),
        lambda: Choice(()),
        lambda: InDisc(1.0, inner=2.0),
        lambda: Simplex(1),
        lambda: Mixture(),
    ],
)
def test_an_impossible_prior_is_refused(build: object) -> None:
    with pytest.raises(TaskError):
        build()  # type: ignore[operator]
