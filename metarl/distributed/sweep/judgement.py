"""The chosen setting of a sweep on test tasks: all choices were made on others, which leaves this figure unbiased.

runs that have ended -> validation returns choose a setting -> its runs, one per seed -> test returns, once each
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metarl.distributed.sweep.results import SettingResult
from metarl.evaluation.statistics import Interval, seed_ci95
from metarl.rollout.local import LocalExecutor
from metarl.runs.evaluation import kept_evaluation


@dataclass(frozen=True)
class Judgement:
    """Mean return after adaptation on test tasks by seed, of one setting's runs."""

    setting: str
    scores: Mapping[int, float]

    @property
    def mean(self) -> float:
        return float(np.mean(list(self.scores.values())))

    @property
    def ci95(self) -> Interval | None:
        """Of the mean over seeds, Student's t; None with fewer than two."""
        return seed_ci95(list(self.scores.values())) if len(self.scores) > 1 else None

    def to_json(self) -> dict[str, Any]:
        return {"setting": self.setting, "scores": self.scores, "mean": self.mean, "ci95": self.ci95}


def judge_chosen(root: Path, results: Sequence[SettingResult]) -> Judgement | None:
    """Evaluate the runs of the best setting, or of the only one, on the test split; None where no run has a score.

    An evaluation that a run's directory holds already is read: judging again changes nothing.
    """
    chosen = next((r for r in results if r.is_best), results[0] if len(results) == 1 else None)
    if chosen is None or not chosen.scores:
        return None
    ended = [run for run in chosen.runs if run.score is not None]
    found = {run.seed: kept_evaluation(root / run.name, "test", run.iteration, LocalExecutor) for run in ended}
    scores = {seed: evaluation.rounds[-1].mean for seed, evaluation in found.items()}
    return Judgement(chosen.name, scores)
