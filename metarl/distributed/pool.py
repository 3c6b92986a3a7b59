"""RayExecutor: units on Ray actors, with deadlines and without losses.

Who waits for whom. Only the driver waits, and only inside `ready` and `collect`:

    driver:  submit --> ledger's queue
             ready/collect, turn after turn:
               hand out      queue --> actors that are up, at most `units_in_flight` calls each, in order
               wait          for the start of an actor or the result of any actor's oldest call
               take in       results --> ledger;  a failure or a dead actor: the unit back to the queue's front
               clock         an actor's oldest call past its deadline: another actor, the unit back to the queue;
                             much later than usual: the unit to another actor as well, the first result counts
               nodes         actors for processors that have come, none for those that have gone

    actor:   starting --started--> up --run(unit, weights, version)--> up ... until it dies or is killed;
             then the driver starts another one in its place

An actor has its next call before it ends the one under way. A result is a TrialBatch, or a Failure as text. The
reference of a call that is given up is dropped, so its late result is never read. Ray restarts no actor: it would do so
as well for calls that are pending when an actor is killed, and leave a process behind that nobody knows.
"""

from __future__ import annotations

import hashlib
import logging
import statistics
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import ray
from ray import ObjectRef, cloudpickle
from ray.exceptions import RayActorError, RayError, RayTaskError, RuntimeEnvSetupError

from metarl.distributed import _ray_private
from metarl.distributed.actor import WORKER_ENVIRONMENT, Failure, RolloutActor, driver_search_path
from metarl.distributed.ledger import Ledger, Ticket, WorkerTracebackError
from metarl.distributed.messages import first_line, pip_error
from metarl.distributed.nodes import load, look, processors_of_others
from metarl.errors import ConfigError, MetarlError, TrainingError
from metarl.rollout.policy import AdaptivePolicy
from metarl.rollout.types import TrialBatch, Unit, Weights
from metarl.tasks import TaskDistribution
from metarl.tasks.requirements import unmet

_log = logging.getLogger(__name__)
_TURN_S = 0.5  # the longest wait in one piece: Ctrl-C and deadlines are seen that often
_START_DEADLINE_S = 120.0
_SAY_AFTER_S = 30.0  # workers that have not started by then are said, and the machine's load
_NONE_UP_DEADLINE_S = 600.0  # nodes of an autoscaling cluster take minutes
_MAX_FAILED_STARTS = 5  # in the place of one worker, without one that succeeds anywhere
_LOOK_EVERY_S = 2.0  # at the cluster's nodes
_PLACED_WITHIN_S = 20.0  # an actor for which a processor is free has started by then
_INSTALL_S = 1200.0  # more, where a worker's Python has to be made first
_LATE_S, _LATE_FACTOR = 5.0, 4.0  # a unit is late after so long, and so many times the median of the last ones


@dataclass(eq=False)
class _Call:
    ticket: Ticket[ObjectRef]
    ref: ObjectRef


@dataclass(eq=False)
class _Worker:
    """One actor. `start` is the call under way while it starts; `calls` are in the order it runs them."""

    actor: Any  # an ActorHandle; Ray's own annotations of `remote` do not fit its classes made by options()
    start: ObjectRef | None
    since: float  # when the oldest call, or the start, began as far as the driver knows
    failed_starts: int = 0  # of those that were started in this one's place before, the last ones in a row
    calls: deque[_Call] = field(default_factory=deque)
    node: str = ""  # the id of the one it runs on, once up

    @property
    def awaited(self) -> ObjectRef | None:
        """What the driver waits for on this actor's account."""
        if self.start is not None:
            return self.start
        return self.calls[0].ref if self.calls else None


