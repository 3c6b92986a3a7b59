"""A training run as `metarl train` and `metarl.train` start it: in this process, or as an actor of a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from metarl.cli.executors import executors

if TYPE_CHECKING:
    from metarl.config import RunConfig
    from metarl.runs.warm_start import WarmStart
    from metarl.training.loop import Outcome
    from metarl.training.progress import ProgressReporter


def warm_start_of(run: str) -> WarmStart:
    """The weights of another run, a directory or a URL, for one that begins with them."""
    from metarl.runs.remote import reading_copy
    from metarl.runs.warm_start import read_warm_start

    with reading_copy(run) as path:
        return read_warm_start(path, run if "://" in run else str(Path(run).resolve()))


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
