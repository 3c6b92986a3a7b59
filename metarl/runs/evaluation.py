"""Evaluations of trained runs, by their own configurations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from metarl.algorithms.base import Algorithm, EvaluationSettings
from metarl.config import RunConfig
from metarl.errors import ConfigError
from metarl.evaluation.evaluate import Evaluation, against_blank, evaluate
from metarl.rollout.executor import Executor
from metarl.rollout.policy import AdaptivePolicy
from metarl.rollout.types import Context, TrialPlan
from metarl.runs.build import TrainedRun, load_run
from metarl.runs.directory import as_begun, evaluation_folder
from metarl.runs.training_tasks import training_tasks
from metarl.tasks import Split, Task, TaskDistribution

_GRID_EPISODES = 8  # of a grid's points, where nothing says how many


def evaluate_run(
    trained: TrainedRun,
    executor: Executor,
    split: Split,
    chosen: Sequence[Task] = (),
    *,
    context: Context | None = None,
    threshold: float | None = None,
) -> Evaluation:
    """How a run's checkpoint adapts to the tasks of a split; all else is what its configuration says.

    `chosen`: to these tasks instead, which are then said to be of `split`. `context`: another one than the
    configuration's. `threshold`: see `metarl.evaluation.measures`.
    """
    config, distribution = trained.config, trained.distribution
    on_training_tasks = split == "train" and not chosen
    settings = config.evaluation.settings
    return evaluate(
        executor,
        distribution,
        trained.algorithm.evaluation_plan(
            distribution.horizon, settings if context is None else replace(settings, context=context)
        ),
        trained.algorithm.weights(),
        split=split,
        num_tasks=config.evaluation.num_tasks,
        seed=config.seed,
        iteration=trained.checkpoint.iteration,
        tasks_per_unit=config.training.tasks_per_unit,
        trained_on=training_tasks(trained, config.evaluation.num_tasks, config.seed) if on_training_tasks else None,
        chosen=chosen,
        threshold=threshold,
    )


def with_blank(
    trained: TrainedRun, executor: Executor, evaluation: Evaluation, split: Split, chosen: Sequence[Task] = ()
) -> Evaluation:
    """`evaluation` with the gain over the same policy whose context is kept blank, on the same tasks.

    Without it where the algorithm has no such context, or where the evaluation is not of the policy's own.
    """
    if trained.config.evaluation.context != "own":
        return evaluation
    try:
        blank = evaluate_run(trained, executor, split, chosen, context="blank")
    except ConfigError:
        return evaluation
    return against_blank(evaluation, blank, trained.config.seed)


def plan_of_grid(algorithm: Algorithm, horizon: int, settings: EvaluationSettings) -> TrialPlan:
    """The plan of an algorithm's evaluations with enough episodes for an interval at every point: 8, unless the
    settings name a number."""
    plan = algorithm.evaluation_plan(horizon, settings)
    if settings.episodes is not None or plan.num_streams >= _GRID_EPISODES:
        return plan
    return algorithm.evaluation_plan(horizon, replace(settings, episodes=_GRID_EPISODES))


def final_evaluation(
    run_dir: Path,
    config: RunConfig,
    iteration: int,
    make_executor: Callable[[TaskDistribution, AdaptivePolicy[Any]], Executor],
) -> Evaluation:
    """The evaluation that training made at its end, at `iteration`; one made now, and kept, where it makes none."""
    config = as_begun(config, run_dir)
    path = evaluation_folder(run_dir, config.evaluation.split, iteration) / "evaluation.json"
    if config.training.evaluate_every and path.is_file():
        return Evaluation.load(path)
    trained = load_run(run_dir)
    executor = make_executor(trained.distribution, trained.algorithm.policy)
    try:
        evaluation = evaluate_run(trained, executor, config.evaluation.split)
    finally:
        executor.close()
    evaluation.write(path)
    return evaluation