class RayExecutor:
    """Executor on Ray actors of one processor and one thread each. Ray must be connected (see `connect`).

    num_workers: how many actors; the ones that are up work, the others may come when the cluster grows. None takes one
        per processor that is free, more as nodes join and fewer as nodes leave.
    unit_deadline_s: a unit that takes longer is stopped and tried again elsewhere.
    max_failures: so many failures or missed deadlines of a unit, and its environment is at fault.
    max_losses: so many deaths of the worker process while it runs a unit, and the unit is at fault.
    """

    def __init__(
        self,
        distribution: TaskDistribution,
        policy: AdaptivePolicy[Any],
        num_workers: int | None = None,
        unit_deadline_s: float = 600.0,
        max_failures: int = 3,
        max_losses: int = 10,
        units_in_flight: int = 2,
    ):
        if num_workers is not None and num_workers < 1:
            raise ConfigError(f"num_workers must be at least 1, got {num_workers}")
        if not unit_deadline_s > 0:
            raise ConfigError(f"unit_deadline_s must be positive, got {unit_deadline_s}")
        self._deadline_s, self._in_flight = unit_deadline_s, units_in_flight
        self._ledger: Ledger[ObjectRef] = Ledger(max_failures, max_losses)
        self._weights: tuple[tuple[int, bytes], ObjectRef] | None = None  # of the newest version
        self._last_up_s = self._said_s = time.monotonic()
        self._is_closed = False
        try:
            payload = cloudpickle.dumps((distribution, policy))
        except Exception as error:
            raise MetarlError(f"{distribution.name} cannot be sent to worker processes: {error}") from error
        self._arguments = payload, driver_search_path()
        self._to_install = unmet(distribution.requirements)  # what this Python has, the nodes are taken to have
        self._install_s = _INSTALL_S if self._to_install else 0.0
        if self._to_install:
            _log.info("workers install %s, which can take minutes at first", ", ".join(self._to_install))
        runtime_env = {"env_vars": WORKER_ENVIRONMENT} | ({"pip": [*self._to_install]} if self._to_install else {})
        self._actor_class = ray.remote(RolloutActor).options(
            num_cpus=1, max_restarts=0, max_task_retries=0, runtime_env=runtime_env
        )
        self._is_elastic = num_workers is None
        self._nodes, self._looked_s, self._had_free = look(), time.monotonic(), 0
        self._durations: deque[float] = deque(maxlen=32)  # of the last units, in seconds
        self._workers = [self._start() for _ in range(num_workers or processors_of_others())]

    # --- the Executor protocol -------------------------------------------------------------------

    @property
    def num_workers(self) -> int:
        return len(self._workers)

    def collect(self, units: Sequence[Unit], weights: Weights, version: int) -> list[TrialBatch]:
        tickets = self._submit(units, weights, version)
        try:
            while not self._ledger.is_finished(tickets):
                self._turn(_TURN_S)
            return self._ledger.take_finished(tickets)
        except BaseException:
            self._ledger.abandon(tickets)
            raise

    def submit(self, units: Sequence[Unit], weights: Weights, version: int) -> None:
        self._submit(units, weights, version)
        self._hand_out()

    def ready(self, timeout_s: float | None = None) -> list[TrialBatch]:
        end = float("inf") if timeout_s is None else time.monotonic() + timeout_s
        wait_s = 0.0
        while self._ledger.num_open:
            self._turn(wait_s)
            wait_s = min(_TURN_S, end - time.monotonic())
            if self._ledger.num_finished or wait_s <= 0:
                break
        return self._ledger.take_finished()

    def check_alive(self) -> None:
        """Raise TrainingError where the embedded Ray has died. Asks nothing of Ray, so it answers at once."""
        if dead := _ray_private.dead_processes():
            raise TrainingError(f"Ray has ended on this machine ({', '.join(dead)}); was it killed, or out of memory?")

    def close(self) -> None:
        self._is_closed = True
        workers, self._workers = self._workers, []
        if ray.is_initialized() and not _ray_private.dead_processes():
            for worker in workers:
                ray.kill(worker.actor)
        self._weights = None

    def __enter__(self) -> RayExecutor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- one turn --------------------------------------------------------------------------------

    def _submit(self, units: Sequence[Unit], weights: Weights, version: int) -> list[Ticket[ObjectRef]]:
        if self._is_closed:
            raise RuntimeError("this executor is closed")
        return self._ledger.submit(units, self._put(weights, version), version)

    def _put(self, weights: Weights, version: int) -> ObjectRef:
        """The weights in the object store, once per version as long as the arrays are the same."""
        key = (version, _digest(weights))
        if self._weights is None or self._weights[0] != key:
            self._weights = key, ray.put(dict(weights))
        return self._weights[1]

    def _turn(self, wait_s: float) -> None:
        """Hand out, wait at most `wait_s` for something to happen, take it in, look at the nodes and the clock."""
        if self._is_closed:
            raise RuntimeError("this executor is closed")
        self.check_alive()
        self._look_at_nodes()
        self._hand_out()
        there = self._arrived(wait_s)
        while there:
            for worker in list(self._workers):
                if worker.awaited in there:
                    self._take_in(worker)
            self._hand_out()
            there = self._arrived(0)
        if any(worker.start is None for worker in self._workers):
            self._last_up_s = time.monotonic()
        for worker in list(self._workers):
            self._check_clock(worker)

    def _arrived(self, wait_s: float) -> set[ObjectRef]:
        """What is there of what the driver waits for, waiting until something is or the time is up."""
        awaited = [worker.awaited for worker in self._workers if worker.awaited is not None]
        if not awaited:
            return set()
        if wait_s > 0:
            ray.wait(awaited, num_returns=1, timeout=wait_s)
        return set(ray.wait(awaited, num_returns=len(awaited), timeout=0)[0])

    def _hand_out(self) -> None:
        """Queued units to the actors that are up and stay, a first one to each before a second."""
        up = [w for w in self._workers if w.start is None and w.node in self._nodes.staying]
        for depth in range(self._in_flight):
            for worker in up:
                if len(worker.calls) == depth:
                    ticket = self._ledger.take()
                    if ticket is None:
                        return
                    if not worker.calls:
                        worker.since = time.monotonic()
                    ref: ObjectRef = worker.actor.run.remote(ticket.unit, ticket.weights, ticket.version)
                    worker.calls.append(_Call(ticket, ref))

    def _take_in(self, worker: _Worker) -> None:
        """The result of what was awaited of this worker, which is there."""
        if worker.start is not None:
            self._note_start(worker, worker.start)
            return
        call = worker.calls[0]
        try:
            outcome: TrialBatch | Failure = ray.get(call.ref)
        except RayTaskError as error:  # outside the code that catches: unpickling a unit, storing a result
            outcome = Failure("program", type(error).__name__, str(error.cause), str(error))
        except RayActorError as error:
            self._lose(worker, first_line(error))
            return
        except RayError as error:  # the result is lost with the node that held it
            worker.calls.popleft()
            self._count_loss(worker, call.ticket, first_line(error))
            return
        worker.calls.popleft()
        now = time.monotonic()
        self._durations.append(now - worker.since)
        worker.since = now
        if isinstance(outcome, Failure):
            self._fail(call.ticket, outcome)
        else:
            self._ledger.complete(call.ticket, outcome)

    def _fail(self, ticket: Ticket[ObjectRef], failure: Failure) -> None:
        if failure.kind == "environment":
            self._ledger.failed(ticket, failure.message, failure.traceback)
            return
        self._ledger.abandon([ticket])
        raise failure.exception(f"{ticket}: ")

    # --- workers that start, die and hang --------------------------------------------------------

    def _start(self, failed_starts: int = 0) -> _Worker:
        actor: Any = self._actor_class.remote(*self._arguments)
        return _Worker(actor, actor.started.remote(), time.monotonic(), failed_starts)

    def _replace(self, worker: _Worker, failed_starts: int = 0) -> list[Ticket[ObjectRef]]:
        """Another worker in the place of this one, which ends; the units that it was given."""
        ray.kill(worker.actor)
        self._workers[self._workers.index(worker)] = self._start(failed_starts)
        return [call.ticket for call in worker.calls]

    def _note_start(self, worker: _Worker, start: ObjectRef) -> None:
        """The worker has started, or cannot."""
        try:
            worker.node, problem = ray.get(start)
        except RuntimeEnvSetupError as error:
            raise MetarlError(f"workers cannot install {', '.join(self._to_install)}: {pip_error(error)}") from error
        except RayError as error:
            if worker.failed_starts + 1 >= _MAX_FAILED_STARTS:
                raise MetarlError(f"worker processes do not start: {error}") from error
            _log.warning("a worker process did not start, trying another: %s", first_line(error))
            self._replace(worker, worker.failed_starts + 1)
            return
        if problem is not None:
            cause = f"{problem.error_type}: {problem.message}"
            raise MetarlError(
                f"workers cannot load the task distribution or the policy: {cause}"
            ) from WorkerTracebackError(problem.traceback)
        worker.start = None
        for other in self._workers:
            other.failed_starts = 0

    def _lose(self, worker: _Worker, reason: str) -> None:
        """The worker died. Only the unit that it was running may be the cause."""
        suspect, *others = self._replace(worker)
        self._ledger.put_back(others)
        self._count_loss(worker, suspect, reason)

    def _count_loss(self, worker: _Worker, ticket: Ticket[ObjectRef], reason: str) -> None:
        """A lost unit counts towards `max_losses`, unless the worker's node is leaving."""
        self._nodes = look()
        if worker.node in self._nodes.staying:
            self._ledger.lost(ticket, reason)
        else:
            _log.info("%s goes out again: its node is leaving the cluster", ticket)
            self._ledger.put_back([ticket])

    def _check_clock(self, worker: _Worker) -> None:
        elapsed = time.monotonic() - worker.since
        if worker.start is not None:
            self._say_late_start(elapsed)
            if elapsed > _START_DEADLINE_S + self._install_s:
                self._check_start(worker)
        elif worker.calls and elapsed > self._deadline_s:
            if ray.wait([worker.calls[0].ref], timeout=0)[0]:
                return  # it came just now; the next turn takes it in
            late, *others = self._replace(worker)
            self._ledger.put_back(others)
            self._ledger.failed(late, f"no result within {self._deadline_s:g} s, its worker was stopped")
        elif worker.calls and elapsed > self._late_s():
            self._ledger.duplicate([call.ticket for call in worker.calls])

    def _late_s(self) -> float:
        usual_s = statistics.median(self._durations) if self._durations else self._deadline_s
        return max(_LATE_S, _LATE_FACTOR * usual_s)

    def _say_late_start(self, elapsed: float) -> None:
        """Why nothing happens: once in 30 s."""
        now = time.monotonic()
        if elapsed > _SAY_AFTER_S and now - self._said_s > _SAY_AFTER_S:
            self._said_s = now
            up = sum(w.start is None for w in self._workers)
            _log.warning(
                "%d of %d workers are up; one has not started in %.0f s; %s", up, len(self._workers), elapsed, load()
            )

    def _check_start(self, worker: _Worker) -> None:
        """A worker that has not come up in time is started anew; MetarlError where none has for far too long."""
        if time.monotonic() - self._last_up_s > _NONE_UP_DEADLINE_S + self._install_s:
            free, all_ = (f().get("CPU", 0) for f in (ray.available_resources, ray.cluster_resources))
            raise MetarlError(f"no worker starts: each needs a processor, {free:g} of {all_:g} are free; {load()}")
        self._replace(worker)

    # --- a cluster that grows and shrinks --------------------------------------------------------

    def _look_at_nodes(self) -> None:
        if time.monotonic() - self._looked_s < _LOOK_EVERY_S:
            return
        self._nodes, self._looked_s = look(), time.monotonic()
        if self._is_elastic:
            self._resize()

    def _resize(self) -> None:
        """One worker per free processor more; workers that found no place go, but for the last."""
        starting = [w for w in self._workers if w.start is not None]
        unplaced = [w for w in starting if self._looked_s - w.since > _PLACED_WITHIN_S + self._install_s]
        free = self._nodes.free_processors - len(starting)
        for _ in range(min(free, self._had_free)):  # twice in a row: what others release and take counts for nothing
            self._workers.append(self._start())
        self._had_free = max(0, free)
        num_gone = min(len(unplaced), len(self._workers) - 1) if self._nodes.free_processors == 0 else 0
        for worker in unplaced[:num_gone]:
            ray.kill(worker.actor)
            self._workers.remove(worker)
        if num_gone or free > 0:
            _log.info("%d workers", len(self._workers))


def _digest(weights: Weights) -> bytes:
    """A hash of names, shapes, types and values."""
    state = hashlib.blake2b(digest_size=16)
    for name, array in sorted(weights.items()):
        value = np.ascontiguousarray(array)
        state.update(f"{name}:{value.dtype.str}:{value.shape};".encode())
        state.update(value.data if value.size else b"")
    return state.digest()
