"""Every benchmark runs, at its smallest size, and its last line holds what it promises."""

from __future__ import annotations

import importlib
import itertools
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from metarl.algorithms.maml.config import MAMLConfig
from metarl.algorithms.maml.learner import MAML
from metarl.kernels.processor import bfloat16_pays
from metarl.rollout.local import LocalExecutor
from metarl.rollout.spaces import Spaces
from metarl.rollout.types import RoundPlan, TrialPlan, Unit
from metarl.tasks import load_distribution

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments" / "benchmarks"))

from _physics import NoPhysicsError, physics_limit_per_s
from _timing import ms_in_turn, paired_ratio
from training import PhysicsLimit, summary

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
CONDITIONS = {"processor", "load_before", "load_after"}


def last_line_of(
    name: str, arguments: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> dict[str, Any]:
    """What `main` of experiments/benchmarks/NAME.py prints last, without the conditions of the measurement."""
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments.split()])
    importlib.import_module(name).main()
    return _result(capsys.readouterr().out)


def last_line_of_command(name: str, arguments: str) -> dict[str, Any]:
    """The same in a process of its own, for the benchmarks that start Ray."""
    command = [sys.executable, str(EXPERIMENTS / "benchmarks" / f"{name}.py"), *arguments.split()]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return _result(done.stdout)


