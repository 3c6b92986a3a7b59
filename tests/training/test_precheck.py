"""What is looked at before a run's first iteration."""

from __future__ import annotations

import logging
import time

import gymnasium
import pytest

from metarl.errors import EnvironmentFault, TaskError
from metarl.training.precheck import precheck
from tests.field.robots import Cart, Carts
from tests.toy import number


def test_a_sound_family_is_told_in_one_line(caplog) -> None:
    with caplog.at_level(logging.INFO, "metarl"):
        precheck(Carts(), 60)
    assert [record.getMessage() for record in caplog.records] == [
        "Carts: quick check passed (all checks: metarl tasks check)"
    ]


def test_what_may_be_a_mistake_is_a_warning(caplog) -> None:
    precheck(Carts(lambda task: gymnasium.wrappers.TimeLimit(Cart(number(task["goal"])), 3)), 60)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "a TimeLimit ends episodes after 3 steps" in record.getMessage()


def test_what_cannot_be_trained_on_is_refused_before_anything_else() -> None:
    one = Cart(0.0)
    with pytest.raises(TaskError, match="one and the same environment"):
        precheck(Carts(lambda task: one), 60)


def test_an_environment_that_never_answers_is_a_fault() -> None:
    class Hangs(Cart):
        def step(self, action):
            time.sleep(3600)

    with pytest.raises(EnvironmentFault, match=r"checking a few environments did not end within 0\.5 s"):
        precheck(Carts(lambda task: Hangs(number(task["goal"]))), 0.5)


def test_a_family_whose_requirements_are_not_installed_here_is_left_to_the_workers() -> None:
    family = Carts(lambda task: None)
    family.requirements = ("no-such-package==1.0",)
    precheck(family, 60)
    assert family.made == []
