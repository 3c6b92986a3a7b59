"""All that a report says of one run, measured: evaluations of every split, ablations, grids, and what they show.

load_run -> evaluations (splits; blank and shuffled context) -> grids over parameters -> calibration -> findings
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metarl.config import to_yaml
from metarl.errors import ConfigError, EnvironmentFault, MetarlError
from metarl.evaluation.by_task import ByTask, Estimate
from metarl.evaluation.evaluate import Evaluation, against_blank, evaluation_units
from metarl.evaluation.grid import Grid, usual_axis
from metarl.evaluation.probe import columns_of, least_squares
from metarl.report import diagnostics
from metarl.report.diagnostics import Finding
from metarl.report.metrics import Run, read_run
from metarl.rollout.executor import Executor
from metarl.runs.build import TrainedRun
from metarl.runs.evaluation import evaluate_grid_of, evaluate_run
from metarl.runs.records import METRICS, Record, read_records
from metarl.tasks import SPLITS, Split, Task, TaskDistribution
from metarl.tasks.middle import middle_task

MOST_LINES = 6  # parameters varied on a line of their own
_LINE_POINTS, _MAP_POINTS = 9, 6
_NORMAL_90 = 1.6448536269514722  # half width of a normal's 90 % interval, in standard deviations
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ParameterRow:
    """One parameter as a reader wants to see it."""

    name: str
    unit: str
    training: str
    test: str
    ood: str


@dataclass(frozen=True)
class Study:
    """Everything measured on one run. `shuffled` and `heat_map` are None, and `lines` empty, where there are none."""

    name: str
    folder: Path
    algorithm: str
    distribution: str
    parameters: tuple[ParameterRow, ...]
    iteration: int
    evaluations: dict[Split, Evaluation]  # the test split's holds the gain over a blank context
    blank: Evaluation | None
    shuffled: Evaluation | None
    lines: tuple[Grid, ...]
    heat_map: Grid | None
    findings: tuple[Finding, ...]
    verdict: str
    curves: Run | None
    training: dict[str, str]  # how long it took and how fast it was
    versions: dict[str, str]
    config: str  # YAML
    remarks: tuple[str, ...]  # what could not be measured, and why; what to know of the grids

    @property
    def test(self) -> Evaluation:
        """The evaluation on held-out tasks."""
        return self.evaluations["test"]


def study(trained: TrainedRun, executor: Executor, folder: Path, name: str, has_grids: bool = True) -> Study:
    """Measure everything; `folder` is the run's directory, for its records and versions."""
    remarks: list[str] = []
    evaluations = _evaluations(trained, executor, remarks)
    blank, shuffled = (_ablated(trained, executor, context) for context in ("blank", "shuffled"))
    seed = trained.config.seed
    if blank is not None and evaluations["test"].has_adapted:
        evaluations["test"] = against_blank(evaluations["test"], blank, seed)
    lines, heat_map = _grids(trained, executor, remarks) if has_grids else ((), None)
    test = evaluations["test"]
    findings = [diagnostics.adaptation(test), diagnostics.context_use(test, shuffled, seed)]
    if "train" in evaluations:
        findings.append(diagnostics.meta_overfitting(evaluations["train"], test, seed))
    findings += [diagnostics.out_of_range(grid, seed) for grid in lines]
    findings.append(diagnostics.exploration(test))
    coverage = posterior_coverage(trained, executor)
    if coverage:
        findings.append(diagnostics.calibration(coverage))
    records = read_records(folder / METRICS)
    return Study(
        name=name,
        folder=folder,
        algorithm=trained.config.algorithm_name,
        distribution=f"{trained.distribution.name} v{trained.distribution.version}",
        parameters=_parameters(trained.distribution),
        iteration=trained.checkpoint.iteration,
        evaluations=evaluations,
        blank=blank,
        shuffled=shuffled,
        lines=lines,
        heat_map=heat_map,
        findings=tuple(findings),
        verdict=diagnostics.verdict(findings, test),
        curves=_curves(folder),
        training=_training(records),
        versions=_versions(folder),
        config=to_yaml(trained.config),
        remarks=tuple(remarks),
    )


def _evaluations(trained: TrainedRun, executor: Executor, remarks: list[str]) -> dict[Split, Evaluation]:
    """Of every split that there is."""
    found: dict[Split, Evaluation] = {"test": evaluate_run(trained, executor, "test")}
    for split in SPLITS:
        if split == "test" or (split == "ood" and not trained.distribution.has_ood):
            continue
        try:
            found[split] = evaluate_run(trained, executor, split)
        except MetarlError as error:
            remarks.append(f"No evaluation of the {split} split: {error}")
    if not trained.distribution.has_ood:
        remarks.append("The family has no out-of-distribution range.")
    return found


def _ablated(trained: TrainedRun, executor: Executor, context: Any) -> Evaluation | None:
    """The test split with another context; None where the algorithm or its tasks know none."""
    try:
        return evaluate_run(trained, executor, "test", context=context)
    except ConfigError:
        return None


# --- grids -------------------------------------------------------------------------------------------


