"""What became of every unit: queued, under way, finished, or given up. Bookkeeping alone, no processes.

submit -> [queue] -> take -> (under way) -> complete -> finished
             ^                   |
             +--- failed/lost ---+   bounded by max_failures / max_losses, then EnvironmentFault
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from metarl.errors import EnvironmentFault
from metarl.rollout.types import TrialBatch, Unit

W = TypeVar("W")
_log = logging.getLogger(__name__)
_MAX_NAMED_TASKS = 4


class WorkerTracebackError(Exception):
    """The traceback of another process, as text: the cause of an error raised here."""

    def __str__(self) -> str:
        return "\n" + "".join(str(part) for part in self.args)


@dataclass(eq=False)
class Ticket(Generic[W]):
    """One submitted unit, the weights it is collected with, and why it had to go out again."""

    unit: Unit
    weights: W
    version: int
    failures: list[str] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)
    is_duplicated: bool = False  # whether it is under way twice

    def __str__(self) -> str:
        return f"unit {self.unit.index} [{describe_tasks(self.unit)}]"


class Ledger(Generic[W]):
    """Every unit submitted and not yet returned. A unit yields exactly one trial, however often it goes out."""

    def __init__(self, max_failures: int, max_losses: int):
        self._max_failures, self._max_losses = max_failures, max_losses
        self._queue: deque[Ticket[W]] = deque()
        self._open: set[Ticket[W]] = set()
        self._finished: dict[Ticket[W], TrialBatch] = {}

    @property
    def num_open(self) -> int:
        """Units queued or under way."""
        return len(self._open)

    @property
    def num_finished(self) -> int:
        """Trials not handed over yet."""
        return len(self._finished)

    def submit(self, units: Sequence[Unit], weights: W, version: int) -> list[Ticket[W]]:
        tickets = [Ticket(unit, weights, version) for unit in units]
        self._queue.extend(tickets)
        self._open.update(tickets)
        return tickets

    def take(self) -> Ticket[W] | None:
        """The next unit to hand out; None when the queue is empty."""
        while self._queue:
            ticket = self._queue.popleft()
            if ticket in self._open:
                return ticket
        return None

    def put_back(self, tickets: Sequence[Ticket[W]]) -> None:
        """Units that must go out again through no fault of theirs: to the front, in order."""
        self._queue.extendleft(t for t in reversed(tickets) if t in self._open and t not in self._queue)

    def duplicate(self, tickets: Sequence[Ticket[W]]) -> None:
        """Units that are late, once each to another worker as well: the first result counts."""
        late = [ticket for ticket in tickets if ticket in self._open and not ticket.is_duplicated]
        for ticket in late:
            _log.info("%s is late and goes out a second time", ticket)
            ticket.is_duplicated = True
        self.put_back(late)

    def complete(self, ticket: Ticket[W], trial: TrialBatch) -> bool:
        """Keep the first result of a unit; False (and nothing kept) for a duplicate or an abandoned unit."""
        if ticket not in self._open:
            return False
        assert (trial.unit, trial.weights_version) == (ticket.unit.index, ticket.version)
        self._open.remove(ticket)
        self._finished[ticket] = trial
        return True

    def failed(self, ticket: Ticket[W], cause: str, traceback: str = "") -> None:
        """The environment failed on its own account. EnvironmentFault at the `max_failures`-th time."""
        ticket.failures.append(cause)
        self._again(ticket, cause, len(ticket.failures), self._max_failures, ticket.failures[0], traceback)

    def lost(self, ticket: Ticket[W], cause: str) -> None:
        """The worker ended while it ran the unit. EnvironmentFault at the `max_losses`-th time."""
        ticket.losses.append(cause)
        first = f"its worker process died every time, first with: {ticket.losses[0]}"
        self._again(ticket, cause, len(ticket.losses), self._max_losses, first, "")

    def _again(self, ticket: Ticket[W], cause: str, count: int, limit: int, first: str, traceback: str) -> None:
        if ticket not in self._open:
            return
        if count >= limit:
            self._open.remove(ticket)
            origin = WorkerTracebackError(traceback) if traceback else None
            raise EnvironmentFault(f"{ticket} failed {count} times, given up. First cause: {first}") from origin
        _log.warning("%s goes out again (%d of %d): %s", ticket, count, limit, cause)
        self.put_back([ticket])

    def abandon(self, tickets: Iterable[Ticket[W]]) -> None:
        """Forget these units: what still comes of them is dropped."""
        for ticket in tickets:
            self._open.discard(ticket)
            self._finished.pop(ticket, None)

    def is_finished(self, tickets: Sequence[Ticket[W]]) -> bool:
        return all(ticket in self._finished for ticket in tickets)

    def take_finished(self, tickets: Sequence[Ticket[W]] | None = None) -> list[TrialBatch]:
        """Hand over the trials of these tickets in their order, or (None) all there are."""
        return [self._finished.pop(ticket) for ticket in (list(self._finished) if tickets is None else tickets)]


def describe_tasks(unit: Unit) -> str:
    """The unit's tasks in a line: all of them where they are few."""
    names = [str(task) for task in unit.tasks[:_MAX_NAMED_TASKS]]
    more = len(unit.tasks) - len(names)
    return "; ".join(names) + (f"; and {more} more" if more else "")
