"""The tasks that a run was trained on, for evaluations of the training split."""

from __future__ import annotations

import numpy as np

from metarl.errors import ConfigError
from metarl.rollout import seeds
from metarl.runs.build import TrainedRun
from metarl.tasks import Task

_PATIENCE = 300  # iterations without a task that is not known yet, before the known ones count as all


def training_tasks(trained: TrainedRun, num_tasks: int, seed: int) -> tuple[Task, ...]:
    """`num_tasks` of the tasks that the run trained on: its algorithm is asked for those of iterations drawn at random.

    Distinct ones where there are enough; else all of them, repeated in turn. ConfigError where the run has not been
    trained yet.
    """
    iterations = trained.checkpoint.iteration
    if iterations == 0:
        raise ConfigError(
            "split = 'train': the run has not been trained on any task yet; allowed: test, validation, ood"
        )
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(seeds.evaluation_tasks(seed))))
    run_seed = int(trained.checkpoint.meta["seed"])  # the configuration's may have been overridden
    found: dict[Task, None] = {}
    unsuccessful = 0
    for iteration in rng.permutation(iterations).tolist():
        tasks = trained.algorithm.tasks(trained.distribution, run_seed, iteration)
        new = [tasks[i] for i in rng.permutation(len(tasks)).tolist() if tasks[i] not in found]
        found |= dict.fromkeys(new)
        unsuccessful = 0 if new else unsuccessful + 1
        if len(found) >= num_tasks or unsuccessful == _PATIENCE:
            break
    distinct = list(found)[:num_tasks]
    return tuple(distinct[i % len(distinct)] for i in range(num_tasks))
