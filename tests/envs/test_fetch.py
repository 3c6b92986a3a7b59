"""Gymnasium-Robotics' Fetch: the goal is the task, it is not observed, and the learner needs no package for it."""

from __future__ import annotations

import sys
from typing import Any

import gymnasium
import numpy as np
import pytest
from metarl_envs.fetch import ENVIRONMENTS, Fetch

from metarl.config import load_config
from metarl.errors import TaskError
from metarl.rollout.policy import Spaces
from metarl.runs.build import spaces_of
from metarl.tasks.check import check_distribution
from tests.run_contents import EXPERIMENTS


def test_the_learner_does_not_import_it() -> None:
    config = load_config(EXPERIMENTS / "fetch_reach_rl2.yaml")
    known = "gymnasium_robotics" in sys.modules
    found = [spaces_of(Fetch(env), config) for env in ENVIRONMENTS]
    assert found == [Spaces(10, 3), Spaces(25, 3), Spaces(25, 3), Spaces(25, 4)]
    assert ("gymnasium_robotics" in sys.modules) == known


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"env": "grasp"}, "env = 'grasp'; allowed: reach, push, slide, pick_and_place"),
        ({"reward": "shaped"}, "reward = 'shaped'; allowed: dense, sparse"),
        ({"horizon": 0}, "horizon must be a whole number from 1 on, got 0"),
    ],
)
def test_wrong_options_name_what_is_allowed(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        Fetch(**options)


# --- with the package ----------------------------------------------------------------------------------


@pytest.fixture
def _installed() -> None:
    """Its release and MuJoCo's are those that go together."""
    from metarl.tasks.requirements import unmet

    if missing := unmet(Fetch.requirements):
        pytest.skip(f"needs {', '.join(missing)}")


@pytest.mark.usefixtures("_installed")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_it_keeps_the_contract(env: str) -> None:
    assert {r.name: r.message for r in check_distribution(Fetch(env)) if not r.passed} == {}


@pytest.mark.usefixtures("_installed")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_it_is_the_bare_environment_with_the_tasks_goal(env: str) -> None:
    family = Fetch(env)
    tasks = family.sample("train", 2, 0)
    bare = gymnasium.make(ENVIRONMENTS[env], reward_type="dense", disable_env_checker=True)
    for task in tasks:  # the second one in the environment of the first
        made = family.make(task)
        inner: Any = bare.unwrapped
        obs, _ = made.reset(seed=4)
        plain, _ = bare.reset(seed=4)
        inner.goal = made.unwrapped.goal  # type: ignore[attr-defined]
        for action in np.random.default_rng(1).uniform(-1, 1, (20, 4)).astype(np.float32):
            np.testing.assert_array_equal(obs, plain["observation"])
            action[3] *= env == "pick_and_place"
            obs, reward, *_, info = made.step(action[: made.action_space.shape[0]])  # type: ignore[index]
            plain, expected, *_ = bare.step(action)
            assert reward == expected == -np.linalg.norm(plain["achieved_goal"] - inner.goal)
            assert info["success"] == (float(reward) > -0.05)
        goal = made.unwrapped.goal.copy()  # type: ignore[attr-defined]
        made.reset(seed=5)
        np.testing.assert_array_equal(made.unwrapped.goal, goal)  # type: ignore[attr-defined]
        made.close()
