"""Where units run, as the configuration and the options say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from metarl.errors import ConfigError

if TYPE_CHECKING:
    from metarl.config import RunConfig
    from metarl.rollout.executor import Executor, MakeExecutor
    from metarl.rollout.policy import AdaptivePolicy
    from metarl.runs.build import TrainedRun
    from metarl.tasks import TaskDistribution


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
