"""Training on a running Ray cluster: the loop is an actor that continues from its checkpoint wherever it starts."""

from __future__ import annotations

import os
import uuid
from functools import partial

from metarl.config import RunConfig
from metarl.distributed import RayExecutor, connect
from metarl.distributed.nodes import has_gpu
from metarl.distributed.restartable import Channel, run_restartable
from metarl.runs.remote import is_url, local_copy
from metarl.runs.warm_start import WarmStart
from metarl.training.loop import Outcome, train
from metarl.training.progress import ForwardingReporter, ProgressReporter, report_event
from metarl.training.stop import StopRequest, stop_signals


def train_on_cluster(
    config: RunConfig,
    run_dir: str,
    address: str,
    resume: bool,
    reporter: ProgressReporter,
    start: WarmStart | None = None,
) -> Outcome:
    """As `metarl.training.loop.train`, in a process of the cluster at `address`; this one only follows it.

    The process takes a GPU where the configuration wants one, and with `device: auto` where the cluster has one. It
    runs on this node if it can: elsewhere `run_dir` must be on storage that the nodes share, or a URL of one.
    """
    stop = StopRequest()
    with connect(address), stop_signals(stop):
        num_gpus = int(config.device == "cuda" or (config.device == "auto" and has_gpu()))
        run = run_dir if is_url(run_dir) else os.path.abspath(run_dir)
        work = partial(_learn, config, run, resume, start, uuid.uuid4().hex)
        return run_restartable(work, partial(report_event, reporter), stop, num_gpus)


def _learn(
    config: RunConfig, run_dir: str, resume: bool, start: WarmStart | None, owner: str, channel: Channel
) -> Outcome:
    settings = config.executor
    make_executor = partial(RayExecutor, num_workers=settings.num_workers, unit_deadline_s=settings.unit_deadline_s)
    go_on = resume or channel.is_restarted
    reporter = ForwardingReporter(channel.emit)
    with local_copy(run_dir, owner) as (path, saved):
        return train(
            config, path, make_executor, resume=go_on, start=start, reporter=reporter, stop=channel, saved=saved
        )
