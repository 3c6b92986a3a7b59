"""Meta-World's environments: without it the learner knows all it must; with it they keep the contract."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from metarl_envs.meta_world import MetaWorld, MetaWorldReach
from metarl_envs.meta_world_names import BENCHMARKS, ENVIRONMENTS

import metarl
from metarl.config import load_config
from metarl.errors import TaskError
from metarl.rollout.spaces import Spaces
from metarl.runs.build import spaces_of
from metarl.tasks import Task
from metarl.tasks.check import check_distribution
from tests.run_contents import EXPERIMENTS

NOT_INSTALLED = "Meta-World is not installed"
ONE_ITERATION = ["training.iterations=1", "algorithm.tasks_per_iteration=2", "training.tasks_per_unit=2"]


def test_the_learner_does_not_import_it() -> None:
    config = load_config(EXPERIMENTS / "meta_world_reach_rl2.yaml")
    for family in (MetaWorldReach(), MetaWorld(env="push-v3"), MetaWorld("ML45")):
        assert spaces_of(family, config) == Spaces(39, 4)
        family.sample("train", 2, 0)
    assert "metaworld" not in sys.modules or _is_installed()


def _is_installed() -> bool:
    try:
        import metaworld  # noqa: F401
    except ImportError:
        return False
    return True


@pytest.mark.parametrize("family", [lambda h: MetaWorldReach(h), lambda h: MetaWorld("ML10", horizon=h)])
def test_horizons_are_those_that_meta_world_allows(family: Any) -> None:
    assert family(500).horizon == 500
    for horizon in (0, 501):
        with pytest.raises(TaskError, match=f"horizon must be 1 to 500, got {horizon}"):
            family(horizon)


# --- benchmarks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"benchmark": "ML11"},
            "benchmark = 'ML11' is not Meta-World's; did you mean 'ML1' or 'ML10'? allowed: ML1,",
        ),
        (
            {"env": "reech-v3"},
            "env = 'reech-v3' is not Meta-World's; did you mean 'reach-v3' or 'reach-wall-v3'? allowed: assembly-v3, ",
        ),
        ({}, "ML1 needs an environment, env; allowed: assembly-v3, basketball-v3"),
        ({"benchmark": "ML10", "env": "reach-v3"}, "env = 'reach-v3' is for ML1 alone"),
        ({"env": "reach-v3", "seed": -1}, "seed must be a whole number"),
        ({"env": "reach-v3", "seed": None}, "seed must be a whole number"),
    ],
)
def test_what_meta_world_does_not_have_is_refused_with_what_it_has(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskError, match=re.escape(message)):
        MetaWorld(**options)


def names(family: MetaWorld, tasks: tuple[Task, ...]) -> set[str]:
    return {family.env_name(task) for task in tasks}


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_no_test_task_of_a_benchmark_is_drawn_in_training(benchmark: str) -> None:
    family, (train, test) = MetaWorld(benchmark), BENCHMARKS[benchmark]
    drawn, held_out = family.sample("train", 50 * len(train), 0), family.sample("test", 50 * len(test), 0)
    assert (names(family, drawn), names(family, held_out)) == (set(train), set(test))
    assert len(set(drawn)) == 50 * len(train)  # every one once
    assert len(set(held_out)) == 50 * len(test)
    assert not set(drawn) & set(held_out)
    assert {family.split_of(task) for task in held_out} == {("test",)}
    assert set(family.sample("validation", 50 * len(train), 1)) == set(drawn)


def test_ml1_trains_on_fifty_goals_and_is_tested_on_fifty_others() -> None:
    family = MetaWorld(env="push-v3")
    drawn, held_out = ({task["goal"] for task in family.sample(split, 50, 3)} for split in ("train", "test"))
    assert (drawn, held_out) == (set(range(50)), set(range(50, 100)))


# --- with Meta-World -----------------------------------------------------------------------------------


def test_the_lists_of_names_are_meta_worlds() -> None:
    env_dict = pytest.importorskip("metaworld.env_dict", reason=NOT_INSTALLED)
    assert tuple(env_dict.ALL_V3_ENVIRONMENTS) == ENVIRONMENTS
    for benchmark, (train, test) in BENCHMARKS.items():
        theirs = getattr(env_dict, f"{benchmark}_V3")
        assert (tuple(theirs["train"]), tuple(theirs["test"])) == (train, test)


def test_tasks_are_the_benchmarks_own_and_observations_hide_the_goal() -> None:
    metaworld = pytest.importorskip("metaworld", reason=NOT_INSTALLED)
    theirs, family = metaworld.ML1("reach-v3", seed=7), MetaWorld(env="reach-v3", seed=7)
    for goal, task in ((3, theirs.train_tasks[3]), (53, theirs.test_tasks[3])):
        plain = theirs.train_classes["reach-v3"]()
        plain.set_task(task)
        env, actions = family.make(family.task(goal=goal)), np.random.default_rng(0).uniform(-1, 1, (20, 4))
        first, _ = env.reset(seed=0)
        np.testing.assert_array_equal(first, plain.reset()[0])
        for action in actions.astype(np.float32):
            seen, reward, *_, info = env.step(action)
            expected, expected_reward, *_, expected_info = plain.step(action)
            np.testing.assert_array_equal(seen, expected)
            assert (reward, info["success"]) == (expected_reward, expected_info["success"])
            assert not seen[36:].any()
        env.close()


def test_a_test_goal_of_a_training_environment_is_none() -> None:
    pytest.importorskip("metaworld", reason=NOT_INSTALLED)
    family = MetaWorld("ML10", horizon=10)
    task = family.task(env=ENVIRONMENTS.index("reach-v3"), goal=50)
    with pytest.raises(TaskError, match="ML10 has no test tasks of reach-v3"):
        family.make(task)


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_an_environment_that_was_used_before_does_what_a_new_one_does(name: str) -> None:
    metaworld = pytest.importorskip("metaworld", reason=NOT_INSTALLED)
    kind, tasks = metaworld.env_dict.ALL_V3_ENVIRONMENTS[name], metaworld.ML1(name, seed=0).train_tasks

    def episode(env: Any, task: Any, seed: int) -> np.ndarray:
        env.set_task(task)
        rows = [np.append(env.reset()[0], 0.0)]
        for action in np.random.default_rng(seed).uniform(-1, 1, (30, 4)).astype(np.float32):
            seen, reward, *_ = env.step(action)
            rows.append(np.append(seen, reward))
        return np.array(rows)

    used = kind()
    episode(used, tasks[0], 0)
    np.testing.assert_array_equal(episode(used, tasks[1], 1), episode(kind(), tasks[1], 1))


@pytest.mark.parametrize(
    "family", [MetaWorldReach(10), MetaWorld(env="push-v3", horizon=10), MetaWorld("ML10", horizon=10)]
)
def test_it_keeps_the_contract(family: Any) -> None:
    pytest.importorskip("metaworld", reason=NOT_INSTALLED)
    failed = [result for result in check_distribution(family) if not result.passed]
    assert not failed


def test_reach_with_own_goals_hides_them() -> None:
    pytest.importorskip("metaworld", reason=NOT_INSTALLED)
    family = MetaWorldReach(10)
    one, other = (family.make(task).reset(seed=0)[0] for task in family.sample("train", 2, 0))
    np.testing.assert_array_equal(one, other)


def test_an_episode_with_a_successful_step_is_a_success_in_evaluations(tmp_path: Path) -> None:
    pytest.importorskip("metaworld", reason=NOT_INSTALLED)
    config = ["task_distribution.options.horizon=5", *ONE_ITERATION, "training.evaluate_every=0"]
    metarl.train("meta_world_ml1_reach_rl2", config, run_dir=tmp_path / "run", local=True, progress=False)
    evaluation = metarl.evaluate(tmp_path / "run", tasks=3)
    assert evaluation.success_rates is not None
    assert all(0 <= rate <= 1 for rate in evaluation.success_rates)
