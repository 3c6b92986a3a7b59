"""What a representation holds of the task: a linear map from it to each task parameter, judged on other trials.

    y ~ W z + b                                          fitted on some trials
    R2 = 1 - sum |y - W z - b|^2 / sum |y - mean y|^2    on others

R2 is 1 where a parameter can be read off z linearly, and 0 or below where it cannot. An angle (unit rad) is probed as
its cosine and sine, a parameter with a log-uniform prior as its logarithm. Source: Alain and Bengio (2017).
Letters: K task, N stream, Z latent, P probed column, B resample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from metarl.evaluation.statistics import NUM_RESAMPLES, Interval, generator
from metarl.tasks import LogUniform, Parameter, Task

RIDGE = 1e-6  # of the latents' mean variance: least squares, but for latents that do not move at all
_EVEN = 1e-12  # a variance below this is that of equal values


@dataclass(frozen=True)
class Represented:
    """Trials on K tasks and what stands for each of their N streams."""

    tasks: tuple[Task, ...]
    z: Float[np.ndarray, "K N Z"]


@dataclass(frozen=True)
class Columns:
    """What of a parameter is probed: the columns' names, and how they come from its values."""

    names: tuple[str, ...]
    how: str  # "value", "cos and sin", "logarithm"
    values: Float[np.ndarray, "K P"]


def columns_of(parameter: Parameter, tasks: Sequence[Task]) -> Columns:
    """An angle's cosines and sines, a log-uniform parameter's logarithms, else the values; one column per component."""
    values = np.array([task[parameter.name] for task in tasks], dtype=np.float64).reshape(len(tasks), -1)
    names = parameter.components
    if is_angle(parameter):
        both = tuple(f"{f}({name})" for f in ("cos", "sin") for name in names)
        return Columns(both, "cos and sin", np.concatenate((np.cos(values), np.sin(values)), axis=1))
    if isinstance(parameter.prior, LogUniform):
        return Columns(tuple(f"log({name})" for name in names), "logarithm", np.log(values))
    return Columns(names, "value", values)


def is_angle(parameter: Parameter) -> bool:
    return parameter.unit in ("rad", "radians")


@dataclass(frozen=True)
class Score:
    """R2 and its 95 % interval over held-out tasks, the probe as it is; None where no value differs from another."""

    r2: float | None
    ci95: Interval | None


@dataclass(frozen=True)
class ParameterScore:
    """One parameter, all its columns together, and each of them."""

    name: str
    unit: str
    probed_as: str
    score: Score
    columns: dict[str, Score]


def probe(
    parameters: Sequence[Parameter], fitted_on: Represented, judged_on: Represented, seed: int, by_task: bool
) -> tuple[ParameterScore, ...]:
    """R2 of every parameter from z, by a linear map fitted on other trials.

    Intervals resample the judged tasks, or the trials of each where `by_task`: for a family that has no other tasks.
    """
    picks = resamples(judged_on.tasks, seed, by_task)
    scores = []
    for parameter in parameters:
        fit, judged = (columns_of(parameter, trials.tasks) for trials in (fitted_on, judged_on))
        num_streams, num_latents = fitted_on.z.shape[1:]
        W, b = least_squares(fitted_on.z.reshape(-1, num_latents), fit.values.repeat(num_streams, axis=0))
        errors = ((judged.values[:, None] - (judged_on.z @ W + b)) ** 2).mean(axis=1)  # [K, P]
        each = {name: score_of(judged.values[:, [p]], errors[:, [p]], picks) for p, name in enumerate(judged.names)}
        scores.append(
            ParameterScore(parameter.name, parameter.unit, fit.how, score_of(judged.values, errors, picks), each)
        )
    return tuple(scores)


def least_squares(
    z: Float[np.ndarray, "n Z"], y: Float[np.ndarray, "n P"]
) -> tuple[Float[np.ndarray, "Z P"], Float[np.ndarray, " P"]]:
    """W, b of y ~ z W + b; latents that never move get no weight."""
    z_mean, y_mean = z.mean(axis=0, dtype=np.float64), y.mean(axis=0)
    centred = z - z_mean
    products = centred.T @ centred
    penalty = RIDGE * products.trace() / len(products) + _EVEN
    W = np.linalg.solve(products + penalty * np.eye(len(products)), centred.T @ (y - y_mean))
    return W, y_mean - z_mean @ W


def r_squared(
    y: Float[np.ndarray, "*batch K P"], squared_errors: Float[np.ndarray, "*batch K P"]
) -> Float[np.ndarray, "*batch"]:
    """1 - sum |error|^2 / sum |y - mean y|^2 over tasks and columns; NaN where no value differs from another."""
    spread = ((y - y.mean(axis=-2, keepdims=True)) ** 2).sum(axis=(-2, -1))
    varies = spread > _EVEN * y.shape[-2]
    return np.where(varies, 1 - squared_errors.sum(axis=(-2, -1)) / np.where(varies, spread, 1.0), np.nan)


def resamples(tasks: Sequence[Task], seed: int, by_task: bool) -> Int[np.ndarray, "B K"]:
    """Which of the K trials each bootstrap resample holds; `by_task`, as many of each distinct task as there are."""
    rng = generator(seed)
    if not by_task:
        return rng.integers(len(tasks), size=(NUM_RESAMPLES, len(tasks)))
    rows = [np.array([k for k, task in enumerate(tasks) if task == one]) for one in dict.fromkeys(tasks)]
    return np.concatenate([row[rng.integers(len(row), size=(NUM_RESAMPLES, len(row)))] for row in rows], axis=1)


def score_of(y: np.ndarray, errors: np.ndarray, picks: np.ndarray) -> Score:
    """R2, and the quantiles of the resamples' R2 among those that have one."""
    r2 = float(r_squared(y, errors))
    if not np.isfinite(r2):
        return Score(None, None)
    low, high = np.nanquantile(r_squared(y[picks], errors[picks]), (0.025, 0.975))
    return Score(r2, (float(low), float(high)))
