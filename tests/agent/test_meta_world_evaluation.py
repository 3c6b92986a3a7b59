"""Meta-World's own evaluation runs unmodified on our agents."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import metarl
from tests.run_contents import EXPERIMENTS

pytest.importorskip("metaworld", reason="Meta-World is not installed")
SMALL = {
    "training.iterations": 1,
    "training.evaluate_every": 0,
    "training.tasks_per_unit": 2,
    "algorithm.tasks_per_iteration": 2,
    "task_distribution.options.horizon": 6,
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    metarl.train("meta_world_ml1_reach_rl2", SMALL, run_dir=tmp_path / "run", local=True, progress=False)
    return tmp_path / "run"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    path = EXPERIMENTS.parent / "examples" / "meta_world_evaluation.py"
    found = importlib.util.spec_from_file_location("meta_world_evaluation", path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    monkeypatch.setitem(sys.modules, "meta_world_evaluation", module)
    found.loader.exec_module(module)
    return module


def arguments(run: Path, *more: str) -> list[str]:
    return ["meta_world_evaluation.py", str(run), "--support", "2", "--episodes", "2", "--tasks", "2", *more]


def test_it_prints_the_success_rate_of_the_runs_environment(
    run: Path, script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", arguments(run))
    script.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.rsplit(maxsplit=1)[0].strip() for line in lines] == [
        "reach-v3",
        "success rate",
        "return of an episode",
    ]
    assert 0 < float(lines[-1].rsplit(maxsplit=1)[1]) <= 60  # six steps of at most 10


def test_a_run_can_be_evaluated_on_another_environment(
    run: Path, script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", arguments(run, "--benchmark", "ML1", "--env", "push-v3"))
    script.main()
    assert capsys.readouterr().out.startswith("push-v3 ")


def test_every_judged_episode_begins_with_what_was_known_after_adapting(run: Path, script: ModuleType) -> None:
    agent = script.MetaWorldAgent([metarl.load_agent(run, support_episodes=1, horizon=2)])
    rng, zero, one = np.random.default_rng(0), np.zeros(1, bool), np.ones(1, bool)
    obs = rng.normal(size=(4, 1, 39 + script.EXTRAS))
    agent.init()
    for t, ends in enumerate((zero, one)):
        action, _ = agent.adapt_action(obs[t])
        agent.step(script.Timestep(obs[t], action, np.ones(1), zero, ends, {}))
    agent.adapt()
    episodes = []
    for _ in range(2):
        agent.reset(one)
        episodes.append([agent.eval_action(obs[t]) for t in (2, 3)])
    first, second = episodes
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(episodes[0][0], _first_action_of_another_trial(run, script, obs[2]))


def _first_action_of_another_trial(run: Path, script: ModuleType, obs: np.ndarray) -> np.ndarray:
    agent = script.MetaWorldAgent([metarl.load_agent(run, support_episodes=1, horizon=2)])
    agent.init()
    agent.reset(np.ones(1, bool))
    actions: np.ndarray = agent.eval_action(obs)
    return actions


def test_a_run_of_another_family_must_be_told_the_benchmark(tmp_path: Path, script: ModuleType) -> None:
    pretrained = EXPERIMENTS / "pretrained" / "sparse_point_rl2"
    options = argparse.Namespace(run=str(pretrained), benchmark=None, env=None, horizon=None)
    with pytest.raises(SystemExit, match="say --benchmark ML1 --env NAME"):
        script.evaluate(options)
