"""Evaluations of trained runs, by their own configurations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from metarl.config import RunConfig
from metarl.errors import ConfigError
from metarl.evaluation.evaluate import Evaluation, against_blank, evaluate
from metarl.evaluation.grid import Axis, Grid, evaluate_grid
from metarl.rollout.executor import Executor, MakeExecutor
from metarl.rollout.types import Context
from metarl.runs.build import TrainedRun, load_run
from metarl.runs.directory import as_begun, evaluation_folder
from metarl.runs.training_tasks import training_tasks
from metarl.tasks import Split, Task
from metarl.tasks.changes import redraw_notes

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
    evaluation = evaluate(
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
    return replace(evaluation, notes=(*evaluation.notes, *redraw_notes(distribution))) if chosen else evaluation


def judge_run(
    trained: TrainedRun,
    executor: Executor,
    split: Split,
    chosen: Sequence[Task] = (),
    *,
    threshold: float | None = None,
) -> Evaluation:
    """`evaluate_run` with the gain over the same policy whose context is kept blank, on the same tasks.

    Without it where the policy has nothing to adapt to, where the algorithm has no such context, or where the
    configuration asks for another context than the policy's own.
    """
    evaluation = evaluate_run(trained, executor, split, chosen, threshold=threshold)
    if trained.config.evaluation.context != "own" or not evaluation.has_adapted:
        return evaluation
    try:
        blank = evaluate_run(trained, executor, split, chosen, context="blank")
    except ConfigError:
        return evaluation
    return against_blank(evaluation, blank, trained.config.seed)


def evaluate_grid_of(trained: TrainedRun, executor: Executor, axes: Sequence[Axis], base: Task) -> Grid:
    """How a run's checkpoint adapts on a grid of tasks, with enough episodes for an interval at every point: 8, unless
    its configuration names a number."""
    config, algorithm, horizon = trained.config, trained.algorithm, trained.distribution.horizon
    settings = config.evaluation.settings
    plan = algorithm.evaluation_plan(horizon, settings)
    if settings.episodes is None and plan.num_streams < _GRID_EPISODES:
        plan = algorithm.evaluation_plan(horizon, replace(settings, episodes=_GRID_EPISODES))
    return evaluate_grid(
        executor,
        trained.distribution,
        plan,
        algorithm.weights(),
        axes,
        base,
        seed=config.seed,
        iteration=trained.checkpoint.iteration,
        tasks_per_unit=config.training.tasks_per_unit,
    )


def final_evaluation(run_dir: Path, config: RunConfig, iteration: int, make_executor: MakeExecutor) -> Evaluation:
    """The evaluation that training made at its end, at `iteration`; one made now, and kept, where it makes none."""
    config = as_begun(config, run_dir)
    split, may_be_there = config.evaluation.split, config.training.evaluate_every > 0
    return kept_evaluation(run_dir, split, iteration, make_executor, may_be_there)


def kept_evaluation(
    run_dir: Path, split: Split, iteration: int, make_executor: MakeExecutor, may_be_there: bool = True
) -> Evaluation:
    """The evaluation of a split that the run's directory holds; one made now, and kept, where it holds none.

    `iteration` is that of the newest checkpoint. Without `may_be_there` what it holds is made anew.
    """
    path = evaluation_folder(run_dir, split, iteration) / "evaluation.json"
    if may_be_there and path.is_file():
        return Evaluation.load(path)
    trained = load_run(run_dir)
    executor = make_executor(trained.distribution, trained.algorithm.policy)
    try:
        evaluation = evaluate_run(trained, executor, split)
    finally:
        executor.close()
    evaluation.write(path)
    return evaluation
