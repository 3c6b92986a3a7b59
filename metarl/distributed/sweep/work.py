"""One run of a sweep, in the process that it is given, and what is known of it afterwards from its folder.

A run is an ordinary one: `metarl evaluate` and `metarl train --resume` take its folder as any other. Beside the usual
files it holds outcome.json once it has ended: how, and its returns on held-out tasks.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from threadpoolctl import threadpool_limits

from metarl.config import RunConfig, differences, load_stored_config
from metarl.distributed.sweep.grid import Plan
from metarl.errors import ConfigError, MetarlError
from metarl.evaluation.evaluate import Evaluation, evaluate
from metarl.kernels.parallel import num_processors
from metarl.rollout.executor import Executor
from metarl.rollout.local import LocalExecutor
from metarl.rollout.policy import AdaptivePolicy
from metarl.runs.build import load_run
from metarl.runs.directory import evaluation_folder, read_records, write_text
from metarl.tasks import TaskDistribution
from metarl.training.loop import prepare, train
from metarl.training.progress import ForwardingReporter

OUTCOME = "outcome.json"
SUMMARY = "sweep.json"
STOPPED_EARLY = "stopped early"
_SHOWN_EVERY_S = 2.0


class Link(Protocol):
    """What ties a run to the process that started it; it is also the run's `metarl.training.stop.StopSource`."""

    signal_number: int | None  # set when the run is to stop
    is_cut: bool  # stopped for good, because other runs do better

    @property
    def num_cpus(self) -> int: ...

    def emit(self, event: Any) -> None: ...

    def judged(self, step: int, score: float) -> None:
        """Report a score; returns when it is decided whether the run goes on."""


@dataclass(frozen=True)
class TrainOne:
    """Trains `config` in `run_dir` (absolute), from the checkpoint there where there is one; the content of its
    outcome.json, or None where it was interrupted."""

    config: RunConfig
    run_dir: Path

    def __call__(self, link: Link) -> dict[str, Any] | None:
        _require_shared(self.run_dir.parent)
        count_processors(link.num_cpus)

        def make_executor(distribution: TaskDistribution, policy: AdaptivePolicy[Any]) -> Executor:
            torch.set_num_threads(link.num_cpus)  # training itself would take all of the machine's
            return LocalExecutor(distribution, policy)

        with threadpool_limits(link.num_cpus, user_api="blas"):
            reporter = _Reporter(link, self.config.training.iterations)
            outcome = train(self.config, self.run_dir, make_executor, resume=True, reporter=reporter, stop=link)
            if outcome.reason == "interrupted" and not link.is_cut:
                return None
            evaluation = _final_evaluation(self.run_dir, self.config, outcome.iteration)
        content = {
            "reason": STOPPED_EARLY if outcome.reason == "interrupted" else outcome.reason,
            "iteration": outcome.iteration,
            "env_steps": outcome.env_steps,
            "wall_s": outcome.wall_s,
            "split": evaluation.split,
            "num_tasks": evaluation.num_tasks,
            "returns": [score.mean for score in evaluation.rounds],
        }
        write_text(self.run_dir / OUTCOME, json.dumps(content, indent=1, allow_nan=False) + "\n")
        return content


class _Reporter(ForwardingReporter):
    """Passes on what happens, training at most every few seconds; evaluations but the last are judged."""

    def __init__(self, link: Link, iterations: int):
        super().__init__(link.emit)
        self._link, self._iterations = link, iterations
        self._last_shown_s = time.monotonic()

    def train(self, record: Mapping[str, Any], iterations: int, eta_s: float) -> None:
        now = time.monotonic()
        if now - self._last_shown_s > _SHOWN_EVERY_S:
            self._last_shown_s = now
            super().train(record, iterations, eta_s)

    def evaluation(self, record: Mapping[str, Any]) -> None:
        super().evaluation(record)
        if 0 < record["iteration"] < self._iterations:
            self._link.judged(record["iteration"], returns_of(record)[-1])


