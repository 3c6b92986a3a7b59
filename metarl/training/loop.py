"""The training loop. It knows neither where units run nor, by name, any algorithm or task distribution.

    tasks(seed, iteration) -> units -> executor.collect -> algorithm.update -> log -> checkpoint / evaluate
             ^                                                     |
             +------------------ weights, version + 1 -------------+

What an iteration does is a function of (configuration, iteration, algorithm.state_dict()), so a run that continues
from a checkpoint is the run that was never interrupted.

With `training.overlap` the workers collect for iteration i + 1 while the learner learns from iteration i:

    learner    collect 0, update 0, collect 1, update 1         update 2         update 3 ...
    workers                                    collect 2 (W1)   collect 3 (W2)   collect 4 (W3) ...

Trials of iteration i are then always those of the weights before the last update, W(i-1), however fast anyone is, so
this too repeats bit for bit; checkpoints hold W(i-1).
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from metarl.algorithms.base import Algorithm
from metarl.algorithms.registry import build_algorithm
from metarl.config import RunConfig
from metarl.errors import CheckpointError, ConfigError, TrainingError
from metarl.evaluation.evaluate import evaluate
from metarl.kernels.parallel import num_processors, torch_threads
from metarl.rollout import seeds
from metarl.rollout.executor import Executor, MakeExecutor
from metarl.rollout.padding import of_equal_length
from metarl.rollout.types import TrialBatch, TrialPlan, Unit
from metarl.runs import checkpoint
from metarl.runs.build import changed_since, distribution_of, identity_of, restore, spaces_of
from metarl.runs.checkpoint import Checkpoint
from metarl.runs.directory import RunDirectory, as_begun, open_run
from metarl.runs.records import evaluation_record, train_record
from metarl.runs.warm_start import WarmStart, apply_warm_start, check_origin, write_origin
from metarl.tasks import Task, TaskDistribution
from metarl.training.interruptible import CollectionStopped, InterruptibleExecutor
from metarl.training.precheck import precheck
from metarl.training.progress import ProgressReporter, SilentReporter
from metarl.training.stop import StopRequest, StopSource, stop_signals

Reason = Literal["done", "time limit", "interrupted"]

_log = logging.getLogger(__name__)
_LAGGED = "lagged."  # in checkpoints: the weights that the next iteration's trials are collected with


@dataclass(frozen=True)
class Outcome:
    """Why training stopped, and where. `signal_number` is set where `reason` is "interrupted"."""

    reason: Reason
    iteration: int
    env_steps: int
    wall_s: float
    signal_number: int | None = None


def train(
    config: RunConfig,
    run_dir: Path,
    make_executor: MakeExecutor,
    *,
    resume: bool = False,
    start: WarmStart | None = None,
    reporter: ProgressReporter | None = None,
    stop: StopSource | None = None,
    saved: Callable[[], None] = lambda: None,
) -> Outcome:
    """Train what `config` describes, in `run_dir`, until it is done, out of time or a stop is requested: by
    SIGINT, SIGTERM or SIGHUP, or by `stop`. `start` gives a new run the weights of another.
    A stop while units are collected does not wait for them. `saved` is called after each checkpoint.

    Raises ConfigError, TaskError or CheckpointError where the input is wrong, EnvironmentFault where an
    environment misbehaves, TrainingError where training diverges. The state after the last completed
    iteration is checkpointed, except where training diverges.
    """
    config = as_begun(config, run_dir) if resume else config
    distribution, algorithm = prepare(config, resolve_device(config.device))
    precheck(distribution, config.executor.unit_deadline_s)
    with open_run(run_dir, config, resume) as run, torch_threads(num_processors()):
        if run.restored:
            restore(run.restored, distribution, algorithm)
            _require_same_robot(run_dir, run.restored, distribution)
        check_origin(run_dir, start, is_restored=run.restored is not None)
        if start and not run.restored:
            apply_warm_start(start, algorithm)
        if not run.restored:
            write_origin(run_dir, start)
        stop = stop or StopRequest()
        executor = InterruptibleExecutor(make_executor(distribution, algorithm.policy), stop)
        try:
            with stop_signals(stop):  # last: what makes executors may set handlers of its own (Ray does)
                reporter = reporter or SilentReporter()
                return _Loop(config, run, distribution, algorithm, executor, reporter, stop, saved).run()
        finally:
            executor.close()


def prepare(config: RunConfig, device: torch.device) -> tuple[TaskDistribution, Algorithm]:
    """What a run needs before it starts; ConfigError, TaskError or EnvironmentFault where it cannot be had."""
    distribution = distribution_of(config.task_distribution)
    algorithm = build_algorithm(config.algorithm, spaces_of(distribution, config), device, config.seed)
    if config.training.evaluate_every:
        distribution.sample(config.evaluation.split, 1, config.seed)  # a split that is missing shows now, not later
        algorithm.evaluation_plan(distribution.horizon, config.evaluation.settings)
    if config.training.overlap and algorithm.max_lag < 1:
        raise ConfigError("training.overlap = True: this algorithm learns from its newest policy alone; allowed: False")
    return distribution, algorithm


def _require_same_robot(run_dir: Path, saved: Checkpoint, distribution: TaskDistribution) -> None:
    """CheckpointError where training would go on with another model of the robot."""
    if changed := changed_since(saved, distribution):
        raise CheckpointError(
            f"{run_dir}: the robot's model has changed since iteration {saved.iteration}: {', '.join(changed)} differ. "
            f"Put the former model back, or begin a new run with these weights: metarl train ... --from {run_dir}"
        )


def resolve_device(name: str) -> torch.device:
    """The device that `device: auto|cpu|cuda` means here; ConfigError where there is none."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device = 'cuda': no CUDA device is usable here; allowed: auto, cpu")
    return torch.device("cuda" if name == "auto" and torch.cuda.is_available() else name.replace("auto", "cpu"))


