"""An agent acts as rollouts do: every registered algorithm, every preset, some variants, and one of a third party."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metarl.agent.loading import deployment_plan
from metarl.algorithms.base import EvaluationSettings
from metarl.algorithms.registry import build_algorithm
from metarl.rollout.spaces import Spaces
from metarl.rollout.types import TrialPlan
from tests.agent.following import agent_for, assert_same, follow, rollout
from tests.algorithms.test_algorithm_contract import EACH, POINT_GOAL, make
from tests.toy import Point

TASKS = POINT_GOAL.sample("test", 3, 5)


def plan_of(name: str, **settings: Any) -> TrialPlan:
    """Of an evaluation with one episode of support in a round, which one robot can follow exactly."""
    return make(name).evaluation_plan(6, EvaluationSettings(1, 1, **settings))


@pytest.mark.parametrize("deterministic", [True, False], ids=["means", "samples"])
@pytest.mark.parametrize("num_tasks", [1, 3], ids=["one robot", "three robots"])
@pytest.mark.parametrize("name", EACH)
def test_the_agent_acts_records_and_adapts_as_a_rollout_with_the_same_seed(name, num_tasks, deterministic):
    algorithm, plan = make(name), plan_of(name, deterministic=deterministic)
    assert plan.num_streams == 1
    trials = POINT_GOAL, TASKS[:num_tasks], plan, (4, num_tasks)
    expected = rollout(algorithm, *trials)
    assert_same(follow(algorithm, *trials), expected)
    assert_same(follow(algorithm, *trials, tells_next=False), expected)


@pytest.mark.parametrize("name", EACH)
def test_after_a_saved_and_loaded_state_the_actions_are_the_same(name: str, tmp_path: Path) -> None:
    """Before and after an action, in the first and in the second round; into an agent that was on another task."""
    algorithm, plan = make(name), plan_of(name)
    agent, other = (agent_for(algorithm, POINT_GOAL, plan, 2) for _ in range(2))
    other.begin_task(99)
    agent.begin_task(7)
    agent.save_state(tmp_path / "state")
    other.load_state(tmp_path / "state")
    rng = np.random.default_rng(0)
    for _ in range(2):
        obs = rng.standard_normal((2, 2))
        for t in range(6):
            if t == 1:
                agent.save_state(tmp_path / "state")
                other.load_state(tmp_path / "state")
            actions = agent.act(obs)
            np.testing.assert_array_equal(other.act(obs), actions)
            if t == 4:
                agent.save_state(tmp_path / "state")
                other.load_state(tmp_path / "state")
            obs, rewards = rng.standard_normal((2, 2)), rng.standard_normal(2)
            following = obs if t == 5 else None
            for one in (agent, other):
                one.observe(rewards, np.array([False, False]), np.array([False, False]), following)
        agent.end_episode()
        other.end_episode()
        assert str(agent.status) == str(other.status)


@pytest.mark.parametrize("name", EACH)
def test_the_agent_holds_no_optimiser_and_no_tensor_that_asks_for_a_gradient(name: str) -> None:
    algorithm = make(name)
    agent = agent_for(algorithm, POINT_GOAL, plan_of(name), None)
    agent.begin_task()
    agent.act(np.zeros(2))
    for value in reachable(agent):
        assert not isinstance(value, torch.optim.Optimizer | type(algorithm))
        assert not (isinstance(value, torch.Tensor) and value.requires_grad)


def reachable(value: Any, seen: set[int] | None = None) -> list[Any]:
    """Everything that attributes, fields, items and bound methods lead to from `value`."""
    seen = set() if seen is None else seen
    if id(value) in seen or isinstance(value, type | str | int | float | np.ndarray):
        return []
    seen.add(id(value))
    parts: list[Any] = list(vars(value).values()) if hasattr(value, "__dict__") else []
    if is_dataclass(value):
        parts += [getattr(value, f.name) for f in fields(value)]
    if isinstance(value, dict):
        parts += list(value.values())
    elif isinstance(value, list | tuple):
        parts += list(value)
    parts.append(getattr(value, "__self__", None))
    return [value, *(found for part in parts for found in reachable(part, seen))]


@pytest.mark.parametrize("name", [name for name in EACH if name != "toy_algorithm:Toy"])
def test_a_policy_describes_what_it_has_inferred_for_every_robot(name: str) -> None:
    algorithm, plan = make(name), plan_of(name)
    one, three = agent_for(algorithm, POINT_GOAL, plan, None), agent_for(algorithm, POINT_GOAL, plan, 3)
    for agent in (one, three):
        agent.begin_task()
    assert one.belief.keys() == three.belief.keys()
    assert bool(one.belief) == (name != "robust")
    for key, value in one.belief.items():
        assert three.belief[key].shape == (3, *value.shape)


@pytest.mark.parametrize("name", EACH)
def test_more_episodes_than_the_plan_has_are_acted_in_and_never_undo_an_adaptation(name: str) -> None:
    algorithm = make(name)
    plan = deployment_plan(algorithm, 6, EvaluationSettings(1, 1))
    agent = agent_for(algorithm, POINT_GOAL, plan, None)
    agent.begin_task(3)
    adaptations = []
    for _ in range(len(plan.rounds) + 3):
        for _ in range(6):
            agent.act(np.full(2, 0.1))
            agent.observe(1.0, False, False, np.full(2, 0.1))
        agent.end_episode()
        adaptations.append(agent.status.adaptations)
    assert adaptations == sorted(adaptations)
    assert adaptations[-1] >= 1


@pytest.mark.parametrize("name", ["maml", "meta_sgd", "rl2", "rl2 lstm", "toy_algorithm:Toy"])
def test_robots_whose_episodes_end_early_wait_as_streams_do(name: str) -> None:
    """Point's episodes terminate at different steps; actions reach it in its own units."""
    distribution = Point(horizon=30)
    config = make(name).config  # type: ignore[attr-defined]
    algorithm = build_algorithm(config, Spaces(2, 1), torch.device("cpu"), 0)
    plan = algorithm.evaluation_plan(30, EvaluationSettings(1, 1, deterministic=False))
    tasks = distribution.sample("train", 4, 0)
    trials = distribution, tasks, plan, (11,)
    assert_same(follow(algorithm, *trials), rollout(algorithm, *trials))
