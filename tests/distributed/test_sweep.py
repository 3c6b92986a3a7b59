"""Sweeps without Ray: which runs a grid makes, what is refused before any starts, what is made of their results."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from metarl.cli.app import app
from metarl.config import load_config
from metarl.distributed.sweep.grid import (
    Plan,
    PlannedRun,
    Setting,
    plan_runs,
    setting_name,
    short_keys,
    split_values,
    unique_names,
)
from metarl.distributed.sweep.results import (
    Point,
    RunResult,
    SettingResult,
    common_curve,
    mark_best,
    read_results,
    rivals,
    summarise,
    write_summary,
)
from metarl.distributed.sweep.work import STOPPED_EARLY, SUMMARY, TrainOne, has_ended, outcome_of
from metarl.errors import ConfigError
from metarl.report.sweep_figure import plot_sweep, sweep_figure
from metarl.report.sweep_table import table
from metarl.rollout.local import LocalExecutor
from metarl.runs.build import load_run
from metarl.runs.directory import read_records
from metarl.training.loop import train
from tests.run_contents import left_by

YAML = """
seed: 7
task_distribution: {name: PointGoal, options: {horizon: 4}}
algorithm: {name: maml, tasks_per_iteration: 2, num_streams: 2}
training: {iterations: 3, evaluate_every: 1}
evaluation: {num_tasks: 3}
device: cpu
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(YAML)
    return Path("small.yaml")


# --- the grid ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("0.1,1e-2", ["0.1", "1e-2"]),
        ("[64,64],[32, 32]", ["[64,64]", "[32, 32]"]),
        ("{a: 1, b: [2,3]},null", ["{a: 1, b: [2,3]}", "null"]),
        ("'a,b',c", ["'a,b'", "c"]),
        ("it's,fine", ["it's", "fine"]),
        ("a,,b", ["a", "", "b"]),
    ],
)
def test_commas_in_brackets_and_quotes_separate_nothing(text: str, parts: list[str]) -> None:
    assert split_values(text) == parts


def test_every_combination_runs_with_every_seed_and_all_settings_come_before_the_next_seed(config: Path) -> None:
    plan = plan_runs(config, ["training.iterations=5"], ["algorithm.inner_lr=0.1,1e-2", "algorithm.outer=ppo,trpo"], 2)
    assert [run.name for run in plan.runs] == [
        f"inner_lr={lr},outer={outer}-seed{seed}"
        for seed in (7, 8)
        for lr in ("0.1", "0.01")
        for outer in ("ppo", "trpo")
    ]
    assert plan.seeds == (7, 8)
    first, last = plan.runs[0].config, plan.runs[-1].config
    assert (first.algorithm.inner_lr, first.algorithm.outer, first.seed) == (0.1, "ppo", 7)  # type: ignore[attr-defined]
    assert (last.algorithm.inner_lr, last.algorithm.outer, last.seed) == (0.01, "trpo", 8)  # type: ignore[attr-defined]
    assert {(run.config.training.iterations, run.config.executor.backend) for run in plan.runs} == {(5, "local")}
    assert [run.name for run in plan_runs(config, [], [], 2).runs] == ["base-seed7", "base-seed8"]