def units_of(tasks: Sequence[Task], plan: TrialPlan, tasks_per_unit: int, seed: int, iteration: int) -> list[Unit]:
    """Fixed groups of tasks, each with a seed path of its own."""
    groups = [tuple(tasks[i : i + tasks_per_unit]) for i in range(0, len(tasks), tasks_per_unit)]
    return [Unit(i, group, plan, seeds.training_unit(seed, iteration, i)) for i, group in enumerate(groups)]


def mean_returns(trials: Sequence[TrialBatch]) -> list[float]:
    """The mean undiscounted return of each round over tasks and streams."""
    returns = np.concatenate([trial.returns for trial in trials], axis=1).mean(axis=(1, 2))
    return [float(value) for value in returns]


class _Loop:
    def __init__(
        self,
        config: RunConfig,
        run: RunDirectory,
        distribution: TaskDistribution,
        algorithm: Algorithm,
        executor: Executor,
        reporter: ProgressReporter,
        stop: StopSource,
        saved: Callable[[], None],
    ):
        self.config, self.run_directory, self.distribution = config, run, distribution
        self.algorithm, self.executor, self.reporter, self.stop = algorithm, executor, reporter, stop
        self._saved, self._fingerprint = saved, distribution.fingerprint()
        meta: dict[str, Any] = run.restored.meta if run.restored else {"env_steps": 0, "wall_s": 0.0}
        self.iteration = run.restored.iteration if run.restored else 0
        self.saved_iteration = self.iteration if run.restored else -1
        self.env_steps: int = meta["env_steps"]
        self._wall_before_s: float = meta["wall_s"]
        self._started_s = time.perf_counter()
        self._iterations_done = 0
        self._log_s = 0.0  # what writing the last record took: counted in the next one
        self.is_consistent = True
        self.weights = algorithm.weights()
        self._ahead: list[Unit] = []  # units of the next iteration that are under way
        lagged = run.restored.tensors if run.restored else {}
        self._lagged = {n.removeprefix(_LAGGED): v.numpy() for n, v in lagged.items() if n.startswith(_LAGGED)}

    @property
    def wall_s(self) -> float:
        """Training wall time, added up over resumes."""
        return self._wall_before_s + time.perf_counter() - self._started_s

    def run(self) -> Outcome:
        try:
            reason = self._loop()
        except CollectionStopped:  # while units were collected: the last complete iteration stands
            reason = "interrupted"
        except (Exception, SystemExit):  # what the user's code raises may be either
            if self.is_consistent:
                self._rescue()
            raise
        # Once more where the last checkpoint was written before the time ran out: resuming must know that it has.
        self._save(again=reason == "time limit" and self._iterations_done > 0)
        return Outcome(reason, self.iteration, self.env_steps, self.wall_s, self.stop.signal_number)

    def _rescue(self) -> None:
        """Keep the last complete iteration. Where that fails too, why the run ends is still the first cause."""
        try:
            self._save()
        except (OSError, TrainingError) as error:
            _log.warning("iteration %d could not be saved: %s", self.iteration, error)

    def _loop(self) -> Reason:
        settings = self.config.training
        while self.stop.signal_number is None:
            done, late = self._iterations_left() <= 0, self._seconds_left() <= 0
            every = settings.evaluate_every
            if every and (done or late or self.iteration % every == 0):
                self._evaluate()
            if self.stop.signal_number is None and (done or late):
                return "done" if done else "time limit"
            if self.stop.signal_number is None:
                self._iterate()
                if self.iteration % settings.checkpoint_every == 0:
                    self._save()
        return "interrupted"

    def _seconds_left(self) -> float:
        limit = self.config.training.time_limit_minutes
        return math.inf if limit is None else 60 * limit - self.wall_s

    def _iterations_left(self) -> int:
        """Until the last iteration, or until the steps allowed are used up at the mean number per iteration so far."""
        settings = self.config.training
        left, limit = settings.iterations - self.iteration, settings.env_steps_limit
        if limit is None or self.env_steps == 0:
            return left
        return min(left, math.ceil((limit - self.env_steps) * self.iteration / self.env_steps))

    def _progress(self) -> float:
        """The share of the run that is done, by iterations, environment steps or time, whichever is furthest."""
        settings = self.config.training
        limit, limit_min = settings.env_steps_limit, settings.time_limit_minutes
        by_steps = 0.0 if limit is None else self.env_steps / limit
        by_time = 0.0 if limit_min is None else self.wall_s / (60 * limit_min)
        return min(1.0, max(self.iteration / settings.iterations, by_steps, by_time))

    def _iterate(self) -> None:
        """One meta-update. CollectionStopped while it collects; everything is then as it was before."""
        start = time.perf_counter()
        algorithm, iteration, overlap = self.algorithm, self.iteration, self.config.training.overlap
        units = self._units(iteration)
        collect_start = time.perf_counter()
        if overlap and self._lagged and not self._ahead:  # resumed
            self._collect_ahead(units, self._lagged, iteration - 1)
        arrived = self._arrived() if self._ahead else self.executor.collect(units, self.weights, iteration)
        trials = of_equal_length(arrived)
        learn_start = time.perf_counter()
        if self.stop.signal_number is not None:
            return
        assert [trial.unit for trial in trials] == [unit.index for unit in units]
        lag = max(iteration - trial.weights_version for trial in trials)
        assert 0 <= lag <= algorithm.max_lag, "data too old"
        if overlap and iteration > 0:  # the first iteration's plan may be another than all later ones'
            self._lagged = self.weights
            self._collect_ahead(self._units(iteration + 1), self.weights, iteration)
        self.is_consistent = False
        metrics = algorithm.update(trials, self._progress())
        learn_end = time.perf_counter()
        weights = algorithm.weights()
        self._check_finite(metrics, weights)
        self.iteration, self.weights = iteration + 1, weights
        steps = sum(trial.num_steps for trial in trials)
        self.env_steps += steps
        sample_s, learn_s = learn_start - collect_start, learn_end - learn_start
        returns = mean_returns(trials)
        end = time.perf_counter()
        total_s = end - start + self._log_s
        timings = {
            "wall_s": self.wall_s,
            "sample_s": sample_s,
            "learn_s": learn_s,
            "other_s": total_s - sample_s - learn_s,
            "env_steps_per_s": steps / total_s,
        }
        record = train_record(self.iteration, self.env_steps, returns, metrics, timings, lag)
        self._iterations_done += 1
        self.run_directory.write(record)
        self.is_consistent = True  # not before: a checkpoint whose record is missing would lose it for ever
        self.reporter.train(record, self.iteration + self._iterations_left(), self._eta_s())
        self._log_s = time.perf_counter() - end

    def _units(self, iteration: int) -> list[Unit]:
        seed, algorithm = self.config.seed, self.algorithm
        tasks = algorithm.tasks(self.distribution, seed, iteration)
        plan = algorithm.plan(self.distribution.horizon)
        return units_of(tasks, plan, self.config.training.tasks_per_unit, seed, iteration)

    def _collect_ahead(self, units: list[Unit], weights: dict[str, np.ndarray], version: int) -> None:
        self._ahead = units
        self.executor.submit(units, weights, version)

    def _arrived(self) -> list[TrialBatch]:
        """The trials of the units under way, when all are there."""
        trials: list[TrialBatch] = []
        while len(trials) < len(self._ahead):
            trials += self.executor.ready()
        self._ahead = []
        return sorted(trials, key=lambda trial: trial.unit)

    def _eta_s(self) -> float:
        """Seconds left at the mean pace so far (evaluations and checkpoints included), at most the time limit's."""
        pace_s = (time.perf_counter() - self._started_s) / self._iterations_done
        return max(0.0, min(self._seconds_left(), self._iterations_left() * pace_s))

    def _evaluate(self) -> None:
        if self.iteration in self.run_directory.evaluated:
            return
        start = time.perf_counter()
        settings = self.config.evaluation
        evaluation = evaluate(
            self.executor,
            self.distribution,
            self.algorithm.evaluation_plan(self.distribution.horizon, settings.settings),
            self.weights,
            split=settings.split,
            num_tasks=settings.num_tasks,
            seed=self.config.seed,
            iteration=self.iteration,
            tasks_per_unit=self.config.training.tasks_per_unit,
        )
        folder = self.run_directory.evaluation_folder(settings.split, self.iteration)
        evaluation.write(folder / "evaluation.json")
        record = evaluation_record(evaluation, self.env_steps, self.wall_s, time.perf_counter() - start)
        self.run_directory.write(record)
        self.reporter.evaluation(record)

    def _check_finite(self, metrics: dict[str, float], weights: dict[str, np.ndarray]) -> None:
        bad = [f"metric {name!r} is {value}" for name, value in metrics.items() if not math.isfinite(value)]
        bad += [f"weights {name!r} are not finite" for name, value in weights.items() if not np.isfinite(value).all()]
        if bad:
            raise TrainingError(self._lost(f"{', '.join(bad)} after iteration {self.iteration + 1}"))

    def _lost(self, what: str) -> str:
        kept = f"iteration {self.saved_iteration}" if self.saved_iteration >= 0 else "none yet"
        return f"training diverged: {what}. Not saved; last checkpoint: {kept}. Try smaller steps or learning rates"

    def _save(self, again: bool = False) -> None:
        if self.iteration == self.saved_iteration and not again:
            return
        self.run_directory.records.sync()
        meta = {
            "env_steps": self.env_steps,
            "wall_s": self.wall_s,
            "task_distribution": identity_of(self.distribution),
            "fingerprint": self._fingerprint,
            "seed": self.config.seed,
        }
        keep = self.config.training.keep_checkpoints
        state = self.algorithm.state_dict()
        if self.config.training.overlap:
            state |= {_LAGGED + name: torch.from_numpy(value) for name, value in self._lagged.items()}
        try:
            checkpoint.save(self.run_directory.checkpoints, self.iteration, state, meta, keep)
        except CheckpointError as error:
            self.is_consistent = False
            raise TrainingError(self._lost(str(error))) from error
        self.saved_iteration = self.iteration
        self._saved()
