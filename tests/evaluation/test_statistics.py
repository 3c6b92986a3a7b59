"""Statistics against hand-worked values, and intervals against what they promise."""

from __future__ import annotations

import numpy as np
import pytest

from metarl.errors import MetarlError
from metarl.evaluation.statistics import (
    bootstrap_ci95,
    cvar,
    hierarchical_ci95,
    holm,
    iqm,
    mean,
    seed_ci95,
    stratified_ci95,
    zero_mean_p_value,
)


def test_mean_is_over_the_last_axis() -> None:
    # (1 + 2 + 6) / 3 = 3, (0 + 0 + 3) / 3 = 1
    np.testing.assert_allclose(mean(np.array([[1.0, 2.0, 6.0], [0.0, 0.0, 3.0]])), [3.0, 1.0])


def test_iqm_drops_the_outer_quarters() -> None:
    # eight values: floor(8 / 4) = 2 go at each end, (3 + 4 + 5 + 6) / 4 = 4.5; the 1000 does not count
    values = np.array([1000.0, 5.0, 1.0, 4.0, 2.0, 6.0, 3.0, 7.0])
    assert float(iqm(values)) == 4.5


def test_iqm_of_fewer_than_four_values_is_the_mean() -> None:
    assert float(iqm(np.array([0.0, 0.0, 9.0]))) == 3.0


def test_iqm_of_each_row_is_that_of_the_row_alone() -> None:
    rows = np.random.default_rng(0).normal(size=(5, 11))
    np.testing.assert_allclose(iqm(rows), [float(iqm(row)) for row in rows])


def test_cvar_is_the_mean_of_the_worst_twentieth() -> None:
    # forty values 1 to 40: 0.05 * 40 = 2 of them, (1 + 2) / 2 = 1.5
    values = np.random.default_rng(0).permutation(np.arange(1.0, 41.0))
    assert cvar(values, 0.05) == 1.5


def test_cvar_of_sixty_values_takes_three_in_spite_of_rounding() -> None:
    # (1 + 2 + 3) / 3 = 2
    assert cvar(np.arange(1.0, 61.0).reshape(3, 20), 0.05) == 2.0


def test_cvar_of_few_values_is_the_worst_one() -> None:
    assert cvar(np.array([3.0, -7.0, 5.0])) == -7.0


def test_cvar_of_everything_is_the_mean() -> None:
    values = np.random.default_rng(0).normal(size=37)
    assert cvar(values, 1.0) == pytest.approx(values.mean())


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.5])
def test_cvar_names_a_bad_fraction(fraction: float) -> None:
    with pytest.raises(MetarlError, match=r"fraction must lie in \(0, 1\]"):
        cvar(np.ones(3), fraction)


def test_bootstrap_is_a_function_of_its_seed() -> None:
    values = np.random.default_rng(0).normal(size=20)
    assert bootstrap_ci95(values, mean, 5) == bootstrap_ci95(values, mean, 5)
    assert bootstrap_ci95(values, mean, 5) != bootstrap_ci95(values, mean, 6)


def test_bootstrap_leaves_the_global_generator_alone() -> None:
    before = np.random.get_state()[1].copy()  # type: ignore[index]
    bootstrap_ci95(np.arange(5.0), iqm, 0)
    hierarchical_ci95([np.arange(3.0)], mean, 0)
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # type: ignore[index]


def test_bootstrap_of_equal_or_single_values_has_no_width() -> None:
    assert bootstrap_ci95(np.full(7, 2.5), mean, 0) == (2.5, 2.5)
    assert bootstrap_ci95(np.array([-1.25]), iqm, 0) == (-1.25, -1.25)


def test_bootstrap_covers_the_true_mean_about_as_often_as_it_says() -> None:
    rng, covered, n = np.random.default_rng(0), 0, 200
    for trial in range(n):
        low, high = bootstrap_ci95(rng.normal(10.0, 2.0, size=40), mean, trial, num_resamples=500)
        covered += low <= 10.0 <= high
    # 95 % nominal; the percentile bootstrap of 40 values gives about 94 %.
    # Standard error of the count: sqrt(.05 * .95 / 200) = 1.5 %
    assert 0.90 <= covered / n <= 0.985


def test_bootstrap_width_is_that_of_the_normal_theory() -> None:
    values = np.random.default_rng(1).normal(size=400)
    low, high = bootstrap_ci95(values, mean, 0)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)  # sqrt(400) = 20


def test_two_tasks_alone_would_give_their_two_scores_as_the_interval() -> None:
    # resamples of {0, 10}: 0 (1/4), 5 (1/2), 10 (1/4), so the 2.5 % and 97.5 % points are 0 and 10
    assert bootstrap_ci95(np.array([0.0, 10.0]), mean, 0) == (0.0, 10.0)


