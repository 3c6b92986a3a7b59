"""Long work in an actor that Ray restarts when its process or its node ends; on a node with a GPU where wanted.

    here     run_restartable(work) ---- starts ---->  actor      work(channel)
             show(event)           <--- asks for ---             channel.emit(event)
             stop.signal_number    ---- tells ----->             channel.signal_number

After a restart (`channel.is_restarted`) the work continues from what it saved itself. A signal is passed on, and this
process waits until the work has ended. If this process is killed, Ray kills the actor.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import ray
from ray import cloudpickle
from ray.exceptions import GetTimeoutError, RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from metarl.distributed.actor import Failure, adopt_search_path, driver_search_path
from metarl.distributed.messages import first_line
from metarl.distributed.nodes import load
from metarl.errors import ConfigError, TrainingError
from metarl.training.stop import StopSource

Result = TypeVar("Result")
_log = logging.getLogger(__name__)
_MAX_RESTARTS = 10  # a node that was taken away does not count
_POLL_S = 0.5
_SAY_AFTER_S = 30.0
_RESOURCES_DEADLINE_S = 120.0  # where the cluster lacks what the work needs
_START_DEADLINE_S = 1200.0  # where it has it: a busy machine needs minutes


@dataclass
class Channel:
    """What the work is given."""

    is_restarted: bool
    signal_number: int | None = None  # set from outside when the work is to stop
    events: list[Any] = field(default_factory=list)

    def emit(self, event: Any) -> None:
        """Have `event` shown where the work was started."""
        self.events.append(event)


@dataclass(frozen=True)
class _Done(Generic[Result]):
    value: Result


class Restartable:
    """The actor. `run` takes as long as the work; the other calls are answered meanwhile, by other threads."""

    def __init__(self, search_path: Sequence[str]):
        adopt_search_path(search_path)
        self._channel = Channel(ray.get_runtime_context().was_current_actor_reconstructed)

    def pid(self) -> int:
        return os.getpid()

    def run(self, payload: bytes) -> _Done[Any] | Failure:
        try:
            return _Done(cloudpickle.loads(payload)(self._channel))
        except Exception as error:
            return Failure.of(error)

    def news(self, pid: int, after: int) -> tuple[int, list[Any]]:
        """Events since the `after` first ones of this process; all of them where it is not the one with `pid`."""
        return os.getpid(), self._channel.events[after if pid == os.getpid() else 0 :]

    def stop(self, signal_number: int) -> None:
        self._channel.signal_number = signal_number


def run_restartable(
    work: Callable[[Channel], Result], show: Callable[[Any], None], stop: StopSource, num_gpus: float = 0
) -> Result:
    """What `work` returns, in an actor on this node, or on another one where this has no such resources.

    Raises what `work` raised, where that is an error of metarl's; ConfigError where no node has the resources,
    TrainingError where the actor ended more often than can be chance.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    options = {"num_cpus": 0, "num_gpus": num_gpus, "max_restarts": _MAX_RESTARTS, "max_task_retries": -1}
    actor_class: Any = ray.remote(Restartable).options(**options, max_concurrency=4, scheduling_strategy=here)
    actor = actor_class.remote(driver_search_path())
    try:
        _wait_for_start(actor, num_gpus)
        outcome = _follow(actor, actor.run.remote(cloudpickle.dumps(work)), show, stop)
    except RayActorError as error:
        raise TrainingError(f"the learner's process ended again and again: {first_line(error)}") from error
    finally:
        ray.kill(actor, no_restart=True)
    if isinstance(outcome, Failure):
        raise outcome.exception()
    return outcome.value


def _wait_for_start(actor: Any, num_gpus: float) -> None:
    start, started = actor.pid.remote(), time.monotonic()
    while not ray.wait([start], timeout=min(_SAY_AFTER_S, _RESOURCES_DEADLINE_S))[0]:
        waited_s, there = time.monotonic() - started, ray.cluster_resources().get("GPU", 0)
        if waited_s > (_RESOURCES_DEADLINE_S if there < num_gpus else _START_DEADLINE_S):
            raise ConfigError(
                f"the learner has not started within {waited_s:.0f} s: it wants {num_gpus:g} GPU, and the cluster "
                f"has {there:g}, all of its nodes together; {load()}. device=cpu needs no GPU"
            )
        _log.warning("the learner has not started in %.0f s; %s", waited_s, load())
    ray.get(start)


def _follow(actor: Any, outcome: Any, show: Callable[[Any], None], stop: StopSource) -> _Done[Any] | Failure:
    """Show events until the outcome is there; pass a signal on, again to each new process.

    Where events cannot be shown any more (a pipe that is closed, a terminal that is gone) the work continues without.
    """
    pid, seen, told, is_shown = 0, 0, 0, True
    while True:
        is_done = bool(ray.wait([outcome], timeout=_POLL_S)[0])
        try:
            now, events = ray.get(actor.news.remote(pid, seen), timeout=10 * _POLL_S)
        except (GetTimeoutError, RayActorError):  # it is being started again; for good or not, `outcome` will say
            now, events = pid, []
        seen = len(events) + (seen if now == pid else 0)
        pid = now
        for event in events if is_shown else ():
            try:
                show(event)
            except (OSError, ValueError, SystemExit) as error:
                is_shown = False
                with suppress(OSError, ValueError, SystemExit):
                    _log.warning("the run continues without output: %s", error)
        if is_done:
            return ray.get(outcome)
        if stop.signal_number is not None and told != pid:
            actor.stop.remote(stop.signal_number)
            told = pid