def _grids(trained: TrainedRun, executor: Executor, remarks: list[str]) -> tuple[tuple[Grid, ...], Grid | None]:
    """A line over each of the first parameters, a map over the first two that can be varied."""
    names = [name for parameter in trained.distribution.parameters for name in parameter.components]
    if len(names) > MOST_LINES:
        remarks.append(f"Varied one by one are the first {MOST_LINES} of {len(names)} parameters.")
    lines = [_grid(trained, executor, [name], _LINE_POINTS, remarks) for name in names[:MOST_LINES]]
    varied = [grid for grid in lines if grid is not None]
    remarks += varied[0].notes if varied else ()
    pair = [grid.axes[0].name for grid in varied[:2]]
    return tuple(varied), _grid(trained, executor, pair, _MAP_POINTS, remarks) if len(pair) == 2 else None


def _grid(
    trained: TrainedRun, executor: Executor, names: Sequence[str], number: int, remarks: list[str]
) -> Grid | None:
    distribution = trained.distribution
    axes = [axis for axis in (usual_axis(distribution, name, number) for name in names) if axis is not None]
    if len(axes) < len(names):
        remarks.append(f"{names[0]} is not varied: its prior has no bounds within which it could be varied alone.")
        return None
    try:
        return evaluate_grid_of(trained, executor, axes, middle_task(distribution))
    except (EnvironmentFault, MetarlError) as error:
        remarks.append(f"{' and '.join(names)} could not be varied: {error}")
        return None


# --- calibration -------------------------------------------------------------------------------------


def posterior_coverage(trained: TrainedRun, executor: Executor) -> list[tuple[str, Estimate]]:
    """For each scalar column of the parameters the share of held-out tasks whose value lies in the 90 % interval that
    the posterior over z gives it, read by a linear map that is fitted on training tasks; empty without a posterior.

    The interval is W mean + b -+ 1.64 sqrt(W^2 var): what the posterior itself is unsure of, the map's own error
    left out.
    """
    config, distribution, algorithm = trained.config, trained.distribution, trained.algorithm
    plan = algorithm.evaluation_plan(distribution.horizon, config.evaluation.settings)
    if len(plan.rounds) < 2 or distribution.reveals_task:
        return []
    halves: list[tuple[tuple[Task, ...], np.ndarray, np.ndarray]] = []
    splits: tuple[Split, ...] = ("train", "test")
    for split in splits:
        units = evaluation_units(
            distribution, plan, split, 2 * config.evaluation.num_tasks, config.seed, config.training.tasks_per_unit
        )
        trials = executor.collect(units, algorithm.weights(), trained.checkpoint.iteration)
        if any("belief_mean" not in trial.rounds[-2].derived for trial in trials):
            return []
        tasks = tuple(task for unit in units for task in unit.tasks)
        beliefs = [trial.rounds[-2].derived for trial in trials]
        mean, var = (np.concatenate([belief[key] for belief in beliefs]) for key in ("belief_mean", "belief_var"))
        halves.append((tasks, mean, var))
    (fit_tasks, fit_mean, _), (tasks, mean, var) = halves
    groups = ByTask(tasks, False, config.seed)
    found = []
    for parameter in distribution.parameters:
        fit, judged = columns_of(parameter, fit_tasks), columns_of(parameter, tasks)
        num_streams, num_latents = fit_mean.shape[1:]
        W, b = least_squares(fit_mean.reshape(-1, num_latents), fit.values.repeat(num_streams, axis=0))
        inside = np.abs(judged.values[:, None] - (mean @ W + b)) <= _NORMAL_90 * np.sqrt(var @ W**2)  # [K, N, P]
        found += [(name, groups.estimate(inside[..., p])) for p, name in enumerate(judged.names)]
    return found


# --- what the run directory says ---------------------------------------------------------------------


def _parameters(distribution: TaskDistribution) -> tuple[ParameterRow, ...]:
    return tuple(
        ParameterRow(p.name, p.unit, str(p.prior), str(p.test or ""), str(p.ood or "")) for p in distribution.parameters
    )


def _curves(folder: Path) -> Run | None:
    try:
        return read_run(folder / METRICS)
    except MetarlError:
        return None  # a run without its records, such as one that was copied


def _training(records: Sequence[Record]) -> dict[str, str]:
    """Steps, time, and where the time went; empty where nothing is recorded."""
    trained = [record for record in records if record["kind"] == "train"]
    if not trained:
        return {}
    last = trained[-1]
    found = {"iterations": f"{last['iteration']:,}", "environment steps": f"{last['env_steps']:,}"}
    if "wall_s" in last:
        found["time"] = f"{last['wall_s'] / 60:.1f} minutes"
        found["over all"] = f"{last['env_steps'] / max(last['wall_s'], 1e-9):,.0f} environment steps per second"
    speeds = [record["env_steps_per_s"] for record in trained if "env_steps_per_s" in record]
    if speeds:
        found["median iteration"] = f"{float(np.median(speeds)):,.0f} environment steps per second"
    parts = {key: sum(record.get(key, 0.0) for record in trained) for key in ("sample_s", "learn_s", "other_s")}
    total = sum(parts.values())
    if total > 0:
        shares = (f"{key.removesuffix('_s')} {value / total:.0%}" for key, value in parts.items())
        found["time spent"] = ", ".join(shares)
    return found


def _versions(folder: Path) -> dict[str, str]:
    try:
        content = json.loads((folder / "versions.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {key: _flat(value) for key, value in content.items() if value} if isinstance(content, dict) else {}


def _flat(value: Any) -> str:
    return ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
