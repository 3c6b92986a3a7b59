"""Evaluations of trained runs, by their own configurations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from metarl.config import RunConfig
from metarl.evaluation.evaluate import Evaluation, evaluate
from metarl.rollout.executor import Executor
from metarl.rollout.policy import AdaptivePolicy
from metarl.runs.build import TrainedRun, load_run
from metarl.runs.directory import as_begun, evaluation_folder
from metarl.runs.training_tasks import training_tasks
from metarl.tasks import Split, Task, TaskDistribution


def evaluate_run(trained: TrainedRun, executor: Executor, split: Split, chosen: Sequence[Task] = ()) -> Evaluation:
    """How a run's checkpoint adapts to the tasks of a split; all else is what its configuration says.

    `chosen`: to these tasks instead, which are then said to be of `split`.
    """
    config, distribution = trained.config, trained.distribution
    on_training_tasks = split == "train" and not chosen
    return evaluate(
        executor,
        distribution,
        trained.algorithm.evaluation_plan(distribution.horizon, config.evaluation.settings),
        trained.algorithm.weights(),
        split=split,
        num_tasks=config.evaluation.num_tasks,
        seed=config.seed,
        iteration=trained.checkpoint.iteration,
        tasks_per_unit=config.training.tasks_per_unit,
        trained_on=training_tasks(trained, config.evaluation.num_tasks, config.seed) if on_training_tasks else None,
        chosen=chosen,
    )


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
