"""Which tasks are looked at when: validation in training, test by `metarl evaluate`; and runs of earlier versions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from metarl.config import load_config, load_stored_config
from metarl.errors import ConfigError, TaskError
from metarl.evaluation.evaluate import Evaluation
from metarl.rollout.local import LocalExecutor
from metarl.runs.build import load_run
from metarl.runs.directory import as_begun
from metarl.runs.evaluation import final_evaluation
from metarl.runs.records import METRICS, read_records
from metarl.training.loop import train
from tests.field.conftest import command

WATCHED = ("train", "small.yaml", "training.iterations=6", "training.evaluate_every=2", "--resume")
CHOSEN_BY = "Training was watched on"


def begun_earlier(run: Path) -> None:
    """Make the run one of a version without a validation split: its configuration says nothing of it."""
    lines = (run / "config.yaml").read_text().splitlines(keepends=True)
    kept = "".join(line for line in lines if "hold_out_validation" not in line)
    assert "split: validation" in kept
    (run / "config.yaml").write_text(kept.replace("split: validation", "split: test"))


def judge(run: Path, *options: str) -> tuple[Evaluation, str]:
    result = command("evaluate", str(run), "--local", *options, "--tasks", "8", "--out", "out")
    assert result.exit_code == 0, result.output
    return Evaluation.load(Path("out/evaluation.json")), result.stderr


def test_training_looks_at_validation_tasks_and_evaluate_at_test_tasks(run: Path) -> None:
    config = load_config("small.yaml", ["training.iterations=2", "training.evaluate_every=1", "executor.backend=local"])
    train(config, Path("watched"), LocalExecutor)
    records = [r for r in read_records(Path("watched") / METRICS) if r["kind"] == "evaluation"]
    assert [record["split"] for record in records] == ["validation"] * 3
    assert sorted(path.name for path in Path("watched/evaluations").iterdir()) == [
        f"validation-{iteration:06d}" for iteration in range(3)
    ]
    distribution = load_run(run).distribution
    for split, options in (("test", ()), ("validation", ("--split", "validation"))):
        judged, said = judge(Path("watched"), *options)
        assert judged.split == split
        assert {distribution.split_of(distribution.task(**score.task)) for score in judged.per_task} == {(split,)}
        assert (CHOSEN_BY in said) == (split == "validation")
    assert CHOSEN_BY not in judge(run, "--split", "validation")[1]  # it made no evaluations


def test_a_run_of_an_earlier_version_is_judged_as_ever_and_says_what_it_was_watched_on(run: Path) -> None:
    today, said = judge(run)
    assert CHOSEN_BY not in said
    begun_earlier(run)
    (run / "config.yaml").write_text(
        (run / "config.yaml").read_text().replace("evaluate_every: 0", "evaluate_every: 1")
    )
    earlier, said = judge(run)
    assert earlier == today
    assert "Training was watched on test tasks: what was chosen by them looks better here than it is." in said


def test_a_run_of_an_earlier_version_has_no_validation_tasks_and_its_training_tasks_are_those_of_then(
    run: Path,
) -> None:
    today = load_run(run)
    begun_earlier(run)
    result = command("evaluate", "runs/small", "--split", "validation")
    assert result.exit_code == 2
    assert "validation tasks are not held out from training" in result.stderr
    then = load_run(run)
    trained_on = [task for i in range(40) for task in then.algorithm.tasks(then.distribution, 0, i)]
    assert {then.distribution.split_of(task) for task in trained_on} == {("train",)}
    assert {today.distribution.split_of(task) for task in trained_on} == {("train",), ("validation",)}
    trained_on_today = [task for i in range(40) for task in today.algorithm.tasks(today.distribution, 0, i)]
    assert {today.distribution.split_of(task) for task in trained_on_today} == {("train",)}


def test_a_run_of_an_earlier_version_goes_on_as_it_began(run: Path) -> None:
    begun_earlier(run)
    (run / "config.yaml").write_text(
        (run / "config.yaml").read_text().replace("evaluate_every: 0", "evaluate_every: 2")
    )
    result = command(*WATCHED)
    assert result.exit_code == 0, result.output
    config = load_stored_config(run / "config.yaml")
    assert (config.evaluation.split, config.task_distribution.hold_out_validation) == ("test", False)
    last = read_records(run / METRICS)[-1]
    assert (last["kind"], last["iteration"], last["split"]) == ("evaluation", 6, "test")
    assert final_evaluation(run, load_config("small.yaml"), 6, LocalExecutor).split == "test"


def test_a_run_of_today_takes_nothing_from_those_of_then(run: Path) -> None:
    config = load_config("small.yaml")
    assert as_begun(config, run) is config
    assert as_begun(config, Path("nothing-here")) is config


def test_the_split_that_training_is_watched_on_is_not_chosen_at_an_evaluation(run: Path) -> None:
    result = command("evaluate", "runs/small", "evaluation.split=ood")
    assert result.exit_code == 2
    assert "choose what is judged with --split" in result.stderr


def test_test_tasks_are_refused_as_those_that_training_is_watched_on(run: Path) -> None:
    with pytest.raises(ConfigError, match="'test' is for `metarl evaluate` alone"):
        load_config("small.yaml", ["evaluation.split=test"])
    schema = command("config", "schema")
    allowed = json.loads(schema.stdout)["$defs"]["EvaluationConfig"]["properties"]["split"]
    assert allowed["enum"] == ["validation", "ood"]


def test_without_held_out_validation_tasks_there_is_nothing_to_watch_but_ood(run: Path) -> None:
    config = load_config("small.yaml", ["task_distribution.hold_out_validation=false", "training.evaluate_every=1"])
    with pytest.raises(TaskError, match="not held out"):
        train(config, Path("other"), LocalExecutor)
