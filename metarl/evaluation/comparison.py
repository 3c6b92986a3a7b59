"""Policies against each other on equal tasks."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from metarl.errors import MetarlError
from metarl.evaluation.aggregate import improvement_by_task
from metarl.evaluation.by_task import Estimate
from metarl.evaluation.evaluate import Evaluation, paired
from metarl.evaluation.statistics import bootstrap_ci95, mean


@dataclass(frozen=True)
class Pair:
    """`first` against `second`, last rounds, paired per task.

    difference: of the returns. improvement: the probability that `first` returns more on a task, ties counting half
    (Agarwal et al. 2021, with the task as the unit).
    """

    first: str
    second: str
    difference: Estimate
    improvement: Estimate


@dataclass(frozen=True)
class Comparison:
    """Evaluations by name, all on the same tasks, and every pair of them, the better one first."""

    evaluations: dict[str, Evaluation]
    pairs: tuple[Pair, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        evaluations = {name: evaluation.to_json() for name, evaluation in self.evaluations.items()}
        return {"evaluations": evaluations, "pairs": [asdict(pair) for pair in self.pairs]}


def compare(evaluations: Mapping[str, Evaluation], seed: int) -> Comparison:
    """Compare every pair. MetarlError where they were not judged on the same tasks."""
    names = sorted(evaluations, key=lambda name: -evaluations[name].rounds[-1].mean)
    for name in names[1:]:
        require_same_tasks(names[0], evaluations[names[0]], name, evaluations[name])
    pairs = []
    for first, second in itertools.combinations(names, 2):
        one, other = evaluations[first], evaluations[second]
        a, b = (np.array([score.returns[-1] for score in e.per_task]) for e in (one, other))
        wins = improvement_by_task(a[None], b[None])
        improvement = Estimate(float(wins.mean()), bootstrap_ci95(wins, mean, seed))
        pairs.append(Pair(first, second, paired(one, other, seed), improvement))
    return Comparison({name: evaluations[name] for name in names}, tuple(pairs))


def require_same_tasks(name: str, one: Evaluation, other_name: str, other: Evaluation) -> None:
    """MetarlError saying what differs where two evaluations are not of the same tasks."""
    for what in ("distribution", "version", "horizon", "split", "seed", "num_tasks"):
        a, b = getattr(one, what), getattr(other, what)
        if a != b:
            raise MetarlError(f"{name} and {other_name} cannot be compared: {what} is {a} of one and {b} of the other")
    if [score.task for score in one.per_task] != [score.task for score in other.per_task]:
        raise MetarlError(f"{name} and {other_name} cannot be compared: they were judged on different tasks")