def _result(output: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    assert result.keys() >= CONDITIONS
    assert result["processor"]["features"] is not None
    return {key: value for key, value in result.items() if key not in CONDITIONS}


def test_meta_update(monkeypatch, capsys):
    result = last_line_of("meta_update", "--repeats 1 --trpo-repeats 1 --tasks 1", monkeypatch, capsys)
    numbers = {"meta_gradient_ms", "loop_ms", "speedup_vs_loop", "trpo_step_ms", "trpo_step_over_loop"}
    assert result.keys() == {"device", "threads", "tasks", *numbers}
    assert all(result[name] > 0 for name in numbers)
    assert result["speedup_vs_loop"] == pytest.approx(result["loop_ms"] / result["meta_gradient_ms"], rel=0.01)


@pytest.mark.parametrize("core", ["gru", "lstm"])
def test_recurrent_update(core, monkeypatch, capsys):
    result = last_line_of("recurrent_update", f"--repeats 1 --trials 2 --core {core}", monkeypatch, capsys)
    numbers = {"samples_per_s", "bare_samples_per_s", f"ratio_to_bare_{core}"}
    assert result.keys() == {"device", "threads", "core", "trials", *numbers}
    ratio = result["samples_per_s"] / result["bare_samples_per_s"]
    assert result[f"ratio_to_bare_{core}"] == pytest.approx(ratio, rel=0.01)


@pytest.mark.parametrize("gains", [True, False])
def test_pearl_update_leaves_out_bfloat16_with_a_reason_where_the_processor_cannot_gain(gains, monkeypatch, capsys):
    module = importlib.import_module("pearl_update")
    assert module.bfloat16_pays is bfloat16_pays
    monkeypatch.setattr(module, "bfloat16_pays", lambda: gains)
    result = last_line_of("pearl_update", "--repeats 1 --tasks 1", monkeypatch, capsys)
    numbers = {"plain_ms", "float32_ms", "speedup_float32", "bfloat16_ms", "speedup_bfloat16"}
    assert result.keys() == {"device", "threads", "tasks", *numbers} | (set() if gains else {"speedup_bfloat16_reason"})
    assert result["speedup_float32"] == pytest.approx(result["plain_ms"] / result["float32_ms"], rel=0.05)
    if gains:
        assert result["speedup_bfloat16"] > 0
    else:
        assert result["speedup_bfloat16"] is None
        assert "AMX" in result["speedup_bfloat16_reason"]


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
def test_sampling():
    result = last_line_of_command("sampling", "--actors 1 --repeats 1 --tasks 2 --horizon 5")
    numbers = {"actors", "env_steps_per_s", "physics_limit_per_s", "ratio_to_physics"}
    assert result.keys() == {"tasks", "horizon", *numbers}
    ratio = result["env_steps_per_s"] / result["physics_limit_per_s"]
    assert result["ratio_to_physics"] == pytest.approx(ratio, abs=0.002)


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
def test_training():
    overrides = "algorithm.tasks_per_iteration=1 task_distribution.options.horizon=5"
    config = EXPERIMENTS / "half_cheetah_dir_promp.yaml"
    result = last_line_of_command("training", f"{config} {overrides} --iterations 1 --actors 1")
    shares = {"sample_share", "learn_share", "other_share"}
    rates = {"env_steps_per_s", "iteration_s", "physics_limit_per_s", "ratio_to_physics"}
    assert result.keys() == {"config", "overrides", "actors", *shares, *rates}
    assert sum(result[name] for name in shares) == pytest.approx(1, abs=0.002)
    ratio = result["env_steps_per_s"] / result["physics_limit_per_s"]
    assert result["ratio_to_physics"] == pytest.approx(ratio, abs=0.002)


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
def test_scaling():
    result = last_line_of_command("scaling", "--repeats 1 --tasks 10 --horizon 5")
    assert result.keys() == {"tasks", "horizon", "env_steps_per_s", "speedup_2_actors", "costs", "predicted"}
    one, two = (result["env_steps_per_s"][number] for number in "12")
    assert result["speedup_2_actors"] == pytest.approx(two / one, rel=0.01)
    assert result["costs"].keys() == {"unit_s", "spread", "call_s", "transfer_s", "learner_s"}
    assert len(result["predicted"]) == 4
    for rows in result["predicted"].values():
        assert [row["actors"] for row in rows] == [8, 16, 32, 64, 128, 256, 512, 1000]


def test_functions_run_in_turn_after_a_warm_up_of_each():
    called: list[str] = []
    functions = [lambda: called.append("a"), lambda: called.append("b")]
    times = ms_in_turn(functions, 2, torch.device("cpu"))
    assert "".join(called) == "ababab"
    assert [len(each) for each in times] == [2, 2]


def test_the_ratio_is_the_median_over_pairs_and_not_that_of_medians():
    # Pairs 2/1, 30/10, 4/1: 2, 3, 4. The medians are 4 and 1.
    assert paired_ratio([2.0, 30.0, 4.0], [1.0, 10.0, 1.0]) == 3.0


def test_the_physics_limit_counts_every_step_of_every_simulation(monkeypatch):
    """2 rounds x 3 tasks x 2 streams x 4 steps in rounds of one second: 48 steps in 2 s."""
    distribution = load_distribution("HalfCheetahDynamics", horizon=4)
    learner = MAML(MAMLConfig(name="maml"), Spaces(17, 6), torch.device("cpu"), seed=0)
    plan = TrialPlan(2, 4, (RoundPlan("support"), RoundPlan("query", adapt=False)))
    unit = Unit(0, distribution.sample("train", 3, 0), plan, (0,))
    trials = LocalExecutor(distribution, learner.policy).collect([unit], learner.weights(), 0)
    seconds = itertools.count()
    monkeypatch.setattr("_physics.time", SimpleNamespace(perf_counter=lambda: next(seconds)))
    assert physics_limit_per_s(distribution, trials) == 24


def records(*rates: float) -> list[dict[str, float]]:
    return [{"env_steps_per_s": rate, "sample_s": 0.2, "learn_s": 0.7, "other_s": 0.1} for rate in rates]


def test_training_divides_each_iterations_rate_by_the_limit_measured_after_it():
    limit = PhysicsLimit(overlap=False)
    limit.per_s = [200.0, 1000.0, 400.0]
    found = summary(records(100.0, 100.0, 100.0), limit)
    assert (found["ratio_to_physics"], found["physics_limit_per_s"]) == (0.25, 400)
    assert (found["sample_share"], found["learn_share"], found["other_share"]) == (0.2, 0.7, 0.1)


def test_training_without_a_physics_limit_says_why():
    found = summary(records(100.0), PhysicsLimit(overlap=True))
    assert found["ratio_to_physics"] is None
    assert "overlap" in found["ratio_to_physics_reason"]
    with pytest.raises(NoPhysicsError, match="PointGoal has no MuJoCo model"):
        physics_limit_per_s(load_distribution("PointGoal"), [])
