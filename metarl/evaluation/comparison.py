"""Policies against each other on equal tasks."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from metarl.errors import MetarlError
from metarl.evaluation.aggregate import improvement_by_task
from metarl.evaluation.by_task import FEW_TASKS, Estimate, tasks_ci95
from metarl.evaluation.evaluate import Evaluation, last_repeats, paired
from metarl.evaluation.statistics import mean, ratio


@dataclass(frozen=True)
class Pair:
    """`first` against `second`, last rounds, paired per task.

    difference: of the returns. improvement: the probability that `first` returns more on a task, ties counting half
    (Agarwal et al. 2021, with the task as the unit; of few tasks, with the repeats of each).
    """

    first: str
    second: str
    difference: Estimate
    improvement: Estimate


@dataclass(frozen=True)
class Gap:
    """What knowing the task is worth, and how much of that each other policy gets without being told.

    recovered: by name, (mean - task_blind) / (oracle - task_blind) of the returns over all tasks. Empty where the
    oracle is not better than the task-blind policy, its interval taken into account: there is no gap then.
    """

    oracle: str
    task_blind: str
    width: Estimate
    recovered: dict[str, Estimate]


@dataclass(frozen=True)
class Comparison:
    """Evaluations by name, all on the same tasks, and every pair of them, the better one first.

    gap: between the best oracle and the best task-blind policy; None where one of them is missing.
    """

    evaluations: dict[str, Evaluation]
    pairs: tuple[Pair, ...]
    gap: Gap | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        evaluations = {name: evaluation.to_json() for name, evaluation in self.evaluations.items()}
        gap = None if self.gap is None else asdict(self.gap)
        return {"evaluations": evaluations, "pairs": [asdict(pair) for pair in self.pairs], "gap": gap}


def compare(evaluations: Mapping[str, Evaluation], seed: int) -> Comparison:
    """Compare every pair. MetarlError where they were not judged on the same tasks."""
    names = sorted(evaluations, key=lambda name: -evaluations[name].rounds[-1].mean)
    for name in names[1:]:
        require_same_tasks(names[0], evaluations[names[0]], name, evaluations[name])
    pairs = []
    for first, second in itertools.combinations(names, 2):
        one, other = evaluations[first], evaluations[second]
        pairs.append(Pair(first, second, paired(one, other, seed), _improvement(one, other, seed)))
    ranked = {name: evaluations[name] for name in names}
    return Comparison(ranked, tuple(pairs), _gap(ranked, seed))


def _improvement(one: Evaluation, other: Evaluation, seed: int) -> Estimate:
    returns = np.stack((_last_returns(one), _last_returns(other)), axis=1)
    is_few = one.is_whole or len(returns) <= FEW_TASKS
    repeats = last_repeats(one, other) if is_few else list(returns[:, None])
    wins = [improvement_by_task(scores[None, :, 0], scores[None, :, 1]) for scores in repeats]
    shares = np.array([of_task.mean() for of_task in wins])
    if len(set(shares.tolist())) == 1 and shares[0] in (0.0, 1.0) and not one.is_whole:
        return _always(bool(shares[0]), len(shares))
    return Estimate(float(mean(shares)), tasks_ci95(shares, wins, mean, one.is_whole, seed))


def _always(is_win: bool, number: int) -> Estimate:
    """What so many wins out of as many say, or as many losses: no resampling of them differs. The interval is that of
    Clopper and Pearson (1934)."""
    end = 0.025 ** (1 / number)
    return Estimate(1.0, (end, 1.0)) if is_win else Estimate(0.0, (0.0, 1 - end))


def _gap(ranked: Mapping[str, Evaluation], seed: int) -> Gap | None:
    oracles = [name for name, evaluation in ranked.items() if evaluation.is_oracle]
    blind = [name for name, e in ranked.items() if e.adapts == "never" and not e.is_oracle]
    if not oracles or not blind:
        return None
    top, bottom = oracles[0], blind[0]
    width = paired(ranked[top], ranked[bottom], seed)
    others = [name for name in ranked if name not in (top, bottom)] if width.is_above_zero else []
    recovered = {name: _share(ranked[name], ranked[top], ranked[bottom], seed) for name in others}
    return Gap(top, bottom, width, recovered)


def _share(one: Evaluation, top: Evaluation, bottom: Evaluation, seed: int) -> Estimate:
    """(one - bottom) / (top - bottom) of the returns over all tasks."""
    returns = np.stack([_last_returns(evaluation) for evaluation in (one, top, bottom)], axis=1)
    values, *repeats = (scores[:, :2] - scores[:, 2:] for scores in (returns, *last_repeats(one, top, bottom)))
    return Estimate(float(ratio(values)), tasks_ci95(values, repeats, ratio, one.is_whole, seed))


def _last_returns(evaluation: Evaluation) -> Float[np.ndarray, " K"]:
    return np.array([score.returns[-1] for score in evaluation.per_task])


def require_same_tasks(name: str, one: Evaluation, other_name: str, other: Evaluation) -> None:
    """MetarlError saying what differs where two evaluations are not of the same tasks."""
    for what in ("distribution", "version", "horizon", "split", "seed", "num_tasks"):
        a, b = getattr(one, what), getattr(other, what)
        if a != b:
            raise MetarlError(f"{name} and {other_name} cannot be compared: {what} is {a} of one and {b} of the other")
    if [score.task for score in one.per_task] != [score.task for score in other.per_task]:
        raise MetarlError(f"{name} and {other_name} cannot be compared: they were judged on different tasks")
