"""Evaluations: where results go, which tasks and checkpoint are judged, and errors before anything is computed."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any, NoReturn

import pytest

from metarl.cli.task_values import split_at_commas
from metarl.evaluation.evaluate import Evaluation
from metarl.runs import evaluation
from tests.field.conftest import command

EVALUATE = ("evaluate", "runs/small")


def folders(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "evaluations").iterdir())


def found_in(folder: Path) -> dict[str, Any]:
    content = json.loads((folder / "evaluation.json").read_text())
    assert isinstance(content, dict)
    return content


def test_evaluations_that_differ_stand_beside_each_other(run: Path) -> None:
    """`--seed 2` once replaced the results of `--seed 1`."""
    for text in ("", "--seed 1", "--seed 2", "--tasks 2", "evaluation.num_tasks=2", "--tasks 3"):
        result = command(*EVALUATE, *text.split())
        assert result.exit_code == 0, result.output
    assert folders(run) == [
        "test-000004",  # 3 tasks are what the run evaluates on anyway
        "test-000004-evaluation.num_tasks=2",
        "test-000004-seed=1",
        "test-000004-seed=2",
    ]


def test_many_overrides_make_no_name_that_file_systems_refuse(run: Path) -> None:
    texts = [f"task_distribution.options.horizon={n}" for n in range(2, 6)]
    long = [f"algorithm.hidden=[{', '.join(['8'] * 90)}]", "algorithm.outer_lr=0.25", "evaluation.num_tasks=2"]
    result = command(*EVALUATE, *texts, *long, "seed=77")
    assert result.exit_code == 0, result.output
    (name,) = folders(run)
    assert len(name.encode()) < 140
    assert name.startswith("test-000004-seed=77-algorithm.")
    other = command(*EVALUATE, *texts, *long, "seed=78")
    assert other.exit_code == 0, other.output
    assert len(folders(run)) == 2


@pytest.mark.parametrize("out", ["small.yaml/results", "small.yaml", "/proc/results"])
def test_a_place_that_cannot_be_written_is_named_before_anything_is_computed(
    run: Path, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def computed(*arguments: object) -> NoReturn:
        pytest.fail("computed first")

    monkeypatch.setattr(evaluation, "evaluate_run", computed)
    result = command(*EVALUATE, "--out", out)
    assert result.exit_code == 2
    assert f"cannot write into {out}" in result.stderr
    assert "--out" in result.stderr


def test_the_table_is_shown_where_writing_fails(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full when hours of evaluating are over."""

    def full(self: Evaluation, path: Path) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Evaluation, "write", full)
    monkeypatch.setenv("COLUMNS", "120")
    result = command(*EVALUATE)
    assert result.exit_code == 1
    assert "round 1 (after adaptation)" in result.stdout
    assert "evaluation.json" in result.stderr
    assert folders(run) == [], "no empty folder is left"


def test_chosen_tasks_are_judged(run: Path) -> None:
    result = command(*EVALUATE, "--task", "goal=[0.3, 0.4]", "--task", "goal=[-0.1,0.2]", "--out", "chosen")
    assert result.exit_code == 0, result.output
    found = found_in(Path("chosen"))
    assert [task["task"]["goal"] for task in found["per_task"]] == [[-0.1, 0.2], [0.3, 0.4]]
    assert any("chosen, not drawn" in note for note in found["notes"])


def test_several_parameters_of_a_task_are_separated_by_commas_outside_brackets() -> None:
    assert split_at_commas("mass=1.5, goal=[0.3, 0.4],gain=2") == ["mass=1.5", "goal=[0.3, 0.4]", "gain=2"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--task", "goal=[9, 9]"], "lies outside"),
        (["--task", "gaol=[0, 0]"], "['goal'], got ['gaol']"),
        (["--task", "goal"], "expected name=value,..., for example goal=..."),
        (["--task", "goal=far"], "goal = 'far': allowed is a number or a list of numbers"),
        (["--task", "goal=true"], "goal = True: allowed is a number"),
        (["--task", "goal=[0, x]"], "goal"),
        (["--task", "goal=[0, 0]", "--tasks", "3"], "--task and --tasks exclude each other"),
        (["--task", "goal=[0, 0]", "--split", "ood"], "--task and --split exclude each other"),
        (["--checkpoint", "3"], "no checkpoint of iteration 3 in runs/small/checkpoints; there are: 2, 4"),
        (["--rounds", "2", "--support", "3"], "evaluation.rounds = 2 and evaluation.support_episodes = 3"),
    ],
)
def test_what_cannot_be_judged_is_named(run: Path, options: list[str], says: str) -> None:
    result = command(*EVALUATE, *options)
    assert result.exit_code == 2, result.output
    assert says in result.stderr
    assert not (run / "evaluations").exists()


def test_an_older_checkpoint_is_judged_where_it_is_asked_for(run: Path) -> None:
    result = command(*EVALUATE, "--checkpoint", "2", "--support", "2", "--episodes", "3")
    assert result.exit_code == 0, result.output
    (name,) = folders(run)
    found = found_in(run / "evaluations" / name)
    assert name.startswith("test-000002-")
    assert (found["iteration"], found["episodes_per_round"], len(found["rounds"])) == (2, 3, 3)
    assert (run / "checkpoints" / "000004").is_dir()
