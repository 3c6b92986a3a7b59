"""What commands and Python programs start: training, and executors, in this process or on a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metarl.errors import ConfigError

if TYPE_CHECKING:
    from metarl.config import RunConfig
    from metarl.rollout.executor import Executor, MakeExecutor
    from metarl.rollout.policy import AdaptivePolicy
    from metarl.runs.build import TrainedRun
    from metarl.runs.warm_start import WarmStart
    from metarl.tasks import TaskDistribution
    from metarl.training.loop import Outcome
    from metarl.training.progress import ProgressReporter


@contextmanager
def executors(config: RunConfig, address: str | None) -> Iterator[MakeExecutor]:
    """A function that makes executors. Ray starts with the first one made, when all input has been checked, and ends
    with this."""
    settings = config.executor
    if settings.backend == "local" and address is not None:
        raise ConfigError(f"--address {address} and running locally exclude each other")
    with ExitStack() as stack:

        def make(distribution: TaskDistribution, policy: AdaptivePolicy[Any]) -> Executor:
            if settings.backend == "local":
                from metarl.rollout.local import LocalExecutor

                return LocalExecutor(distribution, policy)
            from metarl.distributed import RayExecutor, connect

            stack.enter_context(connect(address, settings.num_workers))
            return RayExecutor(
                distribution, policy, num_workers=settings.num_workers, unit_deadline_s=settings.unit_deadline_s
            )

        yield make


def locally(config: RunConfig) -> RunConfig:
    """`config` with its units in this process."""
    return config.model_copy(update={"executor": config.executor.model_copy(update={"backend": "local"})})


@contextmanager
def executor_of(trained: TrainedRun, is_local: bool, address: str | None) -> Iterator[Executor]:
    """Where the run's units are collected; closed at the end."""
    with executors(locally(trained.config) if is_local else trained.config, address) as make_executor:
        executor = make_executor(trained.distribution, trained.algorithm.policy)
        try:
            yield executor
        finally:
            executor.close()


def warm_start_of(run: str) -> WarmStart:
    """The weights of another run, a directory or a URL, for one that begins with them."""
    from metarl.runs.remote import is_url, reading_copy
    from metarl.runs.warm_start import read_warm_start

    with reading_copy(run) as path:
        return read_warm_start(path, run if is_url(run) else str(Path(run).resolve()))


def launch(
    settings: RunConfig,
    run: str,
    address: str | None,
    resume: bool,
    start: WarmStart | None,
    reporter: ProgressReporter,
) -> Outcome:
    """Train in `run`, a directory or a URL: on the cluster at `address` where one is given and units are Ray's."""
    if address is None or settings.executor.backend == "local":
        from metarl.runs.remote import local_copy
        from metarl.training.loop import train

        with executors(settings, address) as make_executor, local_copy(run) as (path, saved):
            return train(settings, path, make_executor, resume=resume, start=start, reporter=reporter, saved=saved)
    from metarl.distributed.learner import train_on_cluster

    return train_on_cluster(settings, run, address, resume, reporter, start)