def test_names_are_safe_short_and_unlike_each_other() -> None:
    assert short_keys(["a.x.lr", "b.x.lr", "a.size"]) == {"a.x.lr": "a.x.lr", "b.x.lr": "b.x.lr", "a.size": "size"}
    assert setting_name({"algorithm.hidden": [64, 64], "algorithm.on": True, "task.tag": None}) == (
        "hidden=64x64,on=true,tag=null"
    )
    assert setting_name({"a.lr": 1e-05, "a.n": 2.0, "a.file": "../up/x y"}) == "lr=1e-05,n=2,file=.._up_x_y"
    assert unique_names(["tag=A", "tag=a", "tag=b"]) == ["tag=A", "tag=a~2", "tag=b"]
    long = [setting_name({"key": letter * 300}) for letter in "ab"]
    assert len(set(long)) == 2
    assert max(map(len, long)) <= 120


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sweep", "algorithm.iner_lr=0.1,0.2"], "did you mean 'inner_lr'?"),
        (["--sweep", "algorithm.inner_lr=0.1,-2"], "algorithm.inner_lr = -2"),
        (["--sweep", "algorithm.inner_lr=0.1,1e-1"], "algorithm.inner_lr: 0.1 and 1e-1 are the same value"),
        (["--sweep", "algorithm.inner_lr="], "algorithm.inner_lr: the list of values is empty"),
        (["--sweep", "algorithm.inner_lr=0.1,"], "value 2 of algorithm.inner_lr is empty"),
        (["--sweep", "algorithm.inner_lr"], "expected key=a,b,c"),
        (["--sweep", "algorithm.inner_lr=[0.1,0.2"], "invalid YAML"),
        (["--sweep", "algorithm.outer=ppo,sgd"], "algorithm.outer = 'sgd'"),
        (["--sweep", "seed=1,2"], "use --seeds N"),
        (["--sweep", "executor.num_workers=1,2"], "executor.num_workers"),
        (["--sweep", "algorithm.inner_lr=1,2", "--sweep", "algorithm.inner_lr=3"], "give each key once"),
        (["algorithm.inner_lr=0.3", "--sweep", "algorithm.inner_lr=1,2"], "give each key once"),
        (["training.iteration=3", "--seeds", "2"], "did you mean 'iterations'?"),
        (["--sweep", "task_distribution.name=PointGoal,Cartpole"], "name=Cartpole: unknown task distribution"),
        (["--sweep", "algorithm.inner_lr=0.1,0.2", "--local"], "exclude each other"),
        (["--seeds", "0"], "--seeds"),
        (["--asha"], "belong to a sweep"),
        (["--seeds", "2", "--asha", "training.evaluate_every=0"], "training.evaluate_every = 0"),
        (["--seeds", "2", "--run-dir", "small.yaml"], "cannot make the sweep directory"),
    ],
)
def test_wrong_input_is_refused_before_anything_starts(config: Path, arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["train", "small.yaml", *arguments])
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert not list(Path().glob("runs/*/*-seed*"))


