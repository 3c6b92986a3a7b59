"""What came of a sweep's runs: read from their directories, compared over seeds, written to sweep.json.

The seed is the unit of every interval: how another training of the same setting would have ended. The score of a run
is its mean return on validation tasks (or those of its `evaluation.split`) in the last round, after adaptation, at its
last evaluation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from metarl.distributed.sweep.grid import Setting, all_runs
from metarl.errors import ConfigError
from metarl.evaluation.statistics import Interval, seed_ci95, told_from_best
from metarl.files import write_text
from metarl.runs.directory import check_run
from metarl.runs.outcome import FAILED, STOPPED_EARLY, outcome_of
from metarl.runs.records import METRICS, read_records, returns_of

SUMMARY = "sweep.json"
_LEVEL = 0.02  # probability of any false claim in one sweep


@dataclass(frozen=True)
class Point:
    """One evaluation: mean returns in the first and the last round."""

    iteration: int
    env_steps: int
    before: float
    after: float


@dataclass(frozen=True)
class RunResult:
    """One run. `status`: done, time limit, stopped early, failed (`error` says why), unfinished or not started;
    `before` and `score`: mean return before and after adaptation at its end, None where it has none."""

    name: str
    seed: int
    status: str
    error: str | None
    iteration: int
    before: float | None
    score: float | None
    curve: tuple[Point, ...]


@dataclass(frozen=True)
class SettingResult:
    """One setting over its seeds. `is_rival`: these seeds do not tell it from the best."""

    name: str
    values: Mapping[str, Any]
    runs: tuple[RunResult, ...]
    is_best: bool = False
    is_rival: bool = False

    @property
    def scores(self) -> dict[int, float]:
        """By seed, of the runs that have ended."""
        return {run.seed: run.score for run in self.runs if run.score is not None}

    @property
    def mean(self) -> float | None:
        return float(np.mean(list(self.scores.values()))) if self.scores else None

    @property
    def ci95(self) -> Interval | None:
        """Of the mean; None with fewer than two scores."""
        return seed_ci95(list(self.scores.values())) if len(self.scores) > 1 else None

    def count(self, status: str) -> int:
        return sum(run.status == status for run in self.runs)


def read_results(root: Path, settings: Sequence[Setting]) -> list[SettingResult]:
    """What the directories below `root` hold."""
    runs = [tuple(read_run(root / name, config.seed) for name, config in s.runs.items()) for s in settings]
    return compare([SettingResult(s.name, s.values, of_it) for s, of_it in zip(settings, runs, strict=True)])


def read_run(folder: Path, seed: int) -> RunResult:
    """One run's directory, whatever state it is in."""
    records, outcome = read_records(folder / METRICS), outcome_of(folder) or {}
    curve = [point_of(record) for record in records if record["kind"] == "evaluation"]
    ends: Sequence[Any] = outcome.get("returns", (None,))
    if "returns" in outcome and (not curve or curve[-1].iteration < outcome["iteration"]):
        curve.append(Point(outcome["iteration"], outcome["env_steps"], ends[0], ends[-1]))
    status = outcome.get("reason", "unfinished" if records else "not started")
    last: Mapping[str, Any] = {"iteration": 0, "error": None, **(records[-1] if records else {}), **outcome}
    return RunResult(folder.name, seed, status, last["error"], last["iteration"], ends[0], ends[-1], tuple(curve))


def point_of(record: Mapping[str, Any]) -> Point:
    """The returns in an evaluation's record of metrics.jsonl."""
    returns = returns_of(record)
    return Point(record["iteration"], record["env_steps"], returns[0], returns[-1])


def compare(results: Sequence[SettingResult]) -> list[SettingResult]:
    """Marks the best setting (highest mean, among those of which a run was trained to its end) and its rivals."""
    scored = [r for r in results if r.scores]
    trained = [r for r in scored if len(r.scores) > r.count(STOPPED_EARLY)]
    best = max(trained, key=lambda r: r.mean or 0.0, default=None)
    if best is None or len(results) < 2:
        return list(results)
    told = told_from_best([r.scores for r in scored], scored.index(best), _LEVEL)
    rivals = [r.name for r, is_told in zip(scored, told, strict=True) if r is not best and not is_told]
    return [replace(r, is_best=r is best, is_rival=r.name in rivals) for r in results]


def common_curve(runs: Sequence[RunResult]) -> list[tuple[float, float, Interval | None]]:
    """(mean environment steps, mean return after adaptation, its 95 % interval over seeds) at every iteration that
    all runs were evaluated at: a mean over those that were left would rise where a bad one ends."""
    curves = [{point.iteration: point for point in run.curve} for run in runs if run.curve and run.status != FAILED]
    rows = []
    for iteration in sorted(set.intersection(*map(set, curves))) if curves else ():
        steps, after = zip(*((curve[iteration].env_steps, curve[iteration].after) for curve in curves), strict=True)
        rows.append((float(np.mean(steps)), float(np.mean(after)), seed_ci95(after) if len(after) > 1 else None))
    return rows


def write_summary(root: Path, about: Mapping[str, Any], results: Sequence[SettingResult]) -> None:
    """sweep.json: `about` and all numbers, replaced in one step."""
    settings = [{**asdict(r), "mean": r.mean, "ci95": r.ci95, "curve": common_curve(r.runs)} for r in results]
    content = {**about, "score": "mean return after adaptation, last evaluation", "settings": settings}
    write_text(root / SUMMARY, json.dumps(content, indent=1, allow_nan=False) + "\n")


def check_directory(root: Path, settings: Sequence[Setting], resume: bool) -> None:
    """ConfigError where `root` is a run's, holds runs with other configurations, or any and `resume` is off."""
    if (root / "config.yaml").exists():
        raise ConfigError(f"{root} is the directory of a single run: choose another --run-dir")
    for name, config in all_runs(settings).items():
        check_run(root / name, config, resume)
