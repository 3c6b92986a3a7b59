"""Goals of Gymnasium-Robotics as tasks: without it the learner knows all it must; with it the goal stays hidden."""

from __future__ import annotations

import re
import sys
from collections import defaultdict, deque
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from metarl_envs import gymnasium_robotics as adapter
from metarl_envs import reuse
from metarl_envs.gymnasium_robotics import GoalTasks
from metarl_envs.gymnasium_robotics_goals import goal_of
from metarl_envs.gymnasium_robotics_names import ENVIRONMENTS, MAZES, goal_cells

import metarl
from metarl.config import load_config
from metarl.errors import TaskError
from metarl.rollout.spaces import Spaces
from metarl.runs.build import spaces_of
from metarl.tasks import RevealedTask
from metarl.tasks.check import check_distribution
from tests.run_contents import EXPERIMENTS

pytestmark = pytest.mark.filterwarnings("ignore:.*Adroit", "ignore:.*X11", "ignore:.*render")
ONE_OF_EACH = (
    "FetchReach-v4",
    "FetchPush-v4",
    "FetchSlide-v4",
    "FetchPickAndPlace-v4",
    "HandReach-v3",
    "HandManipulateBlockRotateParallel-v1",
    "HandManipulatePen_BooleanTouchSensors-v1",
    "PointMaze_UMaze-v3",
    "AntMaze_UMaze-v5",
)
ONE_ITERATION = ["training.iterations=1", "algorithm.tasks_per_iteration=4", "training.tasks_per_unit=4"]


def installed() -> Any:
    """The package, with its environments registered; skips where it is absent."""
    package = pytest.importorskip("gymnasium_robotics", reason="Gymnasium-Robotics is not installed")
    adapter._register()
    return package


# --- without the package -------------------------------------------------------------------------------


def test_the_learner_builds_nothing() -> None:
    config = load_config(EXPERIMENTS / "fetch_reach_rl2.yaml")
    assert spaces_of(GoalTasks(), config) == Spaces(13, 3)
    assert spaces_of(RevealedTask(GoalTasks()), config) == Spaces(16, 3)
    assert spaces_of(GoalTasks("FetchPickAndPlace-v4"), config) == Spaces(28, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"env": "FetchReech-v4"}, "did you mean 'FetchReach-v4' or 'FetchPush-v4'"),
        ({"env": "FetchReachDense-v4"}, "write env: FetchReach-v4 and reward: dense"),
        ({"env": "FrankaKitchen-v1"}, "has no goal that a task could set: its goals are lists of chores"),
        ({"env": "AdroitHandDoor-v1"}, "has no goal that a task could set"),
        ({"env": 3}, "env = 3 is no goal-conditioned environment"),
        ({"reward": "shaped"}, "reward must be dense or sparse, got 'shaped'"),
    ],
)
def test_what_it_cannot_set_a_goal_of_is_refused_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskError, match=re.escape(message)):
        GoalTasks(**options)


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_goals_of_every_environment_are_held_out(env: str) -> None:
    family = GoalTasks(env)
    train, test = (set(family.sample(split, 50, 0)) for split in ("train", "test"))
    assert len(train) == len(test) == 50
    assert not train & test


@pytest.mark.parametrize(
    ("env", "names"),
    [
        ("FetchReach-v4", ["x", "y", "z"]),
        ("FetchSlide-v4", ["x", "y"]),
        ("HandReach-v3", ["finger", "x", "y", "z"]),
        ("HandManipulateBlockRotateZ-v1", ["angle"]),
        ("HandManipulateBlockRotateParallel-v1", ["angle", "face"]),
        ("HandManipulateEggRotate-v1", ["angle", "axis"]),
        ("HandManipulateEggFull-v1", ["angle", "axis", "x", "y", "z"]),
        ("AntMaze_Large-v5", ["cell", "offset"]),
    ],
)
def test_a_goal_is_named_numbers(env: str, names: list[str]) -> None:
    assert [parameter.name for parameter in GoalTasks(env).parameters] == names


