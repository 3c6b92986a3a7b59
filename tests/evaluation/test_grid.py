"""Grids: which tasks they hold, where these lie, and what is said of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.text import Text
from rich.console import Console
from typer.testing import CliRunner

from metarl.cli.app import app
from metarl.errors import ConfigError, MetarlError
from metarl.evaluation.grid import (
    BEYOND,
    INSIDE,
    OUTSIDE,
    Axis,
    Grid,
    axis_of,
    evaluate_grid,
    grid_tasks,
    usual_axis,
    where_of,
)
from metarl.report.grid import grid_figure, grid_table, plot_grid
from metarl.rollout.local import LocalExecutor
from metarl.tasks import Choice, LogUniform, Parameter, Task, TaskDistribution, Uniform
from metarl.tasks.middle import middle_task
from tests.guess import PLAN, Guess, GuessPolicy, weights

PEARL_RUN = Path(__file__).parents[2] / "experiments" / "pretrained" / "point_goal_pearl"


class Body(TaskDistribution):
    name = "Body"
    horizon = 3
    parameters: tuple[Parameter, ...] = (
        Parameter("mass", LogUniform(0.5, 2.0), "x", ood=LogUniform(2.0, 3.0)),
        Parameter("goal", Uniform(-1.0, 1.0, 2)),
        Parameter("leg", Choice((0.0, 1.0, 2.0))),
    )

    def make(self, task: Task):
        raise NotImplementedError


# --- axes --------------------------------------------------------------------------------------------


def test_an_axis_is_even_or_in_ratios_as_its_prior_is() -> None:
    assert axis_of(Body(), "mass=0.25:4:5").values == pytest.approx((0.25, 0.5, 1.0, 2.0, 4.0))
    assert axis_of(Body(), "goal[1]=-3:3:3").values == pytest.approx((-3.0, 0.0, 3.0))
    assert axis_of(Body(), "leg=[0,7]").values == (0.0, 7.0)


def test_an_axis_knows_the_training_range() -> None:
    axis = axis_of(Body(), "mass=0.1:9:3")
    assert (axis.low, axis.high, axis.unit) == (0.5, 2.0, "x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("weight=1:2:3", r"Body has no 'weight'; allowed: mass, goal\[0\], goal\[1\], leg"),
        ("goal=1:2:3", r"Body has no 'goal'; allowed: mass, goal\[0\]"),
        ("goal[2]=1:2:3", r"Body has no 'goal\[2\]'"),
        ("mass=1:2", "allowed is NAME=LOW:HIGH:NUMBER, such as mass=0.5:2:9"),
        ("mass=1:2:0", "allowed is NAME=LOW:HIGH:NUMBER"),
        ("mass=low:high:3", "allowed is NAME=LOW:HIGH:NUMBER"),
        ("mass", "allowed is NAME=LOW:HIGH:NUMBER"),
        ("mass=[1,inf]", "finite numbers"),
    ],
)
def test_a_wrong_axis_is_refused_with_what_is_allowed(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        axis_of(Body(), text)


def test_the_usual_axis_reaches_beyond_every_range() -> None:
    axis = usual_axis(Body(), "mass", 5)
    assert axis is not None
    assert axis.values[0] < 0.5
    assert axis.values[-1] > 3.0
    finite = usual_axis(Body(), "leg", 5)
    assert finite is not None
    assert finite.values == (0.0, 1.0, 2.0)


def test_the_usual_axis_keeps_within_what_values_can_be() -> None:
    class Bounded(Body):
        parameters = (Parameter("dropout", Uniform(0.2, 0.95), limits=(0.15, 1.0)),)

    axis = usual_axis(Bounded(), "dropout", 5)
    assert axis is not None
    assert (axis.values[0], axis.values[-1]) == (0.15, 1.0)


# --- tasks -------------------------------------------------------------------------------------------


def test_a_grid_is_the_product_of_its_axes_around_the_base_task() -> None:
    axes = [Axis("mass", (1.0, 9.0)), Axis("goal[1]", (0.5, 5.0, 6.0))]
    points = grid_tasks(Body(), axes, middle_task(Body()))
    assert [at for at, _ in points] == [(m, g) for m in (1.0, 9.0) for g in (0.5, 5.0, 6.0)]
    assert points[-1][1].values == {"mass": 9.0, "goal": (0.0, 6.0), "leg": 0.0}


def test_grids_that_are_none_are_refused() -> None:
    base = middle_task(Body())
    with pytest.raises(ConfigError, match="each parameter once"):
        grid_tasks(Body(), [Axis("mass", (1.0,)), Axis("mass", (2.0,))], base)
    with pytest.raises(ConfigError, match="the grid has 10000 points; allowed are 1000"):
        grid_tasks(Body(), [Axis("mass", (1.0,) * 100), Axis("leg", (0.0,) * 100)], base)


def test_where_a_task_lies_is_said() -> None:
    base = middle_task(Body()).values
    for mass, where in ((1.0, INSIDE), (2.5, BEYOND), (7.0, OUTSIDE)):
        assert where_of(Body(), Task.of("Body", base | {"mass": mass})) == where


# --- results -----------------------------------------------------------------------------------------


def grid(*texts: str, num_streams: int = 4) -> Grid:
    distribution = Guess()
    axes = [axis_of(distribution, text) for text in texts]
    executor = LocalExecutor(distribution, GuessPolicy())
    return evaluate_grid(executor, distribution, PLAN, weights(noise=0.3), axes, middle_task(distribution), seed=3)


def test_each_point_is_a_trial_of_its_own_task() -> None:
    found = grid("goal=-2:2:5")
    assert [point.where for point in found.points] == [OUTSIDE, OUTSIDE, INSIDE, OUTSIDE, OUTSIDE]
    assert [point.name for point in found.points][:2] == ["Guess(goal=-2)", "Guess(goal=-1)"]
    returns = [point.returns[-1] for point in found.points]
    assert max(returns) == returns[2]  # guesses lie about 0
    for point in found.points:
        assert point.ci95 is not None
        assert point.ci95[0] <= point.returns[-1] <= point.ci95[1]


def test_a_grid_is_read_as_it_was_written(tmp_path: Path) -> None:
    found = grid("goal=-1:1:3")
    found.write(tmp_path / "grid.json")
    assert Grid.load(tmp_path / "grid.json") == found
    (tmp_path / "grid.json").write_text("{}")
    with pytest.raises(MetarlError, match="not a grid file"):
        Grid.load(tmp_path / "grid.json")


def test_the_table_and_the_picture_mark_what_lies_outside(tmp_path: Path) -> None:
    found = grid("goal=-1:1:3")
    console = Console(width=120, record=True, quiet=False, file=(tmp_path / "out").open("w"))
    console.print(grid_table(found, ["A note."]))
    text = console.export_text()
    console.file.close()
    assert text.count(OUTSIDE) == 2
    assert "A note." in text
    plot_grid(found, tmp_path / "grid.png")
    assert (tmp_path / "grid.png").stat().st_size > 5000
    held: dict[str, float | tuple[float, ...]] = {f"a_parameter_with_a_long_name_{i}": 0.123456789 for i in range(8)}
    figure = grid_figure(replace(found, held=held))
    figure.savefig(tmp_path / "held.png")
    subtitle = next(text for text in figure.findobj(Text) if "held:" in text.get_text())
    assert "name_7=0.123" in subtitle.get_text()
    assert subtitle.get_window_extent().x1 <= figure.bbox.x1
    labels = grid_figure(found).axes[0].get_legend_handles_labels()[1]
    assert {"training range", "task outside all ranges", "first round", "last round"} <= set(labels)


def test_evaluate_varies_two_parameters(tmp_path: Path) -> None:
    out = tmp_path / "grid"
    options = ["--local", "--vary", "goal[0]=-3:3:3", "--vary", "goal[1]=0:5:2", "--episodes", "2", "--out", str(out)]
    done = CliRunner().invoke(app, ["evaluate", str(PEARL_RUN), *options])
    assert done.exit_code == 0, done.output
    assert OUTSIDE in done.stdout
    found = Grid.load(out / "grid.json")
    assert [axis.name for axis in found.axes] == ["goal[0]", "goal[1]"]
    assert found.episodes == 2
    assert (out / "grid.png").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--vary", "goal[0]=0:1:2", "--split", "ood"], "--vary and --split exclude each other"),
        (["--vary", "goal[0]=0:1:2", "--threshold", "1"], "--vary and --threshold exclude each other"),
        (["--vary", "mass=0:1:2"], "PointGoal has no 'mass'"),
        (["--task", "goal=[0,0]", "--tasks", "3"], "--task and --tasks exclude each other"),
    ],
)
def test_options_that_have_no_meaning_together_are_refused(options: list[str], message: str) -> None:
    done = CliRunner().invoke(app, ["evaluate", str(PEARL_RUN), "--local", *options])
    assert done.exit_code == 2
    assert message in done.stderr
