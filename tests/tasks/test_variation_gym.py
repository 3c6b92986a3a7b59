"""Any Gymnasium environment: the ways in which a task gets there, and what becomes of its spaces."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, MultiDiscrete

from metarl.errors import TaskError
from metarl.tasks import EnvBatch
from metarl.tasks.check import check_distribution
from metarl.tasks.check.variation import check_first_actions
from metarl.tasks.variation import GymVariation
from metarl.tasks.variation.gym import OneDiscrete

GOALS = {"prior": {"uniform": [-1.0, 1.0]}}


class Inner:
    gain = 1.0


class Reacher(gymnasium.Env):
    """A point to be moved; every way in is recorded. Observation Dict, reports success."""

    observation_space: gymnasium.Space = Dict({"b": Box(-np.inf, np.inf, (2,)), "a": Box(-np.inf, np.inf, (1,))})
    action_space: gymnasium.Space = Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, goal: float = 0.0, size: int = 1, render_mode: str | None = None):
        self.goal, self.size, self.render_mode = goal, size, render_mode
        self.inner, self.task, self.options = Inner(), {}, {}  # type: ignore[var-annotated]

    def set_task(self, task: dict[str, Any]) -> None:
        self.task = task

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.options = dict(options or {})
        self.x = float(self.np_random.uniform(-0.1, 0.1))
        return self.observe(), {}

    def observe(self) -> dict[str, np.ndarray]:
        return {"b": np.array([self.x, self.inner.gain], np.float32), "a": np.array([self.size], np.float32)}

    def step(self, action: Any) -> Any:
        moved = 0.1 * self.inner.gain * float(np.sum(action))
        self.x += moved
        target = self.goal + self.task.get("shift", 0.0) + self.options.get("offset", 0.0)
        distance = abs(self.x - target)
        return self.observe(), -distance, False, False, {"success": distance < 0.1}


class Switches(Reacher):
    action_space = MultiDiscrete([2, 3])


ENV = f"{__name__}:Reacher"
ALL_WAYS = {
    "goal": {**GOALS, "argument": "goal"},
    "size": {"prior": {"choice": [1, 2]}, "argument": "size"},
    "gain": {"prior": {"uniform": [0.5, 1.5]}, "attribute": "inner.gain"},
    "offset": {**GOALS, "option": "offset"},
    "shift": {**GOALS, "set_task": "shift"},
}


def inner_of(batch: Any) -> Reacher:
    assert isinstance(batch, EnvBatch)
    inner = batch.environments[0].unwrapped
    assert isinstance(inner, Reacher)
    return inner


def test_a_task_gets_in_by_argument_attribute_option_and_set_task() -> None:
    family = GymVariation(ENV, ALL_WAYS, horizon=10)
    task = family.task(goal=0.5, size=2.0, gain=1.5, offset=-0.5, shift=0.25)
    batch = family.make_batch([task])
    batch.reset(seed=0)
    env = inner_of(batch)
    assert (env.goal, env.inner.gain, env.options, env.task) == (0.5, 1.5, {"offset": -0.5}, {"shift": 0.25})
    assert env.size == 2
    assert type(env.size) is int
    batch.reset()
    assert env.options == {"offset": -0.5}


def test_the_variation_passes_all_checks_and_says_in_which_order_a_dict_is_flattened() -> None:
    family = GymVariation(ENV, ALL_WAYS, {"observation_noise": {"prior": {"uniform": [0.1, 0.2]}}}, horizon=10)
    results = check_distribution(family)
    assert [f"{r.name}: {r.message}" for r in results if not r.passed] == []
    remarks = [remark.text for result in results for remark in result.remarks]
    assert "the observation is flattened in this order: a 0, b 1-2" in remarks
    assert any("unvaried" in text for text in remarks)


def test_success_is_kept_behind_effects() -> None:
    family = GymVariation(ENV, {"goal": ALL_WAYS["goal"]}, {"action_delay": {"prior": {"choice": [1]}}}, horizon=10)
    batch = family.make_batch([family.task(goal=0.0, action_delay=1.0), family.task(goal=1.0, action_delay=1.0)])
    batch.reset(seed=0)
    assert batch.step(np.zeros((2, 1), np.float32))[4]["success"].tolist() == [True, False]


def test_an_attribute_that_changes_in_mid_episode_is_put_back_at_the_next() -> None:
    gain = {**ALL_WAYS["gain"], "at_step": 2}
    family = GymVariation(ENV, {"gain": gain}, horizon=10)
    batch = family.make_batch([family.task(gain=1.5, **{"gain.at_step": 2.0})])
    for _ in range(2):
        batch.reset(seed=0)
        gains = [inner_of(batch).inner.gain]
        for _ in range(3):
            batch.step(np.zeros((1, 1), np.float32))
            gains.append(inner_of(batch).inner.gain)
        assert gains == [1.0, 1.0, 1.0, 1.5]


def test_a_multi_discrete_action_is_one_discrete_action_whose_last_part_counts_fastest() -> None:
    family = GymVariation(f"{__name__}:Switches", {"goal": ALL_WAYS["goal"]}, horizon=5)
    env = family.make(family.sample("train", 1, 0)[0])
    assert isinstance(env, OneDiscrete)
    assert env.action_space.n == 6
    assert [env.action(i).tolist() for i in range(6)] == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    assert [f"{r.name}: {r.message}" for r in check_distribution(family) if not r.passed] == []


class Levers(Switches):
    action_space = MultiDiscrete([2, 3], start=[1, -1])


@pytest.mark.parametrize(
    ("env", "delays", "says"),
    [
        ("CartPole-v1", [0, 2], ["effects.action_delay: .* gets the first action of its space, 0: discrete actions"]),
        (f"{__name__}:Levers", [1], [r"effects.action_delay: .* gets the first action of its space, \[1, -1\]: "]),
        ("CartPole-v1", [0], []),
        ("Pendulum-v1", [0, 2], []),
    ],
)
def test_the_check_says_which_discrete_action_comes_before_a_delayed_one(env: str, delays: Any, says: Any) -> None:
    family = GymVariation(env, effects={"action_delay": {"prior": {"choice": delays}}}, horizon=5)
    found = [remark.text for remark in check_first_actions(family)]
    assert [bool(re.match(text, remark)) for text, remark in zip(says, found, strict=True)] == [True] * len(says)


def test_until_a_delayed_discrete_action_arrives_the_first_of_the_space_is_done() -> None:
    family = GymVariation(f"{__name__}:Levers", effects={"action_delay": {"prior": {"choice": [2]}}}, horizon=5)
    env = family.make(family.sample("train", 1, 0)[0])
    robot: Any = env.unwrapped
    done: list[list[int]] = []

    def step(action: np.ndarray) -> Any:
        done.append(action.tolist())
        return Levers.step(robot, action)

    robot.step = step
    env.reset(seed=0)
    for action in ([2, 1], [2, 0], [2, 1], [2, 1]):
        env.step(np.array(action))
    assert done == [[1, -1], [1, -1], [2, 1], [2, 0]]


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1", "MountainCarContinuous-v0", "Acrobot-v1"])
def test_registered_environments_are_varied_by_their_effects_alone(env: str) -> None:
    family = GymVariation(env, effects={"observation_noise": {"prior": {"uniform": [0.1, 0.2]}}}, horizon=20)
    tasks = family.sample("train", 2, 0)
    one, other = family.make_batch(tasks), family.make_batch(tasks)
    for batch in (one, other):
        for space in batch.action_spaces:
            space.seed(0)
    first, second = one.reset(seed=3)[0], other.reset(seed=3)[0]
    np.testing.assert_array_equal(first, second)
    actions = [np.stack([space.sample() for space in one.action_spaces]) for _ in range(5)]
    for action in actions:
        np.testing.assert_array_equal(one.step(action)[0], other.step(action)[0])


def test_parameters_and_effects_must_have_different_names() -> None:
    effects = {"goal": {"effect": "action_delay", "prior": {"choice": [0, 1]}}}
    with pytest.raises(TaskError, match="names must differ"):
        GymVariation(ENV, {"goal": ALL_WAYS["goal"]}, effects)


def test_a_distribution_crosses_processes(tmp_path: Path) -> None:
    import pickle

    family = GymVariation(ENV, ALL_WAYS, horizon=10)
    copy = pickle.loads(pickle.dumps(family))
    assert copy.sample("train", 3, 0) == family.sample("train", 3, 0)


class Windy(Reacher):
    """Its observation shows an attribute of two numbers."""

    wind = np.zeros(2)

    def observe(self) -> dict[str, np.ndarray]:
        return {"b": np.array(self.wind, np.float32), "a": np.zeros(1, np.float32)}


@pytest.mark.parametrize("entry", [{"prior": {"disc": 1.0}}, {"prior": {"choice": [[0.0, 1.0], [1.0, 0.0]]}}])
def test_an_attribute_of_several_numbers_can_change_in_mid_episode(entry: dict[str, Any]) -> None:
    family = GymVariation(f"{__name__}:Windy", {"wind": {**entry, "attribute": "wind", "at_step": 2}}, horizon=4)
    (task,) = family.sample("train", 1, 0)
    env = family.make(task)
    env.reset(seed=0)
    winds = [env.step(np.zeros(1, np.float32))[0][1:] for _ in range(4)]
    np.testing.assert_allclose(winds, [[0, 0], [0, 0], task["wind"], task["wind"]], rtol=1e-6)
