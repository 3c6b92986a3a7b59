"""The bookkeeping of units, without processes."""

from __future__ import annotations

import logging

import pytest

from metarl.distributed.ledger import Ledger
from metarl.errors import EnvironmentFault
from metarl.rollout.types import TrialBatch, Unit
from tests.toy import Point, make_units


def trial_of(unit: Unit, version: int = 0) -> TrialBatch:
    return TrialBatch(unit.index, unit.tasks, (), version)


def test_units_come_out_in_order_and_their_trials_in_the_order_of_the_units() -> None:
    ledger: Ledger[str] = Ledger(max_failures=3, max_losses=3)
    units = make_units(Point(), 3)
    tickets = ledger.submit(units, "weights", 0)
    assert [ledger.take() for _ in range(4)] == [*tickets, None]
    for i in (2, 0, 1):
        assert ledger.complete(tickets[i], trial_of(units[i]))
    assert ledger.is_finished(tickets)
    assert [t.unit for t in ledger.take_finished(tickets)] == [0, 1, 2]
    assert ledger.num_open == ledger.num_finished == 0


def test_a_second_result_of_a_unit_is_dropped() -> None:
    ledger: Ledger[str] = Ledger(3, 3)
    unit = make_units(Point(), 1)[0]
    (ticket,) = ledger.submit([unit], "weights", 0)
    ledger.take()
    ledger.lost(ticket, "a node went away")
    assert ledger.take() is ticket
    assert ledger.complete(ticket, trial_of(unit))
    assert not ledger.complete(ticket, trial_of(unit))
    assert len(ledger.take_finished()) == 1
    assert not ledger.complete(ticket, trial_of(unit))
    assert ledger.take_finished() == []


def test_a_reissued_unit_that_finished_meanwhile_does_not_go_out_again() -> None:
    ledger: Ledger[str] = Ledger(3, 3)
    unit = make_units(Point(), 1)[0]
    (ticket,) = ledger.submit([unit], "weights", 0)
    ledger.take()
    ledger.put_back([ticket])
    ledger.complete(ticket, trial_of(unit))
    assert ledger.take() is None


def test_units_put_back_go_first_in_their_order_and_once() -> None:
    ledger: Ledger[str] = Ledger(3, 3)
    tickets = ledger.submit(make_units(Point(), 4), "weights", 0)
    taken = [ledger.take() for _ in range(2)]
    ledger.put_back(tickets[:2])
    ledger.put_back(tickets[:2])
    assert taken == tickets[:2]
    assert [ledger.take() for _ in range(5)] == [*tickets, None]


def test_the_last_permitted_failure_stops_with_the_first_cause_and_the_tasks(caplog: pytest.LogCaptureFixture) -> None:
    ledger: Ledger[str] = Ledger(max_failures=3, max_losses=5)
    unit = make_units(Point(), 1)[0]
    (ticket,) = ledger.submit([unit], "weights", 0)
    with caplog.at_level(logging.WARNING):
        ledger.failed(ticket, "the first cause", "Traceback: deep inside")
        ledger.failed(ticket, "another cause")
    assert "unit 0" in caplog.text
    assert str(unit.tasks[0]) in caplog.text
    assert "the first cause" in caplog.text
    with pytest.raises(EnvironmentFault, match=r"unit 0 .*Point\(goal=.*3 times.*the first cause"):
        ledger.failed(ticket, "a third cause")
    assert ledger.num_open == 0
    assert ledger.take() is None


def test_deaths_of_workers_have_a_bound_of_their_own() -> None:
    ledger: Ledger[str] = Ledger(max_failures=1, max_losses=3)
    (ticket,) = ledger.submit(make_units(Point(), 1), "weights", 0)
    ledger.lost(ticket, "signal 9")
    ledger.lost(ticket, "signal 9")
    with pytest.raises(EnvironmentFault, match="worker process died every time, first with: signal 9"):
        ledger.lost(ticket, "signal 11")


def test_abandoned_units_neither_go_out_nor_come_back() -> None:
    ledger: Ledger[str] = Ledger(3, 3)
    units = make_units(Point(), 3)
    tickets = ledger.submit(units, "weights", 0)
    ledger.complete(tickets[0], trial_of(units[0]))
    ledger.abandon(tickets[:2])
    assert ledger.take() is tickets[2]
    assert ledger.take() is None
    assert not ledger.complete(tickets[1], trial_of(units[1]))
    ledger.failed(tickets[1], "no longer of interest")
    assert ledger.take_finished() == []
