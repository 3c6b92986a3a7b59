"""Evaluations on chosen values say how long these hold where a parameter is redrawn in mid-episode."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from metarl.cli.app import app
from metarl.evaluation.grid import Grid
from metarl.tasks import RevealedTask, TaskDistribution, load_distribution
from metarl.tasks.changes import redraw_notes
from metarl.tasks.variation import GymVariation, MujocoVariation

NOTE = "grip is redrawn in mid-episode, from its training range: a value chosen here holds until the first redraw."
RUN = """
task_distribution:
  name: GymVariation
  options:
    env: CartPole-v1
    horizon: 5
    parameters:
      grip: {attribute: force_mag, prior: {uniform: [8.0, 12.0]}, redraw: 0.2}
      length: {attribute: length, prior: {uniform: [0.4, 0.6]}}
algorithm: {name: rl2, tasks_per_iteration: 2, num_streams: 2}
training: {iterations: 1, evaluate_every: 0}
"""


def friction(**entry: object) -> MujocoVariation:
    return MujocoVariation(
        "Hopper-v5", vary={"grip": {"field": "geom_friction[*]", "prior": {"uniform": [0.5, 1.5]}, **entry}}
    )


def test_a_redrawn_field_attribute_and_effect_are_named() -> None:
    assert redraw_notes(friction(redraw=0.1)) == (NOTE,)
    gym = {"attribute": "length", "prior": {"uniform": [0.4, 0.6]}, "redraw": 0.1}
    bias = {"prior": {"uniform": [0.0, 0.1]}, "redraw": 0.1}
    notes = redraw_notes(GymVariation("CartPole-v1", {"grip": gym}, effects={"encoder_bias": bias}))
    assert notes == (NOTE, NOTE.replace("grip", "encoder_bias"))


def test_a_revealed_task_has_the_notes_of_its_own_distribution() -> None:
    assert redraw_notes(RevealedTask(friction(redraw=0.1))) == (NOTE,)


def test_a_value_of_another_range_is_redrawn_from_that() -> None:
    (note,) = redraw_notes(friction(redraw=0.1, ood={"uniform": [1.5, 2.0]}))
    assert "from its training range (from its ood range where the value lies in that alone): a value" in note


@pytest.mark.parametrize("family", [friction(), friction(at_step=3), load_distribution("PointGoal")])
def test_nothing_is_said_where_nothing_is_redrawn(family: TaskDistribution) -> None:
    assert redraw_notes(family) == ()


def test_evaluate_says_it_of_chosen_values_alone(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(RUN)

    def command(*arguments: str) -> str:
        done = CliRunner().invoke(app, [*arguments, "--local"])
        assert done.exit_code == 0, done.output
        return " ".join(done.output.split())

    run = str(tmp_path / "run")
    command("train", str(tmp_path / "run.yaml"), "--run-dir", run)
    out = tmp_path / "out"
    assert NOTE in command("evaluate", run, "--vary", "grip=20:40:2", "--episodes", "1", "--out", str(out))
    assert Grid.load(out / "grid.json").notes == (NOTE,)
    for task, is_said in ((["--task", "grip=9,length=0.5"], True), (["--tasks", "1"], False)):
        shown = command("evaluate", run, *task, "--episodes", "1", "--out", str(out))
        notes = json.loads((out / "evaluation.json").read_text())["notes"]
        assert (NOTE in shown, NOTE in notes) == (is_said, is_said)
