"""The contract that every registered task distribution keeps. Registering a family enrols it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from metarl.tasks import TaskDistribution, available_distributions, load_distribution
from metarl.tasks.check import CHECKS
from tests.registered import load


@pytest.mark.parametrize("name", available_distributions())
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_every_registered_distribution_keeps_the_contract(name: str, check: Callable[[TaskDistribution], None]) -> None:
    check(load(name))


@pytest.mark.parametrize("name", ["HalfCheetahVel", "AntGoal"])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_interpolation_protocols_keep_the_contract(name: str, check: Callable[[TaskDistribution], None]) -> None:
    check(load_distribution(name, protocol="interpolation"))


@pytest.mark.parametrize("name", available_distributions())
def test_a_registered_name_is_the_name_of_its_tasks(name: str) -> None:
    distribution = load(name)
    assert distribution.name == name
    assert distribution.sample("train", 1, seed=0)[0].distribution == name
