"""What a PEARL run infers: beliefs of policies made by hand, their width, and the script end to end."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from metarl.algorithms.pearl.config import PEARLConfig

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))

import pearl_latents
from pearl_beliefs import analyse, beliefs_of_run, first_steps, follow
from pearl_latents_figure import MAX_PANELS, colours_of, figure_of, plane

from metarl.algorithms.base import EvaluationSettings
from metarl.algorithms.pearl import PEARL
from metarl.algorithms.pearl.config import PermutationInvariant, Recurrent
from metarl.config import load_config
from metarl.evaluation.probe import probe
from metarl.rollout.local import LocalExecutor
from metarl.rollout.spaces import Spaces
from metarl.rollout.types import Round, Unit
from metarl.runs.build import TrainedRun, load_run
from metarl.tasks import LogUniform, Parameter, Task
from metarl.training.loop import train

CONTEXT = 6
YAML = """
seed: 3
task_distribution: {name: PointGoal, options: {horizon: 8}}
algorithm:
  name: pearl
  num_train_tasks: 4
  tasks_per_iteration: 2
  num_streams: 2
  initial_episodes: 2
  gradient_steps: 2
  batch_size: 8
  context_size: 6
  context_capacity: 50
  replay_capacity: 100
  latent_dim: 3
  hidden_dim: 8
  encoder: {name: permutation_invariant, hidden_dim: 8}
