"""`import metarl`: the platform for Python programs."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import metarl
from metarl.errors import ConfigError, MetarlError, TaskError, Terminated
from metarl.training.progress import SilentReporter
from tests.run_contents import EXPERIMENTS

PRETRAINED = EXPERIMENTS / "pretrained"
CONFIG = """
task_distribution: {name: PointGoal, options: {horizon: 5}}
algorithm: {name: promp, tasks_per_iteration: 3, num_streams: 3, hidden: [8]}
training: {iterations: 3, evaluate_every: 3, tasks_per_unit: 3}
evaluation: {num_tasks: 3}
executor: {backend: local}
device: cpu
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "point.yaml"
    path.write_text(CONFIG)
    return path


class Signalling(SilentReporter):
    """Sends this process a signal after an iteration, and keeps what it is told."""

    def __init__(self, number: int | None = None):
        self.number, self.iterations = number, []  # type: ignore[var-annotated]

    def train(self, record: Any, iterations: int, eta_s: float) -> None:
        self.iterations.append(record["iteration"])
        if self.number is not None:
            signal.raise_signal(self.number)


def test_importing_metarl_imports_neither_torch_nor_ray_nor_numpy() -> None:
    script = "import sys, metarl; dir(metarl); print(sorted({'torch', 'ray', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=600, check=True)
    assert done.stdout.strip() == "[]"


def test_every_name_that_is_promised_is_there() -> None:
    assert {"load_config", "train", "evaluate", "load_agent", "make_env"} <= set(metarl.__all__) <= set(dir(metarl))
    for name in metarl.__all__:
        assert callable(getattr(metarl, name))
    with pytest.raises(AttributeError, match="'metarl' has no attribute 'trian'"):
        metarl.trian  # noqa: B018


def test_a_configuration_is_trained_evaluated_and_acted_with(config: Path, tmp_path: Path) -> None:
    run, reporter = tmp_path / "run", Signalling()
    settings = metarl.load_config(config, {"seed": 5, "algorithm.hidden": [4]})
    result = metarl.train(settings, run_dir=run, progress=reporter)
    assert (result.reason, result.iteration, result.run) == ("done", 3, str(run))
    assert [record["kind"] for record in result.records] == ["evaluation"] + ["train"] * 3 + ["evaluation"]
    assert reporter.iterations == [1, 2, 3]
    frame = result.frame()
    assert len(frame) == 5
    np.testing.assert_array_equal(frame["iteration"], [r["iteration"] for r in result.records])

    evaluation = metarl.evaluate(run, tasks=4, rounds=1, seed=8)
    assert (evaluation.num_tasks, len(evaluation.rounds), evaluation.seed) == (4, 1, 8)
    chosen = metarl.evaluate(run, tasks=[{"goal": (0.3, 0.2)}])
    assert [score.task for score in chosen.per_task] == [{"goal": (0.3, 0.2)}]

    env: Any = metarl.make_env(run, seed=3)
    agent = metarl.load_agent(run)
    agent.begin_task()
    obs, _ = env.reset(seed=0)
    while not agent.episode_over:
        obs, reward, terminated, truncated, _ = env.step(agent.act(obs))
        agent.observe(reward, terminated, truncated, obs)
    assert truncated  # at the run's own horizon
    assert agent.status.step == 5


def test_a_policy_that_adapts_by_nothing_shows_no_gain(config: Path, tmp_path: Path) -> None:
    """Its first round samples actions, and the last does not: their difference is none of adaptation."""
    metarl.train(config, {"training.iterations": 1}, run_dir=tmp_path / "run", progress=False)
    idle, moved = (
        metarl.evaluate(tmp_path / "run", {"algorithm.inner_lr": lr}, tasks=10, seed=1) for lr in (1e-12, 1.0)
    )
    assert abs(idle.rounds[-1].mean - idle.rounds[0].mean) > 1e-3
    assert idle.last_minus_first is None
    assert idle.gain_over_blank is not None
    assert idle.gain_over_blank.mean == pytest.approx(0, abs=1e-6)
    assert moved.gain_over_blank is not None
    assert abs(moved.gain_over_blank.mean) > 1e-3


