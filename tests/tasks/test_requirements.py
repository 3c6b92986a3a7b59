"""Environments that need what the learner has not: said early, never built here."""

from __future__ import annotations

from importlib.metadata import version

import gymnasium
import numpy as np
import pytest

from metarl.algorithms.maml.config import MAMLConfig
from metarl.config import RunConfig
from metarl.errors import ConfigError, TaskError
from metarl.rollout.local import LocalExecutor
from metarl.rollout.spaces import Spaces
from metarl.runs.build import spaces_of
from metarl.tasks import Parameter, RevealedTask, Task, TaskDistribution, Uniform
from metarl.tasks.requirements import unmet
from tests.toy import Point, make_units, point_policy

BOX = gymnasium.spaces.Box


class Elsewhere(TaskDistribution):
    """Built where its package is installed, which is not here."""

    name, horizon = "Elsewhere", 3
    parameters = (Parameter("goal", Uniform(-1.0, 1.0, 2)),)
    requirements = ("metarl-no-such-package==1.0",)

    def make(self, task: Task) -> gymnasium.Env:
        raise AssertionError("not here")


class Stated(Elsewhere):
    spaces = BOX(-np.inf, np.inf, (4,)), BOX(-1, 1, (2,))


def test_a_requirement_is_met_by_what_is_installed_in_its_version() -> None:
    here = version("numpy")
    met = [f"numpy=={here}", "numpy", f"numpy>={here}", "no-such-package; python_version < '3'"]
    lacking = [f"numpy!={here}", "metarl-no-such-package", "numpy @ file:///numpy.whl"]
    assert unmet([*met, *lacking]) == tuple(lacking)
    with pytest.raises(TaskError, match=r"requirement 'a b c': .*allowed: as in 'mujoco==3.3.0'"):
        unmet(["a b c"])


def config() -> RunConfig:
    sections = {"task_distribution": {"name": "Elsewhere"}, "training": {"iterations": 1}}
    return RunConfig.model_validate({**sections, "algorithm": MAMLConfig(name="maml")})


def test_the_learner_takes_stated_spaces_and_builds_nothing() -> None:
    assert spaces_of(Stated(), config()) == Spaces(4, 2)
    revealed = RevealedTask(Stated())
    assert revealed.requirements == Stated.requirements
    assert spaces_of(revealed, config()) == Spaces(4 + 2, 2)


def test_spaces_that_nobody_states_are_asked_for() -> None:
    with pytest.raises(TaskError, match=r"Elsewhere needs metarl-no-such-package==1.0, .* state its `spaces`"):
        spaces_of(Elsewhere(), config())


def test_the_local_executor_refuses_what_it_cannot_install() -> None:
    with pytest.raises(ConfigError, match=r"Elsewhere needs metarl-no-such-package==1.0, .*executor.backend=ray"):
        LocalExecutor(Stated(), point_policy())


class Misstated(Point):
    spaces = BOX(-np.inf, np.inf, (3,)), BOX(-1, 1, (1,))


def test_stated_spaces_that_environments_have_not_are_an_error() -> None:
    executor = LocalExecutor(Misstated(), point_policy())
    with pytest.raises(TaskError, match=r"Point states spaces of .*obs_dim=3.*, but builds .*obs_dim=2"):
        executor.collect(make_units(Misstated(), 1), point_policy().initial_weights(), 0)