training: {iterations: 2, evaluate_every: 0, tasks_per_unit: 7}
executor: {backend: local}
device: cpu
"""


def trained_run(folder: Path, *changes: tuple[str, str]) -> Path:
    text = YAML
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / "config.yaml").write_text(text)
    train(load_config(folder / "config.yaml"), folder / "run", LocalExecutor)
    return folder / "run"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return trained_run(tmp_path_factory.mktemp("pearl"))


@pytest.fixture(scope="module")
def told_run(tmp_path_factory):
    """Observations hold the goal: o = (x, y, goal_x, goal_y)."""
    folder = tmp_path_factory.mktemp("told")
    return trained_run(folder, ("horizon: 8}}", "horizon: 8}, reveal_task: true}"), ("iterations: 2", "iterations: 1"))


def reading_the_goal(run: Path, *overrides: str) -> TrainedRun:
    """Its factors are N(mu, log 2 + 1e-7) with mu = (goal_x, goal_y, 0): relu(g) - relu(-g) through three layers."""
    trained = load_run(run, overrides)
    params = trained.algorithm.params  # type: ignore[attr-defined]
    with torch.no_grad():
        for name, value in params.items():
            if name.startswith("encoder."):
                value.zero_()
        for axis in (0, 1):
            for unit, sign in ((2 * axis, 1.0), (2 * axis + 1, -1.0)):
                params["encoder.w0"][2 + axis, unit] = sign
                params["encoder.w1"][unit, unit] = params["encoder.w2"][unit, unit] = 1.0
                params["encoder.w3"][unit, axis] = sign
    return trained


# --- beliefs -----------------------------------------------------------------------------------------


def test_a_belief_that_is_linear_in_the_task_is_probed_with_r2_of_one(told_run):
    latents = analyse(reading_the_goal(told_run), "r", 12, seed=0)
    (goal,) = latents.scores
    assert goal.score.r2 == pytest.approx(1.0, abs=1e-6)
    assert goal.score.ci95 == pytest.approx((1.0, 1.0), abs=1e-6)
    assert list(goal.columns) == ["goal[0]", "goal[1]"]
    assert any("told the task" in note for note in latents.notes)


def test_a_belief_of_another_task_holds_nothing_of_this_one(told_run):
    trained = reading_the_goal(told_run, "evaluation.context=shuffled")
    (goal,) = analyse(trained, "r", 42, seed=0, overrides=["evaluation.context=shuffled"]).scores
    assert goal.score.r2 is not None
    assert goal.score.r2 < 0.1


def test_a_belief_that_stays_the_prior_holds_nothing_and_stays_as_wide(told_run):
    latents = analyse(reading_the_goal(told_run, "evaluation.context=blank"), "r", 10, seed=0)
    assert {w.mean for w in latents.widths} == {1.0}
    (goal,) = latents.scores
    assert goal.score.r2 is not None
    assert -1 < goal.score.r2 <= 0


def test_the_width_is_that_of_the_product_of_gaussians(told_run):
    """1 / std^2 = 1 + n / v for n transitions, of which no more than `context_size` count; v = softplus(0) + 1e-7."""
    widths = analyse(reading_the_goal(told_run), "r", 5, seed=0).widths
    assert [w.transitions for w in widths] == [1, 2, 5, 10, 16]
    for width in widths:
        expected = 1 / math.sqrt(1 + min(width.transitions, CONTEXT) / (math.log(2) + 1e-7))
        for value in (width.mean, width.p10, width.p90, *width.per_latent):
            assert value == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("encoder", [PermutationInvariant(hidden_dim=8), Recurrent(hidden_dim=8)])
def test_the_last_belief_is_the_one_that_the_policy_logged_and_acts_on(run, encoder):
    trained = load_run(run)
    assert isinstance(trained.config.algorithm, PEARLConfig)
    config = trained.config.algorithm.model_copy(update={"encoder": encoder})
    algorithm = PEARL(config, Spaces(2, 2), torch.device("cpu"), 0)
    tasks = trained.distribution.sample("test", 3, 0)
    plan = algorithm.evaluation_plan(trained.distribution.horizon, EvaluationSettings())
    unit = Unit(0, tasks, plan, (0,))
    (trial,) = LocalExecutor(trained.distribution, algorithm.policy).collect([unit], algorithm.weights(), 0)
    seen, mean, std = follow(algorithm.policy, algorithm.weights(), trial, plan)
    logged = trial.rounds[-2].derived
    assert (seen[-1] == 16).all()
    assert mean.shape == (5, 3, 2, 3)
    np.testing.assert_array_equal(mean[-1], logged["belief_mean"])
    np.testing.assert_array_equal(std[-1], np.sqrt(logged["belief_var"]))
    assert len(np.unique(mean[:, 0, 0, 0])) == 5  # and every other number of transitions gave another one


def test_a_round_cut_short_keeps_its_first_steps_and_what_followed_each():
    o = np.arange(1.0, 9.0, dtype=np.float32).reshape(1, 2, 4, 1)
    o[0, 1, 1:] = 0  # the second stream terminated after a step
    flags = np.array([[False, True]])
    last = np.array([[[50.0], [60.0]]], np.float32)
    whole = Round(o, o, o[..., 0], np.array([[4, 1]]), flags, ~flags, last, extras={}, derived={})
    cut = first_steps(whole, 2)
    assert cut.lengths.tolist() == [[2, 1]]
    assert cut.next_observations[0, 0, :, 0].tolist() == [2, 3]
    assert cut.next_observations[0, 1, 0, 0] == 60
    assert (cut.terminated.tolist(), cut.truncated.tolist()) == ([[False, True]], [[True, False]])
    assert cut.mask.sum() == 3


# --- picture -----------------------------------------------------------------------------------------


def drawn(parameter: Parameter, number: int = 60, seed: int = 0) -> tuple[Task, ...]:
    rng = np.random.Generator(np.random.Philox(seed))
    return tuple(Task.of("T", {parameter.name: parameter.prior.sample(rng)}) for _ in range(number))


def test_more_than_two_latents_are_shown_in_their_two_principal_components():
    t = np.linspace(-1, 1, 50)
    z = np.stack((0 * t, 3 * t, np.cos(7 * t)), axis=1)
    points, labels = plane(z)
    variances = points.var(axis=0)
    assert variances[0] > variances[1] > 0
    assert variances.sum() == pytest.approx(z.var(axis=0).sum())
    assert "component 1" in labels[0]
    assert plane(z[:, :2])[0] is not points
    np.testing.assert_array_equal(plane(z[:, 1:])[0], z[:, 1:])
    np.testing.assert_array_equal(plane(z[:, 1:2])[0][:, 0], z[:, 1])


def test_of_many_components_the_picture_shows_the_best_held_and_says_how_many_it_leaves_out(run):
    latents = analyse(load_run(run), "r", 6, seed=0)
    many = Parameter("mass", LogUniform(0.5, 2.0, MAX_PANELS + 3), "x")
    tasks = drawn(many, 6)
    beliefs = replace(latents.beliefs, tasks=tasks)
    scores = probe((many,), beliefs.final, beliefs.final, 0, by_task=False)
    family = type("Family", (), {"name": "Many", "parameters": (many,)})()
    figure = figure_of(replace(latents, beliefs=beliefs, scores=scores, distribution=family))
    titles = [axes.get_title("left") for axes in figure.axes]
    assert sum("linear probe" in title for title in titles) == MAX_PANELS
    assert "3 more components" in figure.get_supxlabel()


def test_only_angles_all_round_have_colours_that_go_round():
    around, half = np.linspace(0.1, 6.1, 9), np.linspace(0.0, math.pi, 9)
    assert colours_of(around, True, False)[0] == "twilight"
    assert colours_of(half, True, False)[0] == colours_of(around, False, False)[0] == "viridis"


# --- the script --------------------------------------------------------------------------------------


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["pearl_latents.py", *arguments])
    pearl_latents.main()


def test_the_script_writes_the_numbers_and_the_picture_of_a_run(run, tmp_path, monkeypatch, capsys):
    call(monkeypatch, str(run), "--tasks", "5", "--out", str(tmp_path / "out"))
    document = json.loads((tmp_path / "out" / "latents.json").read_text())
    assert (document["iteration"], document["num_tasks"], document["splits_coincide"]) == (2, 5, False)
    assert document["env_steps"] == 2 * 5 * 2 * 3 * 8  # splits, tasks, streams, rounds, steps
    held_out = [np.ravel(task["goal"]).tolist() for task in load_run(run).distribution.sample("test", 5, (3, 1, 1))]
    assert [entry["task"]["goal"] for entry in document["tasks"]] == held_out
    assert np.shape([entry["mean"] for entry in document["tasks"]]) == (5, 2, 3)
    assert document["r2"][0]["score"]["r2"] < 1
    widths = [entry["mean"] for entry in document["width"]]
    assert 1 > widths[0] > widths[1] > widths[2] > 0
    assert (tmp_path / "out" / "latents.png").read_bytes().startswith(b"\x89PNG")
    assert "R2" in capsys.readouterr().out


def test_overrides_go_into_the_folders_name_and_the_notes(run, monkeypatch):
    call(monkeypatch, str(run), "evaluation.support_episodes=1", "--tasks", "3")
    folder = run / "evaluations" / "latents-000002-evaluation.support_episodes=1"
    document = json.loads((folder / "latents.json").read_text())
    assert document["width"][-1]["transitions"] == 8
    assert any("support_episodes=1" in note for note in document["notes"])


def test_a_two_task_family_is_probed_on_other_trials_of_its_tasks_and_says_so(tmp_path, monkeypatch, capsys):
    changes = (
        ("{name: PointGoal, options: {horizon: 8}}", "{name: HalfCheetahDir, options: {horizon: 4}}"),
        ("iterations: 2", "iterations: 1"),
        ("latent_dim: 3", "latent_dim: 1\n  contrastive: {weight: 1.0}"),
        ("name: permutation_invariant", "name: recurrent"),
    )
    run = trained_run(tmp_path, *changes)
    call(monkeypatch, str(run), "--tasks", "6")
    document = json.loads((run / "evaluations" / "latents-000001" / "latents.json").read_text())
    assert document["splits_coincide"]
    assert any("coincide" in note for note in document["notes"])
    assert "coincide" in capsys.readouterr().out
    (direction,) = document["r2"]
    assert direction["score"]["r2"] is not None
    train_trials, test_trials = (beliefs_of_run(load_run(run), split, 6, 3) for split in ("train", "test"))
    assert set(train_trials.tasks) == set(test_trials.tasks)
    assert not np.array_equal(np.sort(train_trials.mean[-1].ravel()), np.sort(test_trials.mean[-1].ravel()))


def test_what_is_no_pearl_run_is_refused_with_exit_code_2(tmp_path, monkeypatch, capsys):
    head, _, rest = YAML.partition("algorithm:")
    other = (
        head
        + "algorithm: {name: maml, tasks_per_iteration: 2, num_streams: 2, hidden: [4]}\ntraining"
        + (rest.partition("training")[2].replace("iterations: 2", "iterations: 1"))
    )
    (tmp_path / "config.yaml").write_text(other)
    train(load_config(tmp_path / "config.yaml"), tmp_path / "run", LocalExecutor)
    cases = (
        ((str(tmp_path / "run"),), "the run's algorithm is maml, which infers no latent; allowed: pearl"),
        ((str(tmp_path / "nothing"),), "is not a run directory"),
        ((str(tmp_path / "run"), "--tasks", "1"), "--tasks must be at least 2"),
    )
    for arguments, message in cases:
        with pytest.raises(SystemExit) as exit_:
            call(monkeypatch, *arguments)
        assert exit_.value.code == 2
        assert message in capsys.readouterr().err