def test_a_keyboard_interrupt_saves_and_returns_and_the_run_goes_on_from_there(config: Path, tmp_path: Path) -> None:
    result = metarl.train(config, run_dir=tmp_path / "run", progress=Signalling(signal.SIGINT))
    assert (result.reason, result.iteration) == ("interrupted", 1)
    again = metarl.train(config, run_dir=tmp_path / "run", resume=True, progress=False)
    assert (again.reason, again.iteration) == ("done", 3)
    assert [r["iteration"] for r in again.records if r["kind"] == "train"] == [1, 2, 3]


def test_a_termination_signal_saves_and_ends_the_program(config: Path, tmp_path: Path) -> None:
    with pytest.raises(Terminated) as ended:
        metarl.train(config, run_dir=tmp_path / "run", progress=Signalling(signal.SIGTERM))
    assert ended.value.code == 128 + signal.SIGTERM
    assert metarl.train(config, run_dir=tmp_path / "run", resume=True, progress=False).iteration == 3


def test_in_a_program_progress_is_printed_and_a_run_is_named_after_its_configuration(config: Path) -> None:
    script = """
        import metarl
        result = metarl.train("point.yaml", ["training.iterations=1"], local=True)
        print(result.run, result.reason, metarl.load_config("point.yaml").seed)
        print(metarl.train(metarl.load_config("point.yaml", {"training.iterations": 1}), progress=False).run)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=config.parent,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *progress, first, second = done.stdout.splitlines()
    assert any(line.startswith("iteration 1/1  return") for line in progress)
    assert (first, second) == ("runs/point done 0", "runs/PointGoal-maml")


def test_without_pandas_the_frame_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    result = metarl.TrainingResult("run", "done", 1, 1, 1.0, ())
    with pytest.raises(MetarlError, match="pip install pandas, or use `records`"):
        result.frame()


def test_an_environment_is_of_the_task_that_was_asked_for() -> None:
    env: Any = metarl.make_env("PointGoal", {"goal": (0.3, 0.2)}, horizon=4)
    assert env.task.values == {"goal": (0.3, 0.2)}
    env.reset(seed=0)
    assert [env.step(env.action_space.sample())[3] for _ in range(4)] == [False, False, False, True]
    drawn: Any = metarl.make_env(PRETRAINED / "point_goal_pearl", split="train", seed=2)
    assert drawn.task == metarl.make_env(PRETRAINED / "point_goal_pearl", drawn.task).task  # type: ignore[union-attr]
    batch: Any = metarl.make_env("PointGoal", num_envs=3, seed=1)
    assert len(set(batch.tasks)) == 3


@pytest.mark.parametrize(
    ("call", "kind", "says"),
    [
        (lambda: metarl.load_config("quickstart", "seed=2"), ConfigError, r"allowed are a list such as \['seed=2'\]"),
        (lambda: metarl.load_config("quickstart", {"sead": 2}), ConfigError, "sead"),
        (lambda: metarl.train(metarl.load_config("quickstart"), {"seed": 2}), ConfigError, "give them to load_config"),
        (lambda: metarl.evaluate(PRETRAINED / "point_goal_pearl", split="dev"), ConfigError, "split = 'dev'"),  # type: ignore[arg-type]
        (lambda: metarl.evaluate("nowhere"), ConfigError, "nowhere is not a run directory"),
        (lambda: metarl.load_agent("nowhere"), ConfigError, "nowhere is not a run directory"),
        (lambda: metarl.make_env("PointGoal", {"gaol": 1.0}), TaskError, "gaol"),
        (lambda: metarl.make_env(PRETRAINED / "point_goal_pearl", horizon=3), ConfigError, "too many"),
        (lambda: metarl.make_env("PointGoal", num_envs=2, render_mode="rgb_array"), ConfigError, "exclude each other"),
    ],
)
def test_a_mistake_is_named(call: Any, kind: type[MetarlError], says: str) -> None:
    with pytest.raises(kind, match=says):
        call()
