"""Sweeps without Ray: which runs a grid makes, what is refused before any starts, what is made of their results."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from metarl.cli.app import app
from metarl.config import RunConfig, load_config
from metarl.distributed.sweep.grid import all_runs, plan_settings, setting_names, split_values
from metarl.distributed.sweep.judgement import judge_chosen
from metarl.distributed.sweep.results import (
    SUMMARY,
    Point,
    RunResult,
    SettingResult,
    common_curve,
    compare,
    read_results,
    write_summary,
)
from metarl.distributed.sweep.trainable import RunLink, stop_file, train_run, train_trial
from metarl.distributed.sweep.tuner import Halving
from metarl.errors import ConfigError
from metarl.evaluation.evaluate import Evaluation
from metarl.report.sweep import save_figure, sweep_figure, sweep_table
from metarl.rollout.local import LocalExecutor
from metarl.runs.build import load_run
from metarl.runs.outcome import OUTCOME, STOPPED_EARLY, has_ended, outcome_of
from metarl.runs.records import read_records
from metarl.training.loop import train
from metarl.training.stop_file import ALL, StopFile
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
        ("[64,64]", ["[64,64]"]),
    ],
)
def test_commas_in_brackets_and_quotes_separate_nothing(text: str, parts: list[str]) -> None:
    assert split_values(text) == parts


def test_every_combination_runs_with_every_seed_and_all_settings_come_before_the_next_seed(config: Path) -> None:
    arguments = ["algorithm.inner_lr=0.1,1e-2", "training.iterations=5", "algorithm.outer.name=ppo,trpo"]
    settings = plan_settings(config, [*arguments, "algorithm.hidden=[8,8]"], 2)
    runs = all_runs(settings)
    assert list(runs) == [
        f"inner_lr={lr},name={outer}-seed{seed}"
        for seed in (7, 8)
        for lr in ("0.1", "0.01")
        for outer in ("ppo", "trpo")
    ]
    first, *_, last = runs.values()
    assert (first.algorithm.inner_lr, first.algorithm.outer.name, first.seed) == (0.1, "ppo", 7)  # type: ignore[attr-defined]
    assert (last.algorithm.inner_lr, last.algorithm.outer.name, last.seed) == (0.01, "trpo", 8)  # type: ignore[attr-defined]
    assert {(run.training.iterations, run.executor.backend) for run in runs.values()} == {(5, "local")}
    assert settings[0].values == {"algorithm.inner_lr": 0.1, "algorithm.outer.name": "ppo"}
    assert list(all_runs(plan_settings(config, [], 2))) == ["base-seed7", "base-seed8"]


def test_names_are_safe_short_and_unlike_each_other() -> None:
    assert setting_names([{"a.x.lr": 1, "b.x.lr": 2, "a.size": 3}]) == ["a.x.lr=1,b.x.lr=2,size=3"]
    values = {"algorithm.hidden": [64, 64], "algorithm.on": True, "task.tag": None}
    assert setting_names([values]) == ["hidden=64x64,on=true,tag=null"]
    assert setting_names([{"a.lr": 1e-05, "a.n": 2.0, "a.file": "../up/x y"}]) == ["lr=1e-05,n=2,file=.._up_x_y"]
    assert setting_names([{"tag": "A"}, {"tag": "a"}, {"tag": "b"}]) == ["tag=A", "tag=a~2", "tag=b"]
    long = setting_names([{"key": letter * 300} for letter in "ab"])
    assert len(set(long)) == 2
    assert max(map(len, long)) <= 120


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["algorithm.iner_lr=0.1,0.2"], "did you mean 'inner_lr'?"),
        (["algorithm.inner_lr=0.1,-2"], "algorithm.inner_lr = -2"),
        (["algorithm.inner_lr=0.1,1e-1"], "algorithm.inner_lr: 0.1 and 1e-1 are the same value"),
        (["algorithm.inner_lr=0.1,"], "value 2 of algorithm.inner_lr is empty"),
        (["algorithm.inner_lr", "--seeds", "2"], "expected key.sub=value"),
        (["algorithm.inner_lr=[0.1,0.2", "--seeds", "2"], "invalid YAML"),
        (["algorithm.outer.name=ppo,sgd"], "'sgd'"),
        (["algorithm.inner_lr=0.1,.inf"], "algorithm.inner_lr = inf"),
        (["task_distribution.options.horizon=4,.nan"], "task_distribution.options.horizon = nan: not finite"),
        (["task_distribution.options.x=[1,[.inf]]", "--seeds", "2"], "task_distribution.options.x.1.0 = inf"),
        (["seed=1,2"], "use --seeds N"),
        (["seed=9223372036854775807", "--seeds", "2"], "seed = 9223372036854775807 with --seeds 2"),
        (["executor.num_workers=1,2"], "executor.num_workers"),
        (["algorithm.inner_lr=1,2", "algorithm.inner_lr=3"], "give each key once"),
        (["algorithm={name: maml}", "algorithm.inner_lr=1,2"], "give each key once"),
        (["training.iteration=3", "--seeds", "2"], "did you mean 'iterations'?"),
        (["task_distribution.name=PointGoal,Cartpole"], "name=Cartpole: unknown task distribution"),
        (["--seeds", "0"], "--seeds"),
        ([], "nothing to compare"),
        (["--seeds", "2", "--asha", "training.evaluate_every=0"], "training.evaluate_every = 0"),
        (["--seeds", "2", "--run-dir", "small.yaml"], "cannot make the sweep directory"),
        (["--seeds", "2", "--run-dir", "s3://bucket/runs"], "a sweep's is a path"),
    ],
)
def test_wrong_input_is_refused_before_anything_starts(config: Path, arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["sweep", "small.yaml", *arguments])
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert not list(Path().glob("runs/*/*-seed*"))


def test_the_train_command_has_no_options_of_sweeps(config: Path) -> None:
    for option in ("--sweep=algorithm.inner_lr=1,2", "--seeds=2", "--asha", "--cpus-per-run=2"):
        assert CliRunner().invoke(app, ["train", "small.yaml", option]).exit_code == 2


def test_without_ray_tune_the_package_to_install_is_named(config: Path) -> None:
    script = (
        "import sys; sys.modules['pandas'] = None\n"
        "sys.argv = ['metarl', 'sweep', 'small.yaml', '--seeds', '2']\n"
        "from metarl.cli.app import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=600)
    assert done.returncode == 2, done.stderr
    assert "pip install 'metarl[tune]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_directory_with_a_single_run_or_with_other_runs_is_refused(config: Path) -> None:
    train(load_config(config, ["seed=7"]), Path("one"), LocalExecutor)
    result = CliRunner().invoke(app, ["sweep", "small.yaml", "--seeds", "2", "--run-dir", "one"])
    assert (result.exit_code, "directory of a single run" in result.stderr) == (2, True)

    train(load_config(config), Path("many/base-seed7"), LocalExecutor)
    result = CliRunner().invoke(app, ["sweep", "small.yaml", "--seeds", "2", "--run-dir", "many"])
    assert (result.exit_code, "add --resume" in result.stderr) == (2, True)
    arguments = ["algorithm.num_streams=3", "--seeds", "2", "--run-dir", "many", "--resume"]
    result = CliRunner().invoke(app, ["sweep", "small.yaml", *arguments])
    assert result.exit_code == 2
    assert "many/base-seed7 holds a run with another configuration" in result.stderr
    assert "algorithm.num_streams: 2 -> 3" in result.stderr


# --- one run -----------------------------------------------------------------------------------------


class Reports(list[dict[str, Any]]):
    """What a run reports to Tune; tells `who` to stop once it is evaluated at iteration `stop_at`."""

    def __init__(self, stop: StopFile, who: str, stop_at: int | None):
        super().__init__()
        self._stop, self._who, self._stop_at = stop, who, stop_at

    def __call__(self, metrics: dict[str, Any]) -> None:
        self.append(metrics)
        if metrics["iteration"] == self._stop_at:
            self._stop.stop(self._who, 15)


def run_here(config: RunConfig, root: Path, who: str = "", stop_at: int | None = None) -> tuple[Any, Reports]:
    stop = stop_file(root)
    stop.clear()
    reports = Reports(stop, who, stop_at)
    link = RunLink("run", config.training.iterations, stop, reports)
    return train_run(config, root / "run", 1, link), reports


@pytest.fixture
def one(config: Path) -> RunConfig:
    return next(iter(all_runs(plan_settings(config, [], 1)).values()))


def test_a_run_of_a_sweep_is_the_ordinary_run_bit_by_bit_also_when_interrupted(one: RunConfig, tmp_path: Path) -> None:
    train(one, tmp_path / "plain", LocalExecutor)
    folder = tmp_path / "run"
    assert run_here(one, tmp_path, ALL, stop_at=1)[0] is None
    assert outcome_of(folder) is None
    assert read_records(folder / "metrics.jsonl")[-1]["iteration"] == 1
    outcome, reports = run_here(one, tmp_path)
    assert outcome == outcome_of(folder)
    assert left_by(folder, 3) == left_by(tmp_path / "plain", 3)
    assert {report["iteration"] for report in reports} == {2}  # the end is not judged
    assert (outcome["reason"], outcome["iteration"]) == ("done", 3)
    assert outcome["returns"][-1] == read_records(folder / "metrics.jsonl")[-1]["return/round1"]
    assert load_run(folder).checkpoint.iteration == 3
    assert has_ended(folder, one, may_stop_early=False)
    longer = one.model_copy(update={"training": one.training.model_copy(update={"iterations": 4})})
    assert not has_ended(folder, longer, may_stop_early=True)


def test_a_run_stopped_early_ends_where_it_is_judged_and_continues_where_nothing_is(
    one: RunConfig, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    outcome, _ = run_here(one, tmp_path, "run", stop_at=2)
    assert (outcome["reason"], outcome["iteration"]) == (STOPPED_EARLY, 2)
    assert has_ended(folder, one, may_stop_early=True)
    assert not has_ended(folder, one, may_stop_early=False)
    assert run_here(one, tmp_path, "another", stop_at=2)[0]["reason"] == "done"


def test_a_run_without_evaluations_is_evaluated_at_its_end(config: Path, one: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with_evaluations, _ = run_here(one, tmp_path / "other")
    quiet = plan_settings(config, ["training.evaluate_every=0"], 1)
    outcome, _ = run_here(quiet[0].runs["base-seed7"], tmp_path)
    assert outcome["returns"] == with_evaluations["returns"]
    (tmp_path / "run").rename(tmp_path / "base-seed7")
    (result,) = read_results(tmp_path, quiet)
    assert [(p.iteration, p.after) for p in result.runs[0].curve] == [(3, outcome["returns"][-1])]


def test_a_bug_in_a_run_is_its_outcome_and_its_traceback_is_kept(
    one: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metarl.distributed.sweep.trainable.train", lambda *_, **__: 1 / 0)
    outcome, _ = run_here(one, tmp_path)
    assert outcome["reason"] == "failed"
    assert outcome["error"] == f"ZeroDivisionError: division by zero (traceback: {tmp_path}/run/{OUTCOME})"
    assert "Traceback" in json.loads((tmp_path / "run" / OUTCOME).read_text())["traceback"]
    assert not has_ended(tmp_path / "run", one, may_stop_early=True)


def test_a_directory_that_this_machine_does_not_see_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"does not see .*elsewhere"):
        train_trial({"run": "x"}, {}, tmp_path / "elsewhere", 1, ("", ()))


def test_halving_stops_what_is_worse_where_it_is_judged_and_counts_evaluations_of_earlier_sittings(
    config: Path, tmp_path: Path
) -> None:
    arguments = ["training.iterations=9", "algorithm.inner_lr=0.1,0.2,0.3"]
    runs = all_runs(plan_settings(config, arguments, 1))
    earlier, worse, better = runs
    (tmp_path / earlier).mkdir()
    record = {"kind": "evaluation", "iteration": 1, "env_steps": 1, "return/round0": 0.0, "return/round1": 10.0}
    (tmp_path / earlier / "metrics.jsonl").write_text(json.dumps(record) + "\n")
    stop_file(tmp_path).clear()
    halving = Halving(tmp_path, runs)
    trials = {name: SimpleNamespace(trial_id=name, config={"run": name}) for name in runs}
    for trial in trials.values():
        halving.on_trial_add(None, trial)
    assert halving.on_trial_result(None, trials[worse], {"iteration": 1, "score": 0.0}) == "CONTINUE"  # until saved
    assert halving.on_trial_result(None, trials[better], {"iteration": 1, "score": 20.0}) == "CONTINUE"
    assert stop_file(tmp_path).read() == {worse: 15}
    halving.on_trial_result(None, trials[better], {"iteration": 2, "score": 0.0})  # between the cuts at 1 and 3
    assert better not in stop_file(tmp_path).read()
    halving.on_trial_result(None, trials[earlier], {"iteration": 3, "score": 30.0})
    halving.on_trial_result(None, trials[better], {"iteration": 3, "score": 0.0})
    assert stop_file(tmp_path).read() == {worse: 15, better: 15}


# --- results -----------------------------------------------------------------------------------------


def run_result(seed: int, score: float | None, status: str = "done", curve: tuple[float, ...] = ()) -> RunResult:
    points = tuple(Point(10 * i, 100 * i + seed, 0.0, value) for i, value in enumerate(curve))
    return RunResult(f"x-seed{seed}", seed, status, None, 10, None if score is None else 0.0, score, points)


def result_of(name: str, scores: list[float], status: str = "done") -> SettingResult:
    return SettingResult(name, {"key": name}, tuple(run_result(i, s, status) for i, s in enumerate(scores)))


def test_statistics_are_over_the_seeds_that_have_ended() -> None:
    runs = [run_result(0, 1.0), run_result(1, None, "failed"), run_result(2, None, "unfinished"), run_result(3, 3.0)]
    result = SettingResult("a", {}, tuple(runs))
    assert (result.scores, result.mean) == ({0: 1.0, 3: 3.0}, 2.0)
    # t(0.975, 1) = 12.706, s = sqrt(2), n = 2: half the interval is 12.706 * sqrt(2) / sqrt(2)
    assert result.ci95 == pytest.approx((2 - 12.706205, 2 + 12.706205), rel=1e-6)
    single, none = result_of("c", [5.0]), result_of("d", [])
    assert (single.mean, single.ci95) == (5.0, None)
    assert (none.mean, none.ci95) == (None, None)


def test_only_the_best_setting_is_judged_on_test_tasks_once_and_chosen_on_validation_tasks(
    config: Path, tmp_path: Path
) -> None:
    settings = plan_settings(config, ["algorithm.inner_lr=0.01,0.1"], 2)
    stop_file(tmp_path).clear()
    for name, run in all_runs(settings).items():
        folder = tmp_path / "sweep" / name
        outcome = train_run(run, folder, 1, RunLink(name, 3, stop_file(tmp_path), lambda report: None))
        assert outcome is not None
        watched = Evaluation.load(folder / "evaluations" / "validation-000003" / "evaluation.json")
        assert outcome["returns"][-1] == watched.rounds[-1].mean
    found = read_results(tmp_path / "sweep", settings)
    (best,) = (result for result in found if result.is_best)
    judged = judge_chosen(tmp_path / "sweep", found)
    assert judged is not None
    assert (judged.setting, sorted(judged.scores)) == (best.name, [7, 8])
    tested = sorted(path.parent.parent.name for path in tmp_path.glob("sweep/*/evaluations/test-000003"))
    assert tested == [f"{best.name}-seed7", f"{best.name}-seed8"]
    (of_first,) = tmp_path.glob(f"sweep/{best.name}-seed7/evaluations/test-*/evaluation.json")
    assert Evaluation.load(of_first).rounds[-1].mean == judged.scores[7]
    assert judged.mean == pytest.approx(np.mean(list(judged.scores.values())))
    written = of_first.stat().st_mtime_ns
    assert judge_chosen(tmp_path / "sweep", found) == judged
    assert of_first.stat().st_mtime_ns == written
    assert judge_chosen(tmp_path, [result_of("a", []), result_of("b", [])]) is None


def test_the_best_was_trained_to_its_end_and_rivals_are_compared_seed_by_seed() -> None:
    base = [0.0, 10.0, 20.0, 30.0]  # seeds differ far more than settings do
    marked = compare(
        [
            result_of("best", [s + 2.0 for s in base]),
            result_of("always one less", [s + 1.0 for s in base]),
            result_of("now this, now that", [s + 2.0 + d for s, d in zip(base, (3.0, -4.0, 2.0, -3.0), strict=True)]),
            result_of("stopped", [100.0], STOPPED_EARLY),
            result_of("nothing", []),
        ]
    )
    assert [r.name for r in marked if r.is_best] == ["best"]
    assert [r.name for r in marked if r.is_rival] == ["now this, now that", "stopped"]
    assert not any(r.is_best for r in compare([result_of("alone", [1.0])]))


@pytest.mark.parametrize("num_seeds", [2, 3, 5, 10])
def test_among_equal_settings_hardly_any_sweep_calls_one_better(num_seeds: int) -> None:
    """Fewer than 3 % of the sweeps make any such claim, although the best is chosen by the same scores."""
    rng = np.random.default_rng(num_seeds)
    for num_settings in (2, 5):
        scores = rng.normal(size=(2000, num_settings, num_seeds)) + 3 * rng.normal(size=(2000, 1, num_seeds))
        num_claims = 0
        for sweep in scores:
            marked = compare([result_of(str(i), values.tolist()) for i, values in enumerate(sweep)])
            num_claims += any(not r.is_best and not r.is_rival for r in marked)
        assert num_claims < 0.03 * len(scores)


def test_a_clear_difference_is_told_with_five_seeds() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=5) + np.array([[0.0], [5.0], [10.0]]) + rng.normal(scale=0.3, size=(3, 5))
    marked = compare([result_of(str(i), values.tolist()) for i, values in enumerate(scores)])
    assert [(r.is_best, r.is_rival) for r in marked] == [(False, False), (False, False), (True, False)]


def test_the_mean_curve_ends_where_the_first_run_does() -> None:
    runs = [run_result(0, 3.0, curve=(1.0, 2.0, 3.0)), run_result(1, 4.0, STOPPED_EARLY, curve=(3.0, 4.0))]
    rows = common_curve([*runs, run_result(2, None, "failed", curve=(50.0,)), run_result(3, None, "not started")])
    assert [(steps, value) for steps, value, _ in rows] == [(0.5, 2.0), (100.5, 3.0)]
    assert rows[0][2] == pytest.approx((2 - 12.706205, 2 + 12.706205), rel=1e-6)
    assert common_curve([]) == []


def test_table_json_and_picture_name_what_happened(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    results = []
    for number in range(10):
        curves = rng.normal(number, 1.0, size=(4, 3))
        runs = [run_result(i, float(c[-1]), curve=tuple(map(float, c))) for i, c in enumerate(curves)]
        results.append(SettingResult(f"lr={number}", {"algorithm.lr": number}, tuple(runs)))
    stopped = [run_result(0, 1.0, STOPPED_EARLY, (0.0, 1.0)), run_result(1, None, "failed"), run_result(2, 9.5)]
    results.append(SettingResult("mixed", {}, tuple(stopped)))
    results = compare(results)
    save_figure(results, "small", tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").stat().st_size > 10_000
    labels = [text.get_text() for text in sweep_figure(results, "small").legends[0].get_texts()]
    assert len(labels) == 8
    assert "the other settings" in labels
    assert any(label.endswith("(best)") for label in labels)
    write_summary(tmp_path, {"seeds": (0, 1)}, results)
    content = json.loads((tmp_path / SUMMARY).read_text())
    assert [s["name"] for s in content["settings"] if s["is_best"]] == ["lr=9"]
    assert [run["status"] for run in content["settings"][-1]["runs"]] == [STOPPED_EARLY, "failed", "done"]
    assert content["settings"][0]["runs"][0]["curve"][1] == {
        "iteration": 10,
        "env_steps": 100,
        "before": 0.0,
        "after": results[0].runs[0].curve[1].after,
    }
    cells = [str(cell) for column in sweep_table(results, "small").columns for cell in column.cells]
    assert "best" in cells
    assert "1 stopped early, at iteration 10, 1 failed" in cells
