"""A grid of tasks as a table and as pictures: lines over one or two parameters, heat maps over two."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from rich.console import Group
from rich.table import Table
from rich.text import Text

from metarl.evaluation.grid import INSIDE, OUTSIDE, Axis, Grid
from metarl.report.labels import RETURN
from metarl.report.style import BLUE, GREY, INK, ORANGE, add_legend, new_figure, plain, save
from metarl.report.table import interval, number, with_notes

_MOST_ROWS = 60
_WIDE = 3.0  # ratio of neighbouring steps from which an axis is drawn in logarithms


def grid_table(grid: Grid, notes: Sequence[str] = ()) -> Group:
    """A row per point: where it lies, the first and the last round's return with its interval over episodes."""
    shown = Table(title=headline(grid), title_justify="left", title_style="bold")
    for axis in grid.axes:
        shown.add_column(Text(_axis_label(axis)), justify="right")
    for column in ("where", "first round", "last round", "95 % interval over episodes"):
        shown.add_column(column, justify="left" if column == "where" else "right", no_wrap=True)
    for point in grid.points[:_MOST_ROWS]:
        bounds = interval(point.ci95) if point.ci95 else ""
        cells = (point.where, number(point.returns[0]), number(point.returns[-1]), bounds)
        style = "dim" if point.where == OUTSIDE else None
        shown.add_row(*(f"{value:.4g}" for value in point.at), *cells, style=style)
    lines = [f"{RETURN}; {grid.env_steps:,} environment steps", *grid.notes, *notes]
    if grid.held:
        lines.insert(0, f"Held: {', '.join(f'{name}={_value(value)}' for name, value in grid.held.items())}")
    if len(grid.points) > _MOST_ROWS:
        lines.append(f"{len(grid.points) - _MOST_ROWS} more points in grid.json.")
    return with_notes(shown, "\n".join(lines))


def headline(grid: Grid) -> str:
    """What was measured."""
    count, episodes = len(grid.points), grid.episodes
    return f"{grid.distribution}: {count} tasks on a grid, {episodes} episode{'s' * (episodes != 1)} per task and round"


def plot_grid(grid: Grid, path: Path) -> None:
    """Write `grid_figure` as a PNG."""
    save(grid_figure(grid), path)


def grid_figure(grid: Grid, size_inches: tuple[float, float] = (8.4, 5.2)) -> Figure:
    """Lines over one parameter, a heat map over two; of more, one line per combination of the others is too many, and
    the last two are drawn at the first value of those before."""
    held = ", ".join(f"{name}={_value(value)}" for name, value in grid.held.items())
    subtitle = plain(f"{headline(grid)}{f'; held: {held}' if held else ''}")
    if len(grid.axes) == 1:
        figure, axes = new_figure(f"Return against {plain(grid.axes[0].name)}", subtitle, size_inches)
        draw_line(axes, grid)
        add_legend(figure, axes)
        return figure
    first = [axis.values[0] for axis in grid.axes[:-2]]
    names = [plain(axis.name) for axis in grid.axes]
    fixed = "".join(f", {name}={value:.4g}" for name, value in zip(names, first, strict=False))
    figure, axes = new_figure(f"Return against {names[-2]} and {names[-1]}{fixed}", subtitle, size_inches)
    draw_heat_map(figure, axes, grid)
    return figure


def draw_line(axes: Axes, grid: Grid) -> None:
    """First and last round against the one axis; the training range shaded, tasks outside all ranges hollow."""
    (axis,) = grid.axes
    x = np.array([point.at[0] for point in grid.points])
    if axis.low is not None and axis.high is not None:
        axes.axvspan(axis.low, axis.high, color=BLUE, alpha=0.08, lw=0, label="training range")
    if len(grid.points[0].returns) > 1:
        first = [point.returns[0] for point in grid.points]
        axes.plot(x, first, color=GREY, lw=1.4, ls=(0, (5, 4)), label="first round")
    last = np.array([point.returns[-1] for point in grid.points])
    bounds = [point.ci95 for point in grid.points]
    if all(bound is not None for bound in bounds):
        low, high = np.array(bounds, dtype=np.float64).T
        axes.fill_between(x, low, high, color=BLUE, alpha=0.2, lw=0, label="95 % interval over episodes")
    axes.plot(x, last, color=BLUE, lw=2.2, label="last round")
    for is_outside, fill, label in ((False, BLUE, "task"), (True, "white", "task outside all ranges")):
        rows = [i for i, point in enumerate(grid.points) if (point.where == OUTSIDE) == is_outside]
        if rows:
            axes.plot(x[rows], last[rows], "o", color=BLUE, mfc=fill, ms=5, label=label if is_outside else None)
    _scale(axes.set_xscale, axis)
    axes.set_xlabel(plain(_axis_label(axis)))


def draw_heat_map(figure: Figure, axes: Axes, grid: Grid) -> None:
    """The last round's return over the last two axes, with the training range framed and each cell's value."""
    y_axis, x_axis = grid.axes[-2:]
    shape = (len(y_axis.values), len(x_axis.values))
    cells = shape[0] * shape[1]
    returns = np.array([point.returns[-1] for point in grid.points[:cells]]).reshape(shape)
    picture = axes.imshow(returns, origin="lower", aspect="auto", cmap="viridis")
    axes.grid(False)
    for setter, axis in ((axes.set_xticks, x_axis), (axes.set_yticks, y_axis)):
        every = -(-len(axis.values) // 9)
        kept = range(0, len(axis.values), every)
        setter(list(kept), [f"{axis.values[i]:.3g}" for i in kept])
    inside = np.array([point.where == INSIDE for point in grid.points[:cells]]).reshape(shape)
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if len(rows) and not inside.all():
        corner = (columns[0] - 0.5, rows[0] - 0.5)
        size = (columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1)
        axes.add_patch(Rectangle(corner, *size, fill=False, ec=ORANGE, lw=2.4))
        axes.annotate(
            "training range", corner, xytext=(4, 4), textcoords="offset points", color=ORANGE, fontsize=9, weight="bold"
        )
    if cells <= 64:
        middle = (returns.min() + returns.max()) / 2
        for (i, j), value in np.ndenumerate(returns):
            axes.text(
                j, i, number(value), ha="center", va="center", fontsize=7, color="white" if value < middle else INK
            )
    axes.set_xlabel(plain(_axis_label(x_axis)))
    axes.set_ylabel(plain(_axis_label(y_axis)))
    bar = figure.colorbar(picture, ax=axes, pad=0.02, fraction=0.06)
    bar.set_label(f"last round: {RETURN}")
    bar.outline.set_visible(False)


def _scale(set_scale: object, axis: Axis) -> None:
    """Logarithms where the values grow by ratios."""
    steps = np.diff(axis.values)
    if len(steps) > 1 and axis.values[0] > 0 and (steps > 0).all() and steps[-1] > _WIDE * steps[0]:
        set_scale("log")  # type: ignore[operator]


def _axis_label(axis: Axis) -> str:
    return f"{axis.name} ({axis.unit})" if axis.unit else axis.name


def _value(value: object) -> str:
    return f"({', '.join(f'{v:.4g}' for v in value)})" if isinstance(value, tuple) else f"{value:.4g}"
