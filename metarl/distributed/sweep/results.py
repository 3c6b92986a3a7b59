"""What came of a sweep's runs: read from their folders, summed up over seeds, written to sweep.json.

The seed is the unit of every interval here: how another training of the same setting would have ended. The score of
a run is its mean return on held-out tasks in the last round, after adaptation, at its last evaluation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metarl.distributed.sweep.grid import Plan, PlannedRun, Setting
from metarl.distributed.sweep.work import STOPPED_EARLY, SUMMARY, outcome_of, returns_of
from metarl.evaluation.statistics import Interval, bootstrap_ci95, iqm, mean
from metarl.runs.directory import read_records, write_text

FAILED, UNFINISHED, WAITING = "failed", "unfinished", "not started"
_IQM_FROM = 4  # seeds; with fewer it is the mean
_BOOTSTRAP_SEED = 0


@dataclass(frozen=True)
class Point:
    """One evaluation during training: mean returns in the first and the last round."""

    iteration: int
    env_steps: int
    before: float
    after: float


@dataclass(frozen=True)
class RunResult:
    """One run. `status`: done, time limit, stopped early, failed (`error` says why), unfinished or not started.

    `returns`: mean return of each round at the end, None where the run has not ended.
    """

    name: str
    seed: int
    status: str
    error: str | None
    iteration: int
    env_steps: int
    returns: tuple[float, ...] | None
    curve: tuple[Point, ...]

    @property
    def score(self) -> float | None:
        """The return after adaptation; None where the run has not ended or has failed."""
        return self.returns[-1] if self.returns and self.status != FAILED else None


@dataclass(frozen=True)
class SettingResult:
    """One setting over its seeds. Without any score `mean` is None; with one `ci95` is, with fewer than 4 `iqm`."""

    setting: Setting
    runs: tuple[RunResult, ...]
    mean: float | None
    ci95: Interval | None
    iqm: float | None
    is_best: bool = False

    @property
    def scores(self) -> tuple[float, ...]:
        return tuple(run.score for run in self.runs if run.score is not None)

    def count(self, status: str) -> int:
        return sum(run.status == status for run in self.runs)


def read_results(root: Path, plan: Plan, errors: Mapping[str, str]) -> list[SettingResult]:
    """What the folders below `root` hold, in the plan's order; `errors` by run: why it failed."""
    results = []
    for setting in plan.settings:
        runs = tuple(read_run(root / run.name, run, errors.get(run.name)) for run in plan.runs_of(setting))
        results.append(summarise(setting, runs))
    return mark_best(results)


def read_run(folder: Path, run: PlannedRun, error: str | None) -> RunResult:
    """One run's folder, whatever state it is in."""
    records = read_records(folder / "metrics.jsonl")
    points = tuple(
        Point(r["iteration"], r["env_steps"], returns_of(r)[0], returns_of(r)[-1])
        for r in records
        if r["kind"] == "evaluation" and r["split"] == run.config.evaluation.split
    )
    outcome = outcome_of(folder) if error is None else None
    if outcome is not None:
        returns, iteration, env_steps = tuple(outcome["returns"]), outcome["iteration"], outcome["env_steps"]
        if not points or points[-1].iteration < iteration:
            points += (Point(iteration, env_steps, returns[0], returns[-1]),)
        return RunResult(run.name, run.seed, outcome["reason"], None, iteration, env_steps, returns, points)
    status = FAILED if error is not None else UNFINISHED if records else WAITING
    last = records[-1] if records else {"iteration": 0, "env_steps": 0}
    return RunResult(run.name, run.seed, status, error, last["iteration"], last["env_steps"], None, points)


def summarise(setting: Setting, runs: Sequence[RunResult]) -> SettingResult:
    """Mean of the scores, the 95 % bootstrap interval of it over seeds, the interquartile mean."""
    scores = np.array([run.score for run in runs if run.score is not None])
    return SettingResult(
        setting,
        tuple(runs),
        float(mean(scores)) if len(scores) else None,
        bootstrap_ci95(scores, mean, _BOOTSTRAP_SEED) if len(scores) > 1 else None,
        float(iqm(scores)) if len(scores) >= _IQM_FROM else None,
    )


def mark_best(results: Sequence[SettingResult]) -> list[SettingResult]:
    """The results with the highest mean marked, among settings of which a run was trained to its end."""
    trained = [r for r in results if r.mean is not None and len(r.scores) > r.count(STOPPED_EARLY)]
    best = max(trained, key=lambda r: r.mean if r.mean is not None else 0.0, default=None)
    return [
        SettingResult(r.setting, r.runs, r.mean, r.ci95, r.iqm, is_best=r is best and len(results) > 1) for r in results
    ]


def rivals(results: Sequence[SettingResult]) -> list[str]:
    """Names of the settings that these seeds do not tell from the best one: the 95 % interval of the difference,
    paired by seed, holds zero, or there are fewer than two seeds to pair."""
    best = next((r for r in results if r.is_best), None)
    if best is None:
        return []
    return [r.setting.name for r in results if r is not best and r.scores and not _is_better(best, r)]


def _is_better(a: SettingResult, b: SettingResult) -> bool:
    scores_a, scores_b = ({run.seed: run.score for run in r.runs if run.score is not None} for r in (a, b))
    gaps = np.array([scores_a[seed] - scores_b[seed] for seed in scores_a if seed in scores_b])
    return len(gaps) > 1 and bootstrap_ci95(gaps, mean, _BOOTSTRAP_SEED)[0] > 0


def common_curve(runs: Sequence[RunResult]) -> list[tuple[float, float, Interval | None]]:
    """(mean environment steps, mean return after adaptation, its 95 % interval over seeds) at every iteration that
    all runs were evaluated at: a mean over those that were left would rise where a bad one ends."""
    curves = [{point.iteration: point for point in run.curve} for run in runs if run.curve and run.status != FAILED]
    if not curves:
        return []
    common = sorted(set.intersection(*(set(curve) for curve in curves)))
    rows = []
    for iteration in common:
        points = [curve[iteration] for curve in curves]
        after = np.array([point.after for point in points])
        interval = bootstrap_ci95(after, mean, _BOOTSTRAP_SEED) if len(after) > 1 else None
        rows.append((float(np.mean([point.env_steps for point in points])), float(mean(after)), interval))
    return rows


def write_summary(root: Path, about: Mapping[str, Any], results: Sequence[SettingResult]) -> None:
    """sweep.json: `about` and all numbers, replaced in one step."""
    close = rivals(results)
    settings = [
        {
            "name": r.setting.name,
            "values": dict(r.setting.values),
            "is_best": r.is_best,
            "is_rival_of_best": r.setting.name in close,
            "mean": r.mean,
            "ci95": r.ci95,
            "iqm": r.iqm,
            "scores": r.scores,
            "num_stopped_early": r.count(STOPPED_EARLY),
            "num_failed": r.count(FAILED),
            "curve": [
                {"env_steps": steps, "mean": value, "ci95": interval} for steps, value, interval in common_curve(r.runs)
            ],
            "runs": [{**asdict(run), "score": run.score} for run in r.runs],
        }
        for r in results
    ]
    content = {**about, "score": "mean return after adaptation, last evaluation", "settings": settings}
    write_text(root / SUMMARY, json.dumps(content, indent=1, allow_nan=False) + "\n")