def test_without_ray_tune_the_package_to_install_is_named(config: Path) -> None:
    script = (
        "import sys; sys.modules['pandas'] = None\n"
        "sys.argv = ['metarl', 'train', 'small.yaml', '--seeds', '2']\n"
        "from metarl.cli.app import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stderr
    assert "pip install 'metarl[tune]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_directory_with_a_single_run_or_with_other_runs_is_refused(config: Path) -> None:
    train(load_config(config, ["seed=7"]), Path("one"), LocalExecutor)
    result = CliRunner().invoke(app, ["train", "small.yaml", "--seeds", "2", "--run-dir", "one"])
    assert (result.exit_code, "directory of a single run" in result.stderr) == (2, True)

    train(load_config(config), Path("many/base-seed7"), LocalExecutor)
    result = CliRunner().invoke(app, ["train", "small.yaml", "--seeds", "2", "--run-dir", "many"])
    assert (result.exit_code, "add --resume" in result.stderr) == (2, True)
    arguments = ["algorithm.num_streams=3", "--seeds", "2", "--run-dir", "many", "--resume"]
    result = CliRunner().invoke(app, ["train", "small.yaml", *arguments])
    assert result.exit_code == 2
    assert "base-seed7: algorithm.num_streams: 2 -> 3" in result.stderr


# --- one run -----------------------------------------------------------------------------------------


class Link:
    """Stops the run at iteration `cut_at`, for good, or at iteration `stop_at`."""

    num_cpus = 1

    def __init__(self, cut_at: int | None = None, stop_at: int | None = None):
        self.signal_number: int | None = None
        self.is_cut = False
        self.scores: dict[int, float] = {}
        self.events: list[Any] = []
        self._cut_at, self._stop_at = cut_at, stop_at

    def emit(self, event: Any) -> None:
        self.events.append(event)

    def judged(self, step: int, score: float) -> None:
        self.scores[step] = score
        self.is_cut = step == self._cut_at
        if step in (self._cut_at, self._stop_at):
            self.signal_number = 15


@pytest.fixture
def one(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlannedRun:
    monkeypatch.setattr("metarl.distributed.sweep.work.count_processors", lambda number: None)  # else for good
    (tmp_path / SUMMARY).touch()
    return plan_runs(config, [], [], 1).runs[0]


def test_a_run_of_a_sweep_is_the_ordinary_run_bit_by_bit_also_when_interrupted(one: PlannedRun, tmp_path: Path) -> None:
    train(one.config, tmp_path / "plain", LocalExecutor)
    folder = tmp_path / one.name
    assert TrainOne(one.config, folder)(Link(stop_at=1)) is None
    assert outcome_of(folder) is None
    assert read_records(folder / "metrics.jsonl")[-1]["iteration"] == 1
    link = Link()
    outcome = TrainOne(one.config, folder)(link)
    assert outcome == outcome_of(folder)
    assert left_by(folder, 3) == left_by(tmp_path / "plain", 3)
    assert sorted(link.scores) == [2]  # neither the beginning nor the end is judged
    assert outcome is not None
    assert (outcome["reason"], outcome["iteration"]) == ("done", 3)
    assert outcome["returns"][-1] == read_records(folder / "metrics.jsonl")[-1]["return/round1"]
    assert load_run(folder).checkpoint.iteration == 3
    assert has_ended(folder, one.config, may_cut=False)
    longer = one.config.model_copy(update={"training": one.config.training.model_copy(update={"iterations": 4})})
    assert not has_ended(folder, longer, may_cut=True)


def test_a_run_that_is_cut_ends_right_there_and_goes_on_where_nothing_is_cut(one: PlannedRun, tmp_path: Path) -> None:
    folder = tmp_path / one.name
    outcome = TrainOne(one.config, folder)(Link(cut_at=2))
    assert outcome is not None
    assert (outcome["reason"], outcome["iteration"]) == (STOPPED_EARLY, 2)
    assert has_ended(folder, one.config, may_cut=True)
    assert not has_ended(folder, one.config, may_cut=False)
    assert (TrainOne(one.config, folder)(Link()) or {})["reason"] == "done"


def test_a_run_without_evaluations_is_evaluated_at_its_end(config: Path, one: PlannedRun, tmp_path: Path) -> None:
    quiet = plan_runs(config, ["training.evaluate_every=0"], [], 1)
    with_evaluations = TrainOne(one.config, tmp_path / "other")(Link())
    outcome = TrainOne(quiet.runs[0].config, tmp_path / "base-seed7")(Link())
    assert outcome is not None
    assert with_evaluations is not None
    assert outcome["returns"] == with_evaluations["returns"]
    (result,) = read_results(tmp_path, quiet, {})
    assert [(p.iteration, p.after) for p in result.runs[0].curve] == [(3, outcome["returns"][-1])]


def test_a_directory_that_this_machine_does_not_see_is_named(one: PlannedRun, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="elsewhere is not to be seen on the node"):
        TrainOne(one.config, tmp_path / "elsewhere" / one.name)(Link())


# --- results -----------------------------------------------------------------------------------------


def run_result(seed: int, score: float | None, status: str = "done", curve: tuple[float, ...] = ()) -> RunResult:
    points = tuple(Point(10 * i, 100 * i + seed, 0.0, value) for i, value in enumerate(curve))
    return RunResult(f"x-seed{seed}", seed, status, None, 10, 100, None if score is None else (0.0, score), points)


def result_of(name: str, scores: list[float], status: str = "done") -> SettingResult:
    return summarise(Setting(name, {"key": name}), [run_result(i, s, status) for i, s in enumerate(scores)])


def test_statistics_are_over_the_seeds_that_have_ended() -> None:
    result = result_of("a", [1.0, 2.0, 3.0, 10.0])
    assert result.mean == 4.0
    assert result.iqm == 2.5  # without the lowest and the highest
    assert result.ci95 is not None
    assert 1.0 <= result.ci95[0] < 4.0 < result.ci95[1] <= 10.0
    runs = [run_result(0, 1.0), run_result(1, 5.0, "failed"), run_result(2, None, "unfinished"), run_result(3, 3.0)]
    result = summarise(Setting("b", {}), runs)
    assert (result.scores, result.mean, result.iqm) == ((1.0, 3.0), 2.0, None)
    single, none = result_of("c", [5.0]), result_of("d", [])
    assert (single.mean, single.ci95) == (5.0, None)
    assert (none.mean, none.ci95, none.iqm) == (None, None, None)


def test_the_best_was_trained_to_its_end_and_rivals_are_compared_seed_by_seed() -> None:
    base = [0.0, 10.0, 20.0, 30.0]  # seeds differ far more than settings do
    marked = mark_best(
        [
            result_of("best", [s + 2.0 for s in base]),
            result_of("always one less", [s + 1.0 for s in base]),
            result_of("now this, now that", [s + 2.0 + d for s, d in zip(base, (3.0, -4.0, 2.0, -3.0), strict=True)]),
            result_of("stopped", [100.0], STOPPED_EARLY),
            result_of("nothing", []),
        ]
    )
    assert [r.setting.name for r in marked if r.is_best] == ["best"]
    assert rivals(marked) == ["now this, now that", "stopped"]
    assert not any(r.is_best for r in mark_best([result_of("alone", [1.0])]))


def test_the_mean_curve_ends_where_the_first_run_does() -> None:
    runs = [run_result(0, 3.0, curve=(1.0, 2.0, 3.0)), run_result(1, 4.0, STOPPED_EARLY, curve=(3.0, 4.0))]
    rows = common_curve([*runs, run_result(2, None, "failed", curve=(50.0,)), run_result(3, None, "not started")])
    assert [(steps, value) for steps, value, _ in rows] == [(0.5, 2.0), (100.5, 3.0)]
    assert rows[0][2] == (1.0, 3.0)
    assert common_curve([]) == []


def test_table_json_and_picture_name_what_happened(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    results = []
    for number in range(10):
        curves = rng.normal(number, 1.0, size=(4, 3))
        runs = [run_result(i, float(c[-1]), curve=tuple(map(float, c))) for i, c in enumerate(curves)]
        results.append(summarise(Setting(f"lr={number}", {"algorithm.lr": number}), runs))
    stopped = [run_result(0, 1.0, STOPPED_EARLY, (0.0, 1.0)), run_result(1, None, "failed"), run_result(2, 9.5)]
    results.append(summarise(Setting("mixed", {}), stopped))
    results = mark_best(results)
    plot_sweep(results, "small", tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").stat().st_size > 10_000
    labels = [text.get_text() for text in sweep_figure(results, "small").legends[0].get_texts()]
    assert "the other settings" in labels
    assert any(label.endswith("(best)") for label in labels)
    write_summary(tmp_path, {"seeds": (0, 1)}, results)
    content = json.loads((tmp_path / SUMMARY).read_text())
    assert [s["name"] for s in content["settings"] if s["is_best"]] == ["lr=9"]
    assert content["settings"][-1]["num_stopped_early"] == content["settings"][-1]["num_failed"] == 1
    assert content["settings"][0]["runs"][0]["curve"][1] == {
        "iteration": 10,
        "env_steps": 100,
        "before": 0.0,
        "after": results[0].runs[0].curve[1].after,
    }
    cells = [str(cell) for column in table(results, "small").columns for cell in column.cells]
    assert "best" in cells
    assert "1 stopped early, at iteration 10, 1 failed" in cells


def test_the_plan_finds_the_runs_of_a_setting(config: Path) -> None:
    plan: Plan = plan_runs(config, [], ["algorithm.inner_lr=1,2"], 2)
    assert [run.seed for run in plan.runs_of(plan.settings[1])] == [7, 8]