def returns_of(record: Mapping[str, Any]) -> list[float]:
    """The mean return of every round in a record of metrics.jsonl."""
    return [value for name, value in record.items() if name.startswith("return/round")]


def count_processors(number: int) -> None:
    """Have this process count on `number` processors of those that it may use; runs beside it use the others.

    The learner's threads are as many as it counts at first; it is not tied to particular processors.
    """
    os.environ["METARL_PHYSICS_THREADS"] = str(number)
    if not hasattr(os, "sched_setaffinity"):
        return
    usable = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(usable)[:number])
    try:
        num_processors()  # remembered from now on
    finally:
        os.sched_setaffinity(0, usable)


def check_settings(plan: Plan) -> None:
    """Build every setting's task distribution and algorithm once: what is wrong with them shows before any run starts.

    Raises ConfigError, TaskError or EnvironmentFault naming the setting.
    """
    for setting in plan.settings:
        config = plan.runs_of(setting)[0].config
        try:
            distribution, _ = prepare(config, torch.device("cpu"))
            distribution.sample(config.evaluation.split, 1, config.seed)  # evaluated at the end in any case
        except MetarlError as error:
            raise type(error)(f"{setting.name}: {error}") from error


def check_directory(root: Path, plan: Plan, resume: bool) -> None:
    """ConfigError where `root` holds something else than this sweep's runs, or any of them and `resume` is off."""
    if (root / "config.yaml").exists():
        raise ConfigError(f"{root} is the directory of a single run: choose another --run-dir")
    changed = []
    for run in plan.runs:
        folder = root / run.name
        if not (folder / "config.yaml").is_file() or not read_records(folder / "metrics.jsonl"):
            continue
        if not resume:
            raise ConfigError(
                f"{root} already holds runs of a sweep: add --resume to go on, or choose another --run-dir"
            )
        changed += [
            f"{run.name}: {line}" for line in differences(load_stored_config(folder / "config.yaml"), run.config)
        ]
    if changed:
        lines = "\n  ".join(changed)
        raise ConfigError(f"{root} holds runs with another configuration: choose another --run-dir, or undo\n  {lines}")


def outcome_of(run_dir: Path) -> dict[str, Any] | None:
    """How the run ended; None where it has not."""
    try:
        content = json.loads((run_dir / OUTCOME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def has_ended(run_dir: Path, config: RunConfig, may_cut: bool) -> bool:
    """Whether nothing is left to do in a run's folder; `may_cut`: what was stopped early stays so."""
    outcome = outcome_of(run_dir)
    if outcome is None:
        return False
    if outcome["reason"] == STOPPED_EARLY:
        return may_cut
    limit = config.training.time_limit_minutes
    is_late = limit is not None and outcome["wall_s"] >= 60 * limit
    return outcome["iteration"] >= config.training.iterations or is_late


def _final_evaluation(run_dir: Path, config: RunConfig, iteration: int) -> Evaluation:
    """The evaluation that training has made at its end, or one made now, as `metarl evaluate` does."""
    settings = config.evaluation
    path = evaluation_folder(run_dir, settings.split, iteration) / "evaluation.json"
    if config.training.evaluate_every and path.is_file():
        return Evaluation.load(path)
    trained = load_run(run_dir)
    executor = LocalExecutor(trained.distribution, trained.algorithm.policy)
    try:
        evaluation = evaluate(
            executor,
            trained.distribution,
            trained.algorithm.evaluation_plan(trained.distribution.horizon, settings.settings),
            trained.algorithm.weights(),
            split=settings.split,
            num_tasks=settings.num_tasks,
            seed=config.seed,
            iteration=trained.checkpoint.iteration,
            tasks_per_unit=config.training.tasks_per_unit,
        )
    finally:
        executor.close()
    evaluation.write(path)
    return evaluation


def _require_shared(root: Path) -> None:
    if not (root / SUMMARY).is_file():
        raise ConfigError(
            f"{root} is not to be seen on the node {platform.node()}: a sweep on several nodes needs a --run-dir on "
            "storage that they share"
        )
