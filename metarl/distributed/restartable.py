"""Long work in an actor that Ray starts again wherever it ends: on another node, on a GPU where asked for.

    here     run_restartable(work) ---- starts ---->  actor      work(channel)
             show(event)           <--- asks for ---             channel.emit(event)
             stop.signal_number    ---- tells ----->             channel.signal_number

The work goes on from what it saved itself: `channel.is_restarted` says that it must. Where this process ends, so does
the work, without another word: a signal is passed on, and waited for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import ray
from ray import cloudpickle
from ray.exceptions import GetTimeoutError, RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from metarl.distributed.actor import Failure, adopt_search_path, driver_search_path
from metarl.errors import ConfigError, TrainingError
from metarl.training.stop import StopSource

Result = TypeVar("Result")
_MAX_RESTARTS = 10  # a node that was taken away does not count
_POLL_S = 0.5
_START_DEADLINE_S = 120.0


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
        raise TrainingError(f"the learner's process ended again and again: {str(error).splitlines()[0]}") from error
    finally:
        ray.kill(actor, no_restart=True)
    if isinstance(outcome, Failure):
        raise outcome.exception()
    return outcome.value


def _wait_for_start(actor: Any, num_gpus: float) -> None:
    try:
        ray.get(actor.pid.remote(), timeout=_START_DEADLINE_S)
    except GetTimeoutError as error:
        there = ray.cluster_resources().get("GPU", 0)
        raise ConfigError(
            f"the learner has not started within {_START_DEADLINE_S:g} s: it wants {num_gpus:g} GPU, and the cluster "
            f"has {there:g}, all of its nodes together. device=cpu needs none"
        ) from error


def _follow(actor: Any, outcome: Any, show: Callable[[Any], None], stop: StopSource) -> _Done[Any] | Failure:
    """Show events until the outcome is there; pass a signal on, again to each new process."""
    pid, seen, told = 0, 0, 0
    while True:
        is_done = bool(ray.wait([outcome], timeout=_POLL_S)[0])
        try:
            now, events = ray.get(actor.news.remote(pid, seen), timeout=10 * _POLL_S)
        except (GetTimeoutError, RayActorError):  # it is being started again; for good or not, `outcome` will say
            now, events = pid, []
        seen = len(events) + (seen if now == pid else 0)
        pid = now
        for event in events:
            show(event)
        if is_done:
            return ray.get(outcome)
        if stop.signal_number is not None and told != pid:
            actor.stop.remote(stop.signal_number)
            told = pid
