"""Dict and Tuple observations: the agent takes them behind effects as without, and everyone tells the same order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, Tuple
from gymnasium.spaces.utils import flatten
from gymnasium.wrappers import FlattenObservation, NormalizeObservation, TimeLimit

import metarl
from metarl.errors import AgentError
from metarl.export import export_run, load_runner
from metarl.runs.build import load_run
from metarl.tasks.check import check_distribution
from metarl.tasks.nested import nested_space, parts_of
from metarl.tasks.variation import GymVariation

ARM = Dict(
    {"pose": Tuple((Box(-9, 9, (2,)), Discrete(3))), "arm": Dict({"tip": Box(-9, 9, (2, 2)), "grip": Box(0, 1)})}
)
SEEN = {
    "pose": (np.ones(2, np.float32), 2),
    "arm": {"tip": np.zeros((2, 2), np.float32), "grip": np.ones(1, np.float32)},
}
ORDER = "arm/grip 0, arm/tip 1-4, pose/0 5-6, pose/1 7-9"
GOAL = {"goal": {"prior": {"uniform": [-1.0, 1.0]}, "argument": "goal"}}
EFFECTS = {"encoder_bias": {"prior": {"uniform": [-0.1, 0.1]}, "dimensions": [1]}}


class Arm(gymnasium.Env):
    """Its tip is to reach the goal."""

    observation_space: gymnasium.Space = ARM
    action_space: gymnasium.Space = Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, goal: float = 0.0):
        self.goal = goal

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.x = np.float32(self.np_random.uniform(-1, 1))
        return self.observe(), {}

    def observe(self) -> dict[str, Any]:
        tip, pose = np.full((2, 2), self.x, np.float32), np.full(2, self.goal, np.float32)
        return {"pose": (pose, int(self.x > 0)), "arm": {"tip": tip, "grip": np.ones(1, np.float32)}}

    def step(self, action: Any) -> Any:
        self.x = np.clip(self.x + np.float32(0.1) * action[0], -2, 2, dtype=np.float32)
        return self.observe(), -abs(float(self.x) - self.goal), False, False, {}


def flat_arm(goal: float = 0.0) -> gymnasium.Env:
    return FlattenObservation(Arm(goal))


@pytest.fixture(params=["plain", "effects", "flattened with effects"])
def trained(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A run of one iteration."""
    env = "flat_arm" if "flattened" in request.param else "Arm"
    options = {"env": f"{__name__}:{env}", "parameters": GOAL, "horizon": 4}
    if "effects" in request.param:
        options["effects"] = EFFECTS
    file = tmp_path / "arm.yaml"
    content = {
        "task_distribution": {"name": "GymVariation", "options": options},
        "algorithm": {"name": "promp", "tasks_per_iteration": 2, "num_streams": 2, "hidden": [4]},
        "training": {"iterations": 1, "tasks_per_unit": 2},
        "evaluation": {"num_tasks": 2},
        "executor": {"backend": "local"},
        "device": "cpu",
    }
    file.write_text(json.dumps(content))
    metarl.train(metarl.load_config(str(file)), run_dir=str(tmp_path / "run"))
    return tmp_path / "run"


def test_agent_and_export_know_the_parts_of_observations_behind_effects_too(trained: Path, tmp_path: Path) -> None:
    agent, other = metarl.load_agent(str(trained)), metarl.load_agent(str(trained))
    agent.begin_task(0)
    other.begin_task(0)
    np.testing.assert_array_equal(agent.act(SEEN), other.act(np.asarray(flatten(ARM, SEEN))))
    other.begin_task(0)
    with pytest.raises(AgentError, match=r"must be in Dict\('arm'.*, or be flat already, an array \[10\]"):
        other.act({"pose": SEEN["pose"]})
    export_run(load_run(trained), tmp_path / "exported", "torch", steps=4)
    told = json.loads((tmp_path / "exported" / "policy.json").read_text())["observation"]
    assert [(part["path"], part["first"], part["last"]) for part in told["order"]] == [
        ("arm/grip", 0, 0),
        ("arm/tip", 1, 4),
        ("pose/0", 5, 6),
        ("pose/1", 7, 9),
    ]
    assert told["flat_size"] == 10
    assert (told["order"][1]["shape"], told["order"][3]["space"], told["order"][3]["n"]) == ([2, 2], "Discrete", 3)
    assert load_runner(tmp_path / "exported").act(np.asarray(flatten(ARM, SEEN))).shape == (1,)


@pytest.mark.parametrize("env", ["Arm", "flat_arm"])
@pytest.mark.parametrize("effects", [None, EFFECTS])
def test_the_check_prints_the_order_of_nested_parts_with_effects_too(env: str, effects: Any) -> None:
    results = check_distribution(GymVariation(f"{__name__}:{env}", GOAL, effects, horizon=5))
    assert [f"{r.name}: {r.message}" for r in results if not r.passed] == []
    remarks = [remark.text for result in results for remark in result.remarks]
    assert f"the observation is flattened in this order: {ORDER}" in remarks


def test_the_parts_lie_where_gymnasium_flattens_them() -> None:
    for part, value in zip(parts_of(ARM), (1, 0, 1, (0, 0, 1)), strict=True):
        np.testing.assert_array_equal(np.asarray(flatten(ARM, SEEN))[part.first : part.last + 1], value)
    assert parts_of(Box(-1, 1, (3,))) == ()
    (part,) = parts_of(Dict({"none": Box(-1, 1, (0,)), "x": Box(-1, 1, (1,))}))
    assert (str(part), part.last) == ("x 0", 0)


def test_a_wrapper_that_changes_observations_is_not_seen_through() -> None:
    assert nested_space(TimeLimit(FlattenObservation(Arm()), 5)) == ARM
    normalised = NormalizeObservation(FlattenObservation(Arm()))
    assert nested_space(normalised) == normalised.observation_space
