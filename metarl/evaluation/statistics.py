"""Statistics over per-task scores: point estimates, bootstrap intervals, tail means. Pure functions of arrays.

The task is the unit of every interval: how the policy does on *other tasks of the same kind* is the question, so
a thousand episodes on five tasks are five observations. Shape letters: K tasks, B resamples, M repeats of a task.

    many tasks   `bootstrap_ci95`      resamples tasks; the noise of each task's score comes along with it
    all tasks    `stratified_ci95`     of a finite family: resamples the repeats of each task
    few tasks    `hierarchical_ci95`   resamples tasks, then the repeats of each drawn task

A score may be several numbers that are drawn together, `...`, such as the two of a `ratio`.

Where trainings are compared the seed is the unit, and there are few of them: `seed_ci95` and `holm` assume normal
scores instead of resampling, because a bootstrap over five values covers far less than it says. Statistics over seeds
and tasks together are in `metarl.evaluation.aggregate`.

Sources: percentile bootstrap, Efron (1979); interquartile mean for RL, Agarwal et al. (2021); two-stage resampling
of nested data, Davison and Hinkley (1997), section 3.8; t interval, Student (1908); step-down tests, Holm (1979).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float
from scipy.special import stdtr, stdtrit
from scipy.stats import trim_mean

from metarl.errors import MetarlError

Statistic = Callable[[np.ndarray], np.ndarray]  # [..., K] -> [...]
Interval = tuple[float, float]

NUM_RESAMPLES = 2000
_BOUNDS = (0.025, 0.975)


def mean(values: Float[np.ndarray, "*batch K"]) -> Float[np.ndarray, "*batch"]:
    """The mean over the last axis."""
    return np.asarray(np.mean(values, axis=-1))


def iqm(values: Float[np.ndarray, "*batch K"]) -> Float[np.ndarray, "*batch"]:
    """Interquartile mean over the last axis: the mean without the lowest and the highest floor(K / 4) values.

    Less moved by a few extreme tasks than the mean, less noisy than the median. With fewer than four values
    nothing is cut, and it is the mean.
    """
    return np.asarray(trim_mean(values, 0.25, axis=-1))


def ratio(values: Float[np.ndarray, "*batch K 2"]) -> Float[np.ndarray, "*batch"]:
    """The sum of each task's first number over that of the second.

    For second numbers whose sum has an interval clear of zero: near it the ratio has no limits.
    """
    first, second = np.moveaxis(values.sum(axis=-2), -1, 0)
    return np.asarray(first / second)


def cvar(values: Float[np.ndarray, "*any"], fraction: float = 0.05) -> float:
    """Conditional value at risk: the mean of the worst `fraction` of all values, of at least one value.

    The number of values is floor(fraction * size); the array is read flat. Give it episodes, not task means, so
    that rare failures within a task are seen.
    """
    if not 0 < fraction <= 1:
        raise MetarlError(f"cvar: fraction must lie in (0, 1], got {fraction}")
    flat = _not_empty("cvar", values).ravel()
    num_worst = max(1, math.floor(fraction * flat.size + 1e-9))  # 1e-9: 0.05 * 60 may come out below 3
    return float(np.partition(flat, num_worst - 1)[:num_worst].mean())


def bootstrap_ci95(
    values: Float[np.ndarray, "K ..."],
    statistic: Statistic,
    seed: int | Sequence[int],
    num_resamples: int = NUM_RESAMPLES,
) -> Interval:
    """The 95 % percentile bootstrap interval of `statistic` over tasks; a function of its arguments alone.

    `values` holds one score per task. Its meaning: how far the statistic would move with other tasks drawn from
    the same distribution, episode noise included. Equal values give an interval of width zero, as does a
    single value: the data then hold no information on the spread, and a caller should say so.
    """
    _not_empty("bootstrap_ci95", values)
    rng = generator(seed)
    resampled = values[rng.integers(len(values), size=(num_resamples, len(values)))]  # [B, K]
    return _interval(statistic(resampled))


def hierarchical_ci95(
    repeats: Sequence[Float[np.ndarray, "_ ..."]],
    statistic: Statistic,
    seed: int | Sequence[int],
    num_resamples: int = NUM_RESAMPLES,
) -> Interval:
    """The 95 % bootstrap interval for few tasks: resamples tasks, then within each drawn task its repeats.

    `repeats[k]` holds the independent scores of task k (trials or episodes; as many as there are). `statistic`
    sees the K means of one resample. With two tasks, tasks alone would have three different resamples, whatever
    the noise; the second stage adds the noise within each task.

    Its meaning: where the statistic would lie for as many tasks drawn anew, each measured anew. It is wide where
    the tasks differ, as it should be: with two tasks it reaches from the worse to the better one, and an adaptation
    gain's interval clears zero only where both gain. For a family that has no other tasks use
    `stratified_ci95`. With one task it holds the noise of that task alone, and says nothing of others. With many
    tasks use `bootstrap_ci95`: there this one counts the noise within tasks twice.
    """
    if not repeats:
        raise MetarlError("hierarchical_ci95: needs at least one task, got none")
    rng = generator(seed)
    picks = rng.integers(len(repeats), size=(num_resamples, len(repeats)))
    resampled = np.empty((*picks.shape, *repeats[0].shape[1:]))  # [B, K, ...]
    for k, scores in enumerate(repeats):
        _not_empty("hierarchical_ci95", scores)
        drawn = picks == k
        resampled[drawn] = scores[rng.integers(len(scores), size=(int(drawn.sum()), len(scores)))].mean(axis=1)
    return _interval(statistic(resampled))


def stratified_ci95(
    repeats: Sequence[Float[np.ndarray, "_ ..."]],
    statistic: Statistic,
    seed: int | Sequence[int],
    num_resamples: int = NUM_RESAMPLES,
) -> Interval:
    """The 95 % bootstrap interval where the tasks at hand are all there are: resamples each task's repeats alone.

    `repeats[k]` holds the independent scores of task k; `statistic` sees the K means of one resample. Its meaning:
    where the statistic over these very tasks would lie if each were measured anew. No other task could have been
    drawn, so how far the tasks differ is no uncertainty; reports show them side by side.
    """
    if not repeats:
        raise MetarlError("stratified_ci95: needs at least one task, got none")
    rng = generator(seed)
    resampled = np.empty((num_resamples, len(repeats), *repeats[0].shape[1:]))  # [B, K, ...]
    for k, scores in enumerate(repeats):
        _not_empty("stratified_ci95", scores)
        resampled[:, k] = scores[rng.integers(len(scores), size=(num_resamples, len(scores)))].mean(axis=1)
    return _interval(statistic(resampled))


def seed_ci95(values: Sequence[float]) -> Interval:
    """The 95 % interval of the mean of one score per seed: mean -+ t(0.975, n - 1) s / sqrt(n), Student (1908).

    For differences between two settings pass the differences seed by seed. Equal values give an interval of width
    zero. MetarlError where there are fewer than two values, or one that is not finite.
    """
    centre, error, scores = _mean_and_error("seed_ci95", values)
    half = float(stdtrit(len(scores) - 1, _BOUNDS[1])) * error
    return centre - half, centre + half


def zero_mean_p_value(values: Sequence[float]) -> float:
    """The two-sided p-value of Student's t test that the mean of one value per seed is zero. Errors: `seed_ci95`."""
    centre, error, scores = _mean_and_error("zero_mean_p_value", values)
    if error == 0:
        return float(centre == 0)
    return float(2 * stdtr(len(scores) - 1, -abs(centre) / error))


