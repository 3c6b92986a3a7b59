"""Statistics over seeds and tasks: by hand, against scipy, and how often intervals hold the truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from metarl.errors import MetarlError
from metarl.evaluation.aggregate import (
    crossed_ci95,
    iqm,
    mean,
    performance_profile,
    performance_profile_ci95,
    probability_of_improvement,
    stratified_ci95,
)
from metarl.evaluation.statistics import seed_ci95


def scores_of(
    rng: np.random.Generator, seeds: int, tasks: int, seed_std: float, task_std: float, noise: float = 1.0
) -> np.ndarray:
    """Scores of mean 0: a part of the seed, one of the task, and noise."""
    of_seed, of_task = rng.normal(0, seed_std, (seeds, 1)), rng.normal(0, task_std, (1, tasks))
    return of_seed + of_task + rng.normal(0, noise, (seeds, tasks))


# --- aggregates --------------------------------------------------------------------------------------


def test_iqm_and_mean_are_over_all_seeds_and_tasks() -> None:
    scores = np.array([[0.0, 1.0, 2.0, 100.0], [3.0, 4.0, 5.0, -100.0]])
    assert iqm(scores) == (1 + 2 + 3 + 4) / 4  # without -100, 0 and 5, 100
    assert mean(scores) == 15 / 8
    np.testing.assert_array_equal(iqm(np.stack([scores, 2 * scores])), [2.5, 5.0])


def test_a_profile_is_the_share_of_scores_above_each_threshold() -> None:
    scores = np.array([[0.0, 1.0], [2.0, 3.0]])
    np.testing.assert_array_equal(performance_profile(scores, [-1.0, 0.0, 1.5, 3.0]), [1.0, 0.75, 0.5, 0.0])


def test_the_probability_of_improvement_by_hand_and_by_mann_and_whitney() -> None:
    x, y = np.array([[1.0, 5.0], [3.0, 5.0]]), np.array([[2.0, 5.0], [0.0, 6.0], [3.0, 7.0]])
    # task 1: 1 beats 0; 3 beats 2 and 0 and ties with 3: 3.5 of 6. task 2: two ties with 5: 1 of 6
    assert probability_of_improvement(x, y) == pytest.approx((3.5 / 6 + 1 / 6) / 2)
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 5, (6, 9)).astype(float), rng.integers(0, 5, (4, 9)).astype(float)
    u = [stats.mannwhitneyu(x[:, k], y[:, k]).statistic / 24 for k in range(9)]
    assert probability_of_improvement(x, y) == pytest.approx(np.mean(u))
    assert probability_of_improvement(x, y) + probability_of_improvement(y, x) == pytest.approx(1.0)
    assert probability_of_improvement(x, x) == pytest.approx(0.5)


# --- intervals ---------------------------------------------------------------------------------------


def test_over_fixed_tasks_the_crossed_interval_of_the_mean_is_students_over_seeds() -> None:
    scores = scores_of(np.random.default_rng(1), 4, 7, 1.0, 1.0)
    expected = seed_ci95(scores.mean(axis=1).tolist())
    assert crossed_ci95(mean, scores, tasks_are_drawn=False) == pytest.approx(expected)


def test_tasks_and_seeds_add_their_variances() -> None:
    scores = np.array([[0.0, 2.0], [4.0, 6.0]])  # means of rows 1, 5; of columns 2, 4
    # variances of the mean of two: (5 - 1)^2 / 4 = 4 and (4 - 2)^2 / 4 = 1; freedom (4 + 1)^2 / (16 + 1) = 25 / 17
    half = float(stats.t.ppf(0.975, 25 / 17)) * 5**0.5
    assert crossed_ci95(mean, scores) == pytest.approx((3 - half, 3 + half))


def test_two_methods_share_their_tasks() -> None:
    rng = np.random.default_rng(2)
    tasks = rng.normal(0, 10, (1, 30))
    x, y = tasks + rng.normal(1, 0.1, (3, 30)), tasks + rng.normal(0, 0.1, (4, 30))
    low, high = crossed_ci95(lambda a, b: mean(a) - mean(b), x, y)
    assert 0.8 < low < 1 < high < 1.2  # how the tasks differ is no uncertainty of the difference
    low, high = crossed_ci95(mean, x)
    assert high - low > 4


@pytest.mark.parametrize("statistic", [mean, iqm])
def test_the_stratified_interval_is_that_of_scipys_bootstrap(statistic) -> None:
    scores = scores_of(np.random.default_rng(3), 8, 5, 0.0, 3.0)

    def of_columns(*columns: np.ndarray, axis: int = -1) -> np.ndarray:
        return statistic(np.stack(columns, axis=-1))  # each [B, S]

    expected = stats.bootstrap(
        tuple(scores.T), of_columns, vectorized=True, n_resamples=4000, method="percentile", random_state=0
    ).confidence_interval
    found = stratified_ci95(statistic, scores, seed=1, num_resamples=4000)
    assert found == pytest.approx(tuple(expected), abs=0.05 * (expected[1] - expected[0]))
    assert stratified_ci95(statistic, scores, seed=1, num_resamples=4000) == found
    assert stratified_ci95(statistic, scores, seed=2, num_resamples=4000) != found


def coverage(interval, seeds: int, seed_std: float, repeats: int = 200) -> float:
    """How often the interval holds the true value, 0."""
    rng = np.random.default_rng(4)
    found = [interval(scores_of(rng, seeds, 12, seed_std, 1.0)) for _ in range(repeats)]
    return float(np.mean([low <= 0 <= high for low, high in found]))


@pytest.mark.parametrize(
    ("statistic", "seed_std", "seeds"), [(mean, 0.0, 3), (mean, 1.0, 3), (mean, 1.0, 8), (iqm, 0.0, 8), (iqm, 1.0, 3)]
)
def test_crossed_intervals_hold_the_truth_as_often_as_they_say(statistic, seed_std: float, seeds: int) -> None:
    assert 0.91 <= coverage(lambda scores: crossed_ci95(statistic, scores), seeds, seed_std) <= 0.99


def test_the_stratified_interval_holds_it_where_every_score_is_a_training_of_its_own_alone() -> None:
    def fixed(scores: np.ndarray) -> tuple[float, float]:
        return stratified_ci95(mean, scores, num_resamples=300)

    def noise_alone(rng: np.random.Generator) -> bool:
        tasks = rng.normal(0, 1, (1, 12))
        low, high = fixed(tasks + rng.normal(0, 1, (8, 12)))
        return low <= tasks.mean() <= high

    rng = np.random.default_rng(5)
    assert np.mean([noise_alone(rng) for _ in range(300)]) > 0.9
    assert coverage(fixed, seeds=8, seed_std=1.0) < 0.6


def test_a_profiles_band_holds_its_profile_and_stays_between_0_and_1() -> None:
    scores = scores_of(np.random.default_rng(6), 5, 20, 1.0, 1.0)
    thresholds = [-9.0, -1.0, 0.0, 1.0, 9.0]
    low, high = performance_profile_ci95(scores, thresholds)
    profile = performance_profile(scores, thresholds)
    assert (low >= 0).all()
    assert (low <= profile).all()
    assert (profile <= high).all()
    assert (high <= 1).all()
    assert (high - low)[2] > 0.2
    assert (low[0], high[0], low[-1], high[-1]) == (1, 1, 0, 0)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([np.zeros((1, 5))], "at least 2 seeds and 2 tasks"),
        ([np.zeros((5, 1))], "at least 2 seeds and 2 tasks"),
        ([np.zeros((2, 3)), np.zeros((2, 4))], "different numbers of tasks: \\[3, 4\\]"),
        ([np.full((2, 2), np.nan)], "finite"),
        ([np.zeros(4)], "shape \\(4,\\)"),
    ],
)
def test_scores_that_hold_no_interval_are_refused(scores: list[np.ndarray], message: str) -> None:
    with pytest.raises(MetarlError, match=message):
        crossed_ci95(lambda *all_scores: mean(all_scores[0]), *scores)


def test_methods_on_other_tasks_are_not_compared() -> None:
    with pytest.raises(MetarlError, match="on 3 and on 4 tasks"):
        probability_of_improvement(np.zeros((2, 3)), np.zeros((2, 4)))
