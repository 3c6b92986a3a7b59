"""Statistics of several trainings on the same tasks: aggregates, their intervals, and comparisons of two methods.

Scores are one matrix per method, [S, K]: the score of each seed's training on each task. Shape letters: S seeds,
K tasks, T thresholds, B resamples.

    one training per seed, judged on all K tasks      `crossed_ci95`      seeds and tasks are both drawn at random
    one training per seed and task (K benchmarks)     `stratified_ci95`   Agarwal et al. (2021)

A meta-trained policy is one training for all tasks: a good seed is good on most of them, so that the K scores of a row
move together. The stratified bootstrap takes all S x K scores for independent, and its interval is then far too narrow.

Sources: aggregates, performance profiles, probability of improvement and the stratified bootstrap, Agarwal et al.
(2021); Mann and Whitney (1947); jackknife, Efron and Stein (1981); degrees of freedom, Satterthwaite (1946); crossed
random effects, Owen (2007).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float
from scipy.special import stdtrit
from scipy.stats import trim_mean

from metarl.errors import MetarlError
from metarl.evaluation.statistics import NUM_RESAMPLES, Interval, generator

Aggregate = Callable[..., np.ndarray]  # matrices [..., S, K], one per method -> [...]
_BOUNDS = (0.025, 0.975)
_BATCH = 100  # matrices at once: bounds the memory


# --- aggregates --------------------------------------------------------------------------------------


def mean(scores: Float[np.ndarray, "*batch S K"]) -> Float[np.ndarray, "*batch"]:
    """The mean over all seeds and tasks."""
    return np.asarray(np.mean(scores, axis=(-2, -1)))


def iqm(scores: Float[np.ndarray, "*batch S K"]) -> Float[np.ndarray, "*batch"]:
    """The interquartile mean of all S x K scores: without the lowest and the highest floor(S K / 4)."""
    return np.asarray(trim_mean(scores.reshape(*scores.shape[:-2], -1), 0.25, axis=-1))


def performance_profile(
    scores: Float[np.ndarray, "*batch S K"], thresholds: Sequence[float] | Float[np.ndarray, " T"]
) -> Float[np.ndarray, "*batch T"]:
    """The share of the S x K scores above each threshold; falls from 1 to 0 as the threshold rises."""
    flat = scores.reshape(*scores.shape[:-2], 1, -1)
    return np.asarray((flat > np.asarray(thresholds, np.float64)[:, None]).mean(axis=-1))


def probability_of_improvement(
    x: Float[np.ndarray, "*batch S K"], y: Float[np.ndarray, "*batch S2 K"]
) -> Float[np.ndarray, "*batch"]:
    """P(X > Y) + P(X = Y) / 2 for a seed of method x and one of y on the same task, averaged over tasks.

    1/2 where neither is better. MetarlError where x and y have different numbers of tasks.
    """
    if x.shape[-1] != y.shape[-1]:
        raise MetarlError(f"probability_of_improvement: scores on {x.shape[-1]} and on {y.shape[-1]} tasks")
    return np.asarray(improvement_by_task(x, y).mean(axis=-1))


def improvement_by_task(
    x: Float[np.ndarray, "*batch S K"], y: Float[np.ndarray, "*batch S2 K"]
) -> Float[np.ndarray, "*batch K"]:
    """P(X > Y) + P(X = Y) / 2 on each task: Mann and Whitney's U / (S S2)."""
    gaps = x[..., :, None, :] - y[..., None, :, :]
    return np.asarray(((gaps > 0) + 0.5 * (gaps == 0)).mean(axis=(-3, -2)))


# --- intervals ---------------------------------------------------------------------------------------


def crossed_ci95(statistic: Aggregate, *scores: Float[np.ndarray, "S K"], tasks_are_drawn: bool = True) -> Interval:
    """The 95 % interval of `statistic(*scores)` for other seeds, and other tasks where `tasks_are_drawn`.

    Half of its width is t(0.975, d) sqrt(v), where v adds the jackknife's variances over the rows of each matrix and
    over the columns, which all matrices share, and d are Satterthwaite's degrees of freedom. Few seeds make it wide,
    as they should: a percentile bootstrap over three seeds cannot reach beyond the best and the worst. Of one
    matrix's mean over fixed tasks (`tasks_are_drawn=False`: a finite family) it is Student's interval over the seeds'
    means. No width means that no row and no column makes a difference: then the scores do not hold the spread.

    MetarlError where a matrix has fewer than two seeds, tasks are drawn and there are fewer than two, the numbers of
    tasks differ, or a score is not finite.
    """
    low, high = _crossed("crossed_ci95", statistic, scores, tasks_are_drawn)
    return float(low), float(high)


