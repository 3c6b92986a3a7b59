"""Robots with MultiDiscrete actions: policies choose an index, and agents and exports give the robot its own action."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from gymnasium.wrappers import TimeLimit, TransformAction

import metarl
from metarl.agent.interface import Interface
from metarl.errors import EnvironmentFault, ExportError, TaskError
from metarl.export import export_run, load_runner, units
from metarl.runs.build import load_run
from metarl.tasks.indexed_actions import IndexedActions, own_action_space
from metarl.tasks.variation import GymVariation
from metarl.tasks.variation.gym import OneDiscrete

SWITCHES = MultiDiscrete([2, 3], dtype=np.int32, start=[1, -1])
ACTIONS = [[1, -1], [1, 0], [1, 1], [2, -1], [2, 0], [2, 1]]  # by their index
GOAL = {"goal": {"prior": {"uniform": [-1.0, 1.0]}, "argument": "goal"}}
DELAY = {"action_delay": {"prior": {"choice": [0, 1]}}}


class Crane(gymnasium.Env):
    """Refuses what is not in its own action space, and observes the last action."""

    observation_space = Box(-np.inf, np.inf, (3,), np.float64)
    action_space = SWITCHES

    def __init__(self, goal: float = 0.0):
        self.goal = goal

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.x = float(self.np_random.uniform(-1, 1))
        return np.array([self.x, 0.0, 0.0]), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action), action
        self.x += 0.1 * float(action[1])
        return np.array([self.x, *action]), -abs(self.x - self.goal), False, False, {}


@pytest.fixture(scope="module", params=["plain", "effects"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one iteration."""
    folder = tmp_path_factory.mktemp("crane")
    effects = DELAY if request.param == "effects" else {}
    options = {"env": f"{__name__}:Crane", "parameters": GOAL, "horizon": 4, "effects": effects}
    content = {
        "task_distribution": {"name": "GymVariation", "options": options},
        "algorithm": {"name": "rl2", "tasks_per_iteration": 4, "encoded_obs_dim": 4, "head_dim": 4},
        "training": {"iterations": 1, "tasks_per_unit": 2},
        "evaluation": {"num_tasks": 2},
        "executor": {"backend": "local"},
        "device": "cpu",
    }
    (folder / "crane.yaml").write_text(json.dumps(content))
    metarl.train(metarl.load_config(str(folder / "crane.yaml")), run_dir=str(folder / "run"))
    return folder / "run"


def test_an_agent_acts_on_the_robot_itself_and_on_its_runs_environments(trained: Path) -> None:
    made: Any = metarl.make_env(trained)
    agent = metarl.load_agent(trained)
    agent.begin_task(0)
    for env in (Crane(), made):
        observation, _ = env.reset(seed=0)
        while not agent.episode_over:
            action = agent.act(observation)
            assert (action.dtype, action.shape) == (np.int32, (2,))
            np.testing.assert_array_equal(agent.awaited_action, action)
            observation, reward, *_ = env.step(action)
            agent.observe(reward, next_observation=observation)
        agent.end_episode()


def test_a_vector_of_agents_acts_on_a_vector_of_environments(trained: Path) -> None:
    batch: Any = metarl.make_env(trained, num_envs=2)
    agent = metarl.load_agent(trained, robots=2)
    agent.begin_task(0)
    action = agent.act(batch.reset(seed=0)[0])
    assert action.shape == (2, 2)
    assert all(SWITCHES.contains(row) for row in action)
    batch.step(action)


@pytest.mark.parametrize("form", ["torch", "onnx"])
def test_an_export_gives_the_robots_own_action_and_tells_its_space(trained: Path, tmp_path: Path, form: Any) -> None:
    if form == "onnx":
        pytest.importorskip("onnxruntime")
    export_run(load_run(trained), tmp_path, form, steps=8)
    told = json.loads((tmp_path / "policy.json").read_text())
    assert told["action"] == {
        "space": "MultiDiscrete",
        "shape": [2],
        "dtype": "int32",
        "nvec": [2, 3],
        "start": [1, -1],
        "index": "policy_action is the index of the action, from 0; the last part counts fastest",
    }
    assert told["graphs"]["policy"]["outputs"][0]["shape"] == [1, 2]
    runner = load_runner(tmp_path)
    for seed in range(5):
        runner.begin_task(seed)
        action = runner.act(np.zeros(3), {"noise.action": np.random.default_rng(seed).gumbel(size=(1, 6))})
        assert action.tolist() == ACTIONS[int(runner.policy_action)]
        assert SWITCHES.contains(action)


def test_an_export_that_gives_other_parts_than_the_agent_is_refused(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Reversed(IndexedActions):
        def action(self, index: Any) -> np.ndarray:
            return super().action(self.count - 1 - index)

    monkeypatch.setattr(units, "IndexedActions", Reversed)
    with pytest.raises(ExportError, match="does not act as the agent does"):
        export_run(load_run(trained), tmp_path, "torch", steps=8)


@pytest.mark.parametrize("effects", [None, {"action_delay": {"prior": {"choice": [0]}}}])
def test_an_environment_takes_the_robots_own_action_and_its_index_alike(effects: Any) -> None:
    family = GymVariation(f"{__name__}:Crane", GOAL, effects, horizon=9)
    env = family.make(family.sample("train", 1, 0)[0])
    env.reset(seed=0)
    assert [env.step(i)[0][1:].tolist() for i in range(6)] == ACTIONS
    assert [env.step(np.array(action))[0][1:].tolist() for action in ACTIONS] == ACTIONS
    for wrong in (6, -1, [0, 0], [1.0, 0.0], [1, 0, 1]):
        with pytest.raises(TaskError, match=r"allowed are one of MultiDiscrete.* and its index, 0 to 5"):
            env.step(wrong)
    batch = family.make_batch(family.sample("train", 1, 0))
    batch.reset(seed=0)
    with pytest.raises(EnvironmentFault, match=r"the action .*6.*: allowed are one of"):
        batch.step(np.array([6]))


def test_an_action_space_of_two_axes_keeps_its_shape() -> None:
    indexed = IndexedActions(MultiDiscrete(np.array([[2, 3], [1, 2]])), "the robot")
    assert [indexed.index(indexed.action(i)) for i in range(indexed.count)] == list(range(12))
    assert indexed.action(11).tolist() == [[1, 2], [0, 1]]


def test_the_robots_own_space_is_not_looked_for_behind_a_wrapper_that_changes_actions() -> None:
    assert own_action_space(TimeLimit(OneDiscrete(Crane()), 5)) == SWITCHES
    swapped = TransformAction(OneDiscrete(Crane()), lambda action: 5 - action, Discrete(6))
    assert own_action_space(swapped) == Discrete(6)


def test_every_robot_may_have_starts_of_its_own_but_no_other_number_of_values() -> None:
    seen = Box(-1, 1, (1,))
    both = Interface(seen, [SWITCHES, MultiDiscrete([2, 3], dtype=np.int32)], 2)
    assert (both.spaces.discrete, both.spaces.action_dim) == (True, 6)
    assert both.action(np.array([[5], [5]])).tolist() == [[2, 1], [1, 2]]
    for other in (MultiDiscrete([3, 2], dtype=np.int32), Discrete(6)):
        with pytest.raises(TaskError, match="robot 0 and robot 1 have different action spaces"):
            Interface(seen, [SWITCHES, other], 2)
