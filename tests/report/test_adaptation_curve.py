"""Pictures: the files are images of a sane size, and the axes carry what a reader must know."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from metarl.errors import MetarlError
from metarl.evaluation.evaluate import Evaluation, summarise
from metarl.report.adaptation_curve import (
    adaptation_figure,
    learning_figure,
    plot_adaptation,
    plot_learning_curve,
)
from metarl.report.metrics import read_run
from metarl.rollout.types import RoundPlan, TrialPlan
from metarl.tasks import Choice, InDisc, Parameter
from tests.guess import PLAN, Guess, GuessPair, tasks_of

RETURN = "return per episode, undiscounted"


class Disc(Guess):
    name = "Disc"
    parameters = (Parameter("goal", InDisc(1.0)),)


def evaluated(distribution: Guess, goals: Sequence, num_rounds: int = 2, split: str = "test") -> Evaluation:
    plan = TrialPlan(PLAN.num_streams, PLAN.horizon, (RoundPlan("support"),) * num_rounds)
    returns = np.random.default_rng(0).normal(-1.0, 0.2, size=(num_rounds, len(goals), plan.num_streams))
    returns += np.linspace(0.0, 0.5, num_rounds)[:, None, None]
    tasks = tasks_of(distribution, goals)
    return summarise(distribution, plan, split, tasks, returns, env_steps=0, seed=0)  # type: ignore[arg-type]


def texts(figure: Figure) -> str:
    axes = figure.axes[0]
    found = [text.get_text() for text in axes.texts] + [axes.get_title(loc="left")]
    found += [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    return "\n".join(found)


def assert_is_png(path: Path) -> None:
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = (int.from_bytes(data[i : i + 4], "big") for i in (16, 20))
    assert 800 <= width <= 2000
    assert 500 <= height <= 1500
    assert 10_000 < len(data) < 1_000_000


# --- return against round ----------------------------------------------------------------------------


@pytest.mark.parametrize("num_rounds", [1, 2, 4])
@pytest.mark.parametrize("family", ["many", "pair", "disc"])
def test_adaptation_plot_is_an_image(family: str, num_rounds: int, tmp_path: Path) -> None:
    evaluation = {
        "many": lambda: evaluated(Guess(), tuple(np.linspace(-0.5, 0.5, 12)), num_rounds),
        "pair": lambda: evaluated(GuessPair(), (-0.5, 0.5), num_rounds),
        "disc": lambda: evaluated(Disc(), tuple((x, 0.1) for x in np.linspace(-0.5, 0.5, 12)), num_rounds),
    }[family]()
    plot_adaptation(evaluation, tmp_path / "sub" / "adaptation.png")
    assert_is_png(tmp_path / "sub" / "adaptation.png")


def test_axes_say_round_and_return_and_the_title_what_was_measured() -> None:
    figure = adaptation_figure(evaluated(Guess(), tuple(np.linspace(-0.5, 0.5, 12))))
    axes = figure.axes[0]
    assert axes.get_ylabel() == RETURN
    assert axes.get_xlabel().startswith("round")
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0\nbefore adaptation", "1\nafter adaptation"]
    assert "Guess v1, test split: 12 tasks, 4 episodes per task and round" in axes.get_title(loc="left")
    assert "95 % interval of the mean" in texts(figure)
    assert "mean over tasks" in texts(figure)


def test_many_scalar_tasks_get_a_colour_bar_and_few_get_names() -> None:
    many = adaptation_figure(evaluated(Guess(), tuple(np.linspace(-0.5, 0.5, 12))))
    assert [axes.get_ylabel() for axes in many.axes] == [RETURN, "task parameter goal"]
    few = adaptation_figure(evaluated(GuessPair(), (-0.5, 0.5)))
    assert len(few.axes) == 1
    assert "goal=-0.5" in texts(few)
    assert "goal=0.5" in texts(few)
    plane = adaptation_figure(evaluated(Disc(), tuple((x, 0.1) for x in np.linspace(-0.5, 0.5, 12))))
    assert len(plane.axes) == 1
    assert "each of 12 tasks" in texts(plane)


def test_reference_returns_are_dashed_lines_with_names_and_equal_ones_share_a_place() -> None:
    figure = adaptation_figure(evaluated(Guess(), tuple(np.linspace(-0.5, 0.5, 12))))
    dashed = [line for line in figure.axes[0].lines if line.get_linestyle() == "--"]
    heights = sorted(float(np.asarray(line.get_ydata())[0]) for line in dashed)
    assert heights == [-0.75, -0.75, 0.0]
    names = [text.get_text() for text in figure.axes[0].texts]
    assert names == ["zero actions  −0.75\nbest non-adaptive policy  −0.75", "expert that knows the task  0"]


def test_reference_returns_outside_their_range_are_marked_as_the_training_ranges() -> None:
    figure = adaptation_figure(evaluated(Guess(), tuple(np.linspace(0.6, 0.9, 12)), split="ood"))
    assert "expert that knows the task in the training range" in texts(figure)


def test_the_mean_line_holds_the_means() -> None:
    evaluation = evaluated(Guess(), tuple(np.linspace(-0.5, 0.5, 12)))
    (line,) = (line for line in adaptation_figure(evaluation).axes[0].lines if line.get_label() == "mean over tasks")
    np.testing.assert_array_equal(line.get_ydata(), [score.mean for score in evaluation.rounds])


def test_eight_tasks_with_long_names_are_cut_to_fit() -> None:
    class Long(Guess):
        name = "Long"
        parameters = (Parameter("goal", Choice(tuple((float(i),) * 9 for i in range(8)))),)

    figure = adaptation_figure(evaluated(Long(), tuple((float(i),) * 9 for i in range(8))))
    assert max(len(line) for line in texts(figure).split("\n")[2:] if line.startswith("goal")) <= 44


def test_drawing_leaves_pyplot_alone(tmp_path: Path) -> None:
    loaded = "matplotlib.pyplot" in sys.modules
    plot_adaptation(evaluated(GuessPair(), (-0.5, 0.5)), tmp_path / "a.png")
    assert ("matplotlib.pyplot" in sys.modules) == loaded


# --- return against training steps -------------------------------------------------------------------


def write_metrics(folder: Path, iterations: int = 6, evaluations: Sequence[str] = ("test", "ood")) -> Path:
    records: list[dict[str, object]] = []
    for i in range(iterations):
        common = {"iteration": i, "env_steps": 1000 * (i + 1), "wall_s": 2.0 * i}
        records.append({**common, "kind": "train", "return/round0": -3.0, "return/round1": -3.0 + 0.1 * i, "loss": 1.0})
        for split in evaluations if i % 2 else ():
            rounds = {"return/round0": -4.0, "return/round1": -4.0 + 0.1 * i, "gain": 0.1 * i}
            records.append({**common, "kind": "evaluation", "split": split, **rounds})
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "metrics.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_metrics_are_read_as_curves_by_kind_and_split(tmp_path: Path) -> None:
    run = read_run(write_metrics(tmp_path / "first"))
    assert run.name == "first"
    assert run.train is not None
    np.testing.assert_array_equal(run.train.env_steps, [1000, 2000, 3000, 4000, 5000, 6000])
    assert run.train.returns.shape == (6, 2)
    assert list(run.evaluations) == ["ood", "test"]
    np.testing.assert_allclose(run.evaluations["test"].returns[:, 1], [-3.9, -3.7, -3.5])


def test_each_record_has_a_last_round_of_its_own(tmp_path: Path) -> None:
    path = write_metrics(tmp_path, iterations=3, evaluations=())
    more = {f"return/round{r}": float(r) for r in range(4)}  # PEARL's first iteration has more rounds than the others
    path.write_text(json.dumps({"kind": "train", "iteration": -1, "env_steps": 0, **more}) + "\n" + path.read_text())
    curve = read_run(path).train
    assert curve is not None
    np.testing.assert_allclose(curve.ends, [[0.0, 3.0], [-3.0, -3.0], [-3.0, -2.9], [-3.0, -2.8]])


def test_of_a_repeated_iteration_the_last_record_counts(tmp_path: Path) -> None:
    path = write_metrics(tmp_path, iterations=3, evaluations=())
    again = {"kind": "train", "iteration": 2, "env_steps": 3000, "return/round0": 7.0, "return/round1": 8.0}
    path.write_text(path.read_text() + json.dumps(again) + "\n")
    curve = read_run(path).train
    assert curve is not None
    np.testing.assert_allclose(curve.returns[-1], [7.0, 8.0])
    assert len(curve.env_steps) == 3


def test_a_line_cut_off_at_the_end_and_a_damaged_one_in_the_middle_are_left_out(tmp_path: Path) -> None:
    path = write_metrics(tmp_path, iterations=3, evaluations=())
    whole = path.read_text()
    for text, left in ((whole[:-20], 2), ("{broken\n" + whole, 3), ("[1]\n3\n" + whole, 3)):
        path.write_text(text)
        curve = read_run(path).train
        assert curve is not None
        assert len(curve.env_steps) == left


@pytest.mark.parametrize("text", ["", '{"kind": "train", "iteration": 0, "env_steps": 5}\n'])
def test_metrics_without_returns_are_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(text)
    with pytest.raises(MetarlError, match="holds no training or evaluation record"):
        read_run(path)
    with pytest.raises(MetarlError, match="no such metrics file"):
        read_run(tmp_path / "absent.jsonl")


def test_learning_curve_draws_training_and_evaluations_before_and_after(tmp_path: Path) -> None:
    figure = learning_figure([read_run(write_metrics(tmp_path / "first"))])
    assert figure.axes[0].get_ylabel() == RETURN
    assert figure.axes[0].get_xlabel() == "environment steps of training"
    for what in ("training", "test tasks", "ood tasks"):
        for when in ("first", "last"):
            assert f"{what}, {when} round" in texts(figure)
    after = next(line for line in figure.axes[0].lines if line.get_label() == "test tasks, last round")
    np.testing.assert_array_equal(after.get_xdata(), [2000, 4000, 6000])
    np.testing.assert_allclose(np.asarray(after.get_ydata(), dtype=float), [-3.9, -3.7, -3.5])


def test_learning_curves_of_one_and_several_runs_are_images(tmp_path: Path) -> None:
    paths = [write_metrics(tmp_path / f"seed{i}") for i in range(3)]
    plot_learning_curve(paths[0], tmp_path / "one.png")
    plot_learning_curve(paths, tmp_path / "three.png")
    assert_is_png(tmp_path / "one.png")
    assert_is_png(tmp_path / "three.png")
    figure = learning_figure([read_run(path) for path in paths])
    assert "seed2, last round" in texts(figure)


def test_several_runs_are_compared_on_what_all_have(tmp_path: Path) -> None:
    tested = read_run(write_metrics(tmp_path / "a" / "run"))
    untested = read_run(write_metrics(tmp_path / "b" / "run", evaluations=()))
    assert "2 runs, test tasks" in texts(learning_figure([tested, tested]))
    mixed = learning_figure([tested, untested])
    assert "2 runs, training tasks" in texts(mixed)
    assert "run (1), last round" in texts(mixed)  # two folders of the same name stay apart
    assert "run (2), last round" in texts(mixed)
    with pytest.raises(MetarlError, match="in common"):
        learning_figure([tested, replace(untested, train=None)])
    with pytest.raises(MetarlError, match="in common"):
        learning_figure([])