def test_goals_lie_in_marked_cells_and_where_none_is_marked_in_all_free_ones() -> None:
    assert goal_cells("UMaze") == [(1, 1), (1, 2), (1, 3), (2, 3), (3, 1), (3, 2), (3, 3)]
    assert goal_cells("Medium_Diverse_G") == [(2, 6), (5, 1), (6, 5)]
    assert goal_cells("Medium_Diverse_GR") == [(1, 1), (2, 6), (5, 1), (6, 5)]


def test_a_missing_package_is_named_with_pips_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gymnasium_robotics", None)
    monkeypatch.setattr(reuse, "_free", defaultdict(deque))
    adapter._register.cache_clear()
    family = GoalTasks()
    with pytest.raises(TaskError, match=re.escape("pip install 'gymnasium-robotics>=1.4,<1.5'")):
        family.make(family.task(x=0.0, y=0.0, z=0.0))


# --- with it -------------------------------------------------------------------------------------------


def test_names_horizons_and_mazes_are_those_of_the_package() -> None:
    installed()
    for name, kind in ENVIRONMENTS.items():
        for reward in ("dense", "sparse"):
            spec = gymnasium.registry[GoalTasks(name, reward).registered_id]
            assert spec.max_episode_steps == kind.horizon
            assert spec.kwargs["reward_type"] == reward
        if kind.family == "maze":
            assert ["".join(map(str, row)) for row in spec.kwargs["maze_map"]] == list(MAZES[kind.maze])
        if "Rotate" in name or "Full" in name:
            turns = {"RotateZ": "z", "RotateParallel": "parallel"}
            turn = next((turn for part, turn in turns.items() if part in name), "xyz")
            place = "ignore" if "Rotate" in name else "random"
            assert (spec.kwargs["target_position"], spec.kwargs["target_rotation"]) == (place, turn)