def test_two_level_resampling_of_two_tasks_reaches_beyond_both_by_the_noise_within() -> None:
    rng = np.random.default_rng(0)
    repeats = [rng.normal(0.0, 1.0, 25), rng.normal(10.0, 1.0, 25)]
    low, high = hierarchical_ci95(repeats, mean, 0)
    # a quarter of the resamples holds only the worse task, of standard error 1 / sqrt(2 * 25) = 0.14 around its mean
    assert repeats[0].mean() - 0.6 < low < repeats[0].mean()
    assert repeats[1].mean() < high < repeats[1].mean() + 0.6


def test_two_equal_tasks_still_have_an_interval_because_of_their_episodes() -> None:
    scores = np.random.default_rng(0).normal(size=16)
    low, high = hierarchical_ci95([scores, scores], mean, 0)
    assert low < scores.mean() < high
    # both levels: the mean of two means of 16, standard error sd / sqrt(32)
    assert high - low == pytest.approx(2 * 1.96 * scores.std() / np.sqrt(32), rel=0.12)


def test_two_level_resampling_of_noiseless_repeats_is_resampling_of_tasks() -> None:
    values = np.arange(6.0)
    one = hierarchical_ci95([np.full(4, v) for v in values], mean, 0)
    other = bootstrap_ci95(values, mean, 1)
    np.testing.assert_allclose(one, other, atol=0.35)  # a step of the resampled means is 1 / 6


def test_one_task_with_many_episodes_has_the_noise_of_those_episodes() -> None:
    scores = np.random.default_rng(0).normal(size=100)
    low, high = hierarchical_ci95([scores], mean, 0)
    assert high - low == pytest.approx(2 * 1.96 * scores.std() / 10, rel=0.1)


def test_tasks_may_have_different_numbers_of_repeats() -> None:
    assert hierarchical_ci95([np.full(3, 2.0), np.full(8, 2.0)], mean, 0) == (2.0, 2.0)


def test_no_values_is_an_error() -> None:
    for call in (
        lambda: bootstrap_ci95(np.empty(0), mean, 0),
        lambda: hierarchical_ci95([], mean, 0),
        lambda: hierarchical_ci95([np.empty(0)], mean, 0),
        lambda: cvar(np.empty(0)),
    ):
        with pytest.raises(MetarlError, match="at least one"):
            call()


def test_stratified_interval_covers_the_mean_of_unlike_tasks_at_its_nominal_rate() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        low, high = stratified_ci95([rng.normal(c, 1, size=30) for c in (-50.0, 70.0)], mean, trial, num_resamples=300)
        hits += low <= 10.0 <= high
    assert 0.9 <= hits / 200 <= 0.98


def test_stratified_interval_has_no_width_where_repeats_agree_however_far_the_tasks_lie_apart() -> None:
    assert stratified_ci95([np.full(3, 2.0), np.full(8, 4.0)], mean, 0) == (3.0, 3.0)


def test_the_interval_over_seeds_is_student_s() -> None:
    # mean 2, s = 1, n = 3, t(0.975, 2) = 4.302653: half is 4.302653 / sqrt(3) = 2.484138
    assert seed_ci95([1.0, 2.0, 3.0]) == pytest.approx((2 - 2.484138, 2 + 2.484138), abs=1e-5)
    assert seed_ci95([5.0, 5.0]) == (5.0, 5.0)


@pytest.mark.parametrize("num_seeds", [2, 3, 5, 10])
def test_the_interval_over_seeds_covers_the_mean_as_often_as_it_says(num_seeds: int) -> None:
    scores = np.random.default_rng(0).normal(3.0, 2.0, size=(2000, num_seeds))
    intervals = [seed_ci95(values.tolist()) for values in scores]
    assert 0.93 <= np.mean([low <= 3.0 <= high for low, high in intervals]) <= 0.97


@pytest.mark.parametrize(
    ("values", "message"), [([1.0], "at least two"), ([], "at least two"), ([1, np.nan], "finite")]
)
def test_an_interval_over_seeds_needs_two_finite_scores(values: list[float], message: str) -> None:
    with pytest.raises(MetarlError, match=message):
        seed_ci95(values)


def test_the_p_value_is_the_level_whose_interval_ends_at_zero() -> None:
    low, _ = seed_ci95([1.0, 2.0, 4.0])
    assert zero_mean_p_value([1.0 - low, 2.0 - low, 4.0 - low]) == pytest.approx(0.05)
    assert zero_mean_p_value([-1.0, 1.0]) == 1.0
    assert (zero_mean_p_value([0.0, 0.0]), zero_mean_p_value([2.0, 2.0])) == (1.0, 0.0)


def test_holm_compares_each_p_value_with_its_share_and_stops_at_the_first_that_is_above() -> None:
    # sorted 0.01 <= 0.05 / 3, 0.02 <= 0.05 / 2, 0.06 > 0.05 / 1
    assert holm([0.06, 0.01, 0.02], 0.05) == [False, True, True]
    # 0.03 > 0.05 / 2 ends it, although 0.04 <= 0.05 / 1
    assert holm([0.04, 0.03], 0.05) == [False, False]
    # as the only one given of four: 0.02 > 0.05 / 4
    assert holm([0.02], 0.05, num_hypotheses=4) == [False]
    assert holm([], 0.05) == []