def performance_profile_ci95(
    scores: Float[np.ndarray, "S K"], thresholds: Sequence[float], tasks_are_drawn: bool = True
) -> tuple[Float[np.ndarray, " T"], Float[np.ndarray, " T"]]:
    """The pointwise 95 % band of `performance_profile`, between 0 and 1. Method and errors: `crossed_ci95`."""
    bounds = _crossed(
        "performance_profile_ci95", lambda s: performance_profile(s, thresholds), (scores,), tasks_are_drawn
    )
    return np.clip(bounds[0], 0, 1), np.clip(bounds[1], 0, 1)


def stratified_ci95(
    statistic: Aggregate,
    *scores: Float[np.ndarray, "S K"],
    seed: int | Sequence[int] = 0,
    num_resamples: int = NUM_RESAMPLES,
) -> Interval:
    """The 95 % percentile bootstrap interval that resamples the seeds of each task on its own (Agarwal et al. 2021).

    For benchmarks on which every (seed, task) is a training of its own, and over these very tasks. Where a seed is one
    training for all tasks use `crossed_ci95`. A function of its arguments alone. Errors: `crossed_ci95`.
    """
    _check("stratified_ci95", scores, min_tasks=1)
    rng = generator(seed)
    resampled = []
    for start in range(0, num_resamples, _BATCH):
        count = min(_BATCH, num_resamples - start)
        picks = (rng.integers(len(one), size=(count, *one.shape)) for one in scores)
        drawn = [
            np.take_along_axis(np.broadcast_to(one, pick.shape), pick, axis=1)
            for one, pick in zip(scores, picks, strict=True)
        ]
        resampled.append(statistic(*drawn))
    low, high = np.quantile(np.concatenate(resampled), _BOUNDS)
    return float(low), float(high)


def _crossed(
    name: str, statistic: Aggregate, scores: Sequence[np.ndarray], tasks_are_drawn: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Both bounds, for statistics of any shape."""
    _check(name, scores, min_tasks=2 if tasks_are_drawn else 1)
    num_tasks = scores[0].shape[1]
    parts = []  # (variance, degrees of freedom)
    for i, one in enumerate(scores):
        left_out = [(*scores[:i], np.delete(one, row, axis=0), *scores[i + 1 :]) for row in range(len(one))]
        parts.append(_jackknife_variance(statistic, left_out))
    if tasks_are_drawn:
        left_out = [tuple(np.delete(one, task, axis=1) for one in scores) for task in range(num_tasks)]
        parts.append(_jackknife_variance(statistic, left_out))
    variance = np.sum([v for v, _ in parts], axis=0)
    weights = np.sum([v**2 / freedom for v, freedom in parts], axis=0)
    freedom = np.where(weights > 0, variance**2 / np.where(weights > 0, weights, 1), 1)
    half = stdtrit(freedom, _BOUNDS[1]) * np.sqrt(variance)
    centre = statistic(*scores)
    return centre - half, centre + half


def _jackknife_variance(statistic: Aggregate, left_out: Sequence[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, int]:
    """The variance of a statistic from its values with each of n observations left out, and n - 1."""
    count = len(left_out)
    batches = [left_out[i : i + _BATCH] for i in range(0, count, _BATCH)]
    values = np.concatenate([statistic(*map(np.stack, zip(*batch, strict=True))) for batch in batches])
    return (count - 1) / count * ((values - values.mean(axis=0)) ** 2).sum(axis=0), count - 1


def _check(name: str, scores: Sequence[np.ndarray], min_tasks: int) -> None:
    for one in scores:
        if one.ndim != 2:
            raise MetarlError(f"{name}: scores must be [seeds, tasks], got shape {one.shape}")
        if one.shape[0] < 2 or one.shape[1] < min_tasks:
            raise MetarlError(
                f"{name}: needs at least 2 seeds and {min_tasks} task{'s' * (min_tasks > 1)}, got {one.shape}"
            )
        if not np.isfinite(one).all():
            raise MetarlError(f"{name}: scores must be finite")
    if len({one.shape[1] for one in scores}) != 1:
        raise MetarlError(f"{name}: scores on different numbers of tasks: {[one.shape[1] for one in scores]}")
