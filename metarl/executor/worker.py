"""What every worker does with a unit, whichever process it is in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from metarl.algorithms.base import AdaptivePolicy
from metarl.errors import EnvironmentFault, MetarlError
from metarl.experience import Trial, Unit, Weights
from metarl.tasks import TaskDistribution
from metarl.tasks.batch import TaskBatch
from metarl.trial import collect_trial


class UnitRunner:
    """Runs units of one task distribution with one policy; keeps built environments for the next unit."""

    def __init__(self, distribution: TaskDistribution, policy: AdaptivePolicy):
        self._distribution, self._policy = distribution, policy
        self._batches: dict[int, TaskBatch] = {}

    def run(self, unit: Unit, weights: Weights, version: int) -> Trial:
        """Collect the unit's trial. Errors of the environment come as EnvironmentFault with the tasks' names."""
        env_seed, policy_seed = np.random.SeedSequence(unit.seed).spawn(2)
        with single_threaded():
            batch = self._batch(unit)
            try:
                rounds = collect_trial(
                    self._policy,
                    weights,
                    batch,
                    unit.plan,
                    np.random.Generator(np.random.Philox(env_seed)),
                    np.random.Generator(np.random.Philox(policy_seed)),
                )
            except Exception:
                self._batches.clear()  # a half-run environment is in no known state
                raise
        return Trial(unit.index, unit.tasks, rounds, version)

    def _batch(self, unit: Unit) -> TaskBatch:
        tasks = [task for task in unit.tasks for _ in range(unit.plan.num_streams)]
        try:
            if len(tasks) in self._batches:
                self._batches[len(tasks)].set_tasks(tasks)
            else:
                self._batches = {len(tasks): self._distribution.make_batch(tasks)}
        except (MetarlError, EnvironmentFault):
            raise
        except Exception as error:
            raise EnvironmentFault(f"cannot build environments for {unit.tasks[0]}: {error!r}") from error
        return self._batches[len(tasks)]

    def close(self) -> None:
        for batch in self._batches.values():
            batch.close()
        self._batches = {}


@contextmanager
def single_threaded() -> Iterator[None]:
    """One BLAS and one torch thread inside: results then do not depend on the worker's processor count.

    The physics thread pool is not touched; its result never depends on its size.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(threads)