def holm(p_values: Sequence[float], level: float, num_hypotheses: int | None = None) -> list[bool]:
    """Which hypotheses Holm's step-down procedure (1979) rejects: the i-th smallest p-value is compared with
    level / (num_hypotheses - i + 1), until the first that is not below it.

    The probability of any false rejection is at most `level`. `num_hypotheses` counts those too that the data might
    have selected instead of the ones given (by default the given ones).
    """
    count = len(p_values) if num_hypotheses is None else num_hypotheses
    rejected = [False] * len(p_values)
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        if p_values[index] > level / (count - rank):
            break
        rejected[index] = True
    return rejected


def told_from_best(scores: Sequence[Mapping[int, float]], best: int, level: float) -> list[bool]:
    """Which settings are worse than the best one, by t tests of the differences paired by seed.

    `scores`: for each setting the score by seed; `best`: the index of the one that the same scores have chosen. Since
    any of the k (k - 1) / 2 pairs could have been tested, Holm's procedure counts them all: the probability of any
    false claim is at most `level`, however many settings are equal. Without two common seeds nothing is told.
    """
    others = [i for i in range(len(scores)) if i != best]
    p_values = []
    for i in others:
        gaps = [scores[best][seed] - scores[i][seed] for seed in scores[best] if seed in scores[i]]
        p_values.append(zero_mean_p_value(gaps) if len(gaps) > 1 and np.mean(gaps) > 0 else 1.0)
    rejected = dict(zip(others, holm(p_values, level, len(scores) * len(others) // 2), strict=True))
    return [rejected.get(i, False) for i in range(len(scores))]


def _mean_and_error(name: str, values: Sequence[float]) -> tuple[float, float, np.ndarray]:
    """Mean, its standard error, and the values as an array."""
    scores = np.asarray(values, np.float64)
    if len(scores) < 2:
        raise MetarlError(f"{name}: needs the scores of at least two seeds, got {len(scores)}")
    if not np.isfinite(scores).all():
        raise MetarlError(f"{name}: scores must be finite, got {scores.tolist()}")
    return float(scores.mean()), float(scores.std(ddof=1) / math.sqrt(len(scores))), scores


def _interval(resampled: Float[np.ndarray, " B"]) -> Interval:
    low, high = np.quantile(resampled, _BOUNDS)
    return float(low), float(high)


def generator(seed: int | Sequence[int]) -> np.random.Generator:
    """The generator of a bootstrap's resamples."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed)))


def _not_empty(name: str, values: np.ndarray) -> np.ndarray:
    if values.size == 0:
        raise MetarlError(f"{name}: needs at least one value, got none")
    return values