@pytest.mark.parametrize("reward", ["dense", "sparse"])
@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_every_step_is_the_bare_environments(name: str, reward: str) -> None:
    installed()
    family = GoalTasks(name, reward)
    task = family.sample("train", 1, 5)[0]
    env, bare = family.make(task), gymnasium.make(family.registered_id, disable_env_checker=True)
    assert family.spaces == (env.observation_space, env.action_space)
    inner: Any = bare.unwrapped
    if family.kind.family == "hand_manipulate":
        adapter._forget(inner)
    expected = bare.reset(seed=3)[0]
    goal = inner.goal = goal_of(task, inner, family.kind)
    seen, _ = env.reset(seed=3)
    assert goal.shape == expected["desired_goal"].shape
    unused = np.zeros(inner.action_space.shape[0] - family.kind.action, np.float32)
    for action in np.random.default_rng(0).uniform(-1, 1, (10, family.kind.action)).astype(np.float32):
        np.testing.assert_array_equal(seen, np.concatenate([expected["observation"], expected["achieved_goal"]]))
        seen, gained, terminated, truncated, info = env.step(action)
        expected, bare_gained, *ended, bare_info = bare.step(np.concatenate([action, unused]))
        np.testing.assert_array_equal(expected["desired_goal"], goal)
        assert (gained, terminated, truncated) == (bare_gained, *ended)
        assert info["success"] == bool(bare_info.get("is_success", bare_info.get("success")))
        assert reward == "dense" or gained in (-1.0, 0.0, 1.0)
    env.close()
    bare.close()


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_observations_do_not_tell_the_goal_and_resets_keep_it(name: str) -> None:
    installed()
    family = GoalTasks(name)
    first, second = (family.make(task) for task in family.sample("train", 2, 0))
    inner: Any = first.unwrapped
    goals: list[np.ndarray] = []
    rewards = []
    for seed in (1, 2):
        seen, other = first.reset(seed=seed)[0], second.reset(seed=seed)[0]
        goals.append(inner.goal.copy())
        for action in np.random.default_rng(seed).uniform(-1, 1, (5, family.kind.action)).astype(np.float32):
            np.testing.assert_array_equal(seen, other)
            (seen, gained, *_), (other, other_gained, *_) = first.step(action), second.step(action)
            rewards.append(gained != other_gained)
        goals.append(inner.goal.copy())
    assert any(rewards)
    for goal in goals[1:]:
        np.testing.assert_array_equal(goal, goals[0])


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_an_environment_that_was_used_before_does_what_a_new_one_does(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed()
    family = GoalTasks(name)
    tasks = family.sample("train", 2, 0)

    def episode(task: Any) -> tuple[Any, np.ndarray]:
        env = family.make(task)
        rows = [np.append(env.reset(seed=7)[0], 0.0)]
        for action in np.random.default_rng(7).uniform(-1, 1, (8, family.kind.action)).astype(np.float32):
            seen, gained, *_ = env.step(action)
            rows.append(np.append(seen, float(gained)))
        env.close()
        return env.unwrapped, np.array(rows)

    monkeypatch.setattr(reuse, "_free", defaultdict(deque))
    new, rows = episode(tasks[0])
    used, _ = episode(tasks[1])
    again, others = episode(tasks[0])
    assert new is used is again
    np.testing.assert_array_equal(rows, others)


def test_goals_are_where_gymnasium_robotics_draws_them() -> None:
    installed()
    for name in ("FetchReach-v4", "FetchPush-v4", "FetchSlide-v4", "FetchPickAndPlace-v4"):
        family, bare = GoalTasks(name), gymnasium.make(GoalTasks(name).registered_id, disable_env_checker=True)
        theirs = np.array([bare.reset(seed=seed)[0]["desired_goal"] for seed in range(300)])
        ours = np.array([goal_of(task, bare.unwrapped, family.kind) for task in family.sample("train", 300, 0)])
        np.testing.assert_allclose(ours.min(axis=0), theirs.min(axis=0), atol=0.02)
        np.testing.assert_allclose(ours.max(axis=0), theirs.max(axis=0), atol=0.02)
        on_table = np.isclose(ours[:, 2], ours[:, 2].min()).mean()
        assert abs(on_table - np.isclose(theirs[:, 2], theirs[:, 2].min()).mean()) < 0.15
    maze, bare = GoalTasks("AntMaze_UMaze-v5"), gymnasium.make("AntMaze_UMaze-v5", disable_env_checker=True)
    for task in maze.sample("train", 5, 0):
        cell = np.array(task["cell"]).astype(int)
        theirs = bare.reset(seed=0, options={"goal_cell": cell})[0]["desired_goal"]
        assert np.abs(goal_of(task, bare.unwrapped, maze.kind) - theirs).max() <= 2 * 0.25 * 4


def test_thumb_and_finger_of_a_hand_are_to_meet() -> None:
    installed()
    family = GoalTasks("HandReach-v3")
    env = family.make(family.task(finger=2, x=0.0, y=0.0, z=0.0))
    inner: Any = env.unwrapped
    env.reset(seed=0)
    goal, start = inner.goal.reshape(5, 3), inner.initial_goal.reshape(5, 3)
    np.testing.assert_array_equal(goal[[0, 1, 3]], start[[0, 1, 3]])
    assert np.linalg.norm(goal[2] - goal[4]) <= 0.01


def test_success_is_being_at_the_goal() -> None:
    installed()
    family = GoalTasks()
    tasks = [family.task(x=0.0, y=0.0, z=0.0), family.task(x=0.15, y=0.15, z=0.15)]
    batch = family.make_batch(tasks)
    batch.reset(seed=0)
    *_, info = batch.step(np.zeros((2, 3), np.float32))
    assert info["success"].tolist() == [True, False]


@pytest.mark.parametrize("name", ["FetchReach-v4", "PointMaze_UMaze-v3"])
def test_it_keeps_the_contract(name: str) -> None:
    installed()
    failed = [result for result in check_distribution(GoalTasks(name, horizon=12)) if not result.passed]
    assert not failed


def test_training_and_evaluation_count_successes(tmp_path: Path) -> None:
    installed()
    options = ["task_distribution.options.horizon=5", *ONE_ITERATION, "training.evaluate_every=0"]
    metarl.train("fetch_reach_rl2", options, run_dir=tmp_path / "run", local=True, progress=False)
    evaluation = metarl.evaluate(tmp_path / "run", tasks=3)
    assert evaluation.success_rates is not None
    assert all(0 <= rate <= 1 for rate in evaluation.success_rates)
