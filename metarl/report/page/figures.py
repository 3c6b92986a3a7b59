"""The pictures of a report: small enough for a telephone, each with a sentence for those who cannot see it."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from metarl.evaluation.evaluate import Evaluation
from metarl.evaluation.grid import Grid
from metarl.report.grid import draw_heat_map, draw_line
from metarl.report.labels import reference_returns, round_name
from metarl.report.metrics import Curve, Run
from metarl.report.study import Study
from metarl.report.style import (
    BLUE,
    CATEGORIES,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    add_legend,
    new_figure,
    plain,
)
from metarl.report.table import interval, number

SIZE = (5.2, 3.6)  # inches; a telephone shows them at about their own size
SPLIT_COLOURS = {"train": GREY, "validation": PURPLE, "test": BLUE, "ood": VERMILLION}
_MOST_POINTS = 400  # of a curve
_MOST_PANELS = 12  # of the parameters


@dataclass(frozen=True)
class Picture:
    """An SVG with its heading and what it shows in words."""

    title: str
    alt: str
    svg: bytes

    @property
    def uri(self) -> str:
        """As a data URI: an image of its own, in which nothing can run."""
        return f"data:image/svg+xml;base64,{b64encode(self.svg).decode()}"


def picture(figure: Figure, title: str, alt: str) -> Picture:
    """The figure as SVG; the same bytes for the same figure. Its own title is left out: the page has it."""
    figure.suptitle("")
    buffer = io.BytesIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "metarl"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return Picture(title, alt, buffer.getvalue())


def pictures_of(study: Study) -> list[Picture]:
    """Everything that can be drawn of one run, in the order of the page."""
    found = [over_time(study)]
    if len(study.test.rounds) > 1:
        found.append(before_and_after(study.test))
    found.append(splits(study))
    found += parameters(study)
    if study.heat_map is not None:
        found.append(heat_map(study.heat_map))
    if study.curves is not None:
        found.append(learning([study.curves]))
    return found


# --- time --------------------------------------------------------------------------------------------


def over_time(study: Study) -> Picture:
    """Reward per step through the whole trial, with and without context."""
    figure, axes = new_figure("", "mean over held-out tasks, 95 % interval", SIZE)
    axes.set_ylabel("reward per step")
    draw_over_time(axes, study.test, BLUE, "this policy", has_names=True)
    if study.blank is not None:
        draw_over_time(axes, study.blank, GREY, "its context kept blank", style=(0, (5, 4)))
    axes.set_xlabel("environment steps of the trial; lines where episodes end")
    add_legend(figure, axes)
    measures = study.test.measures
    assert measures is not None
    first, last = measures.over_time[0], measures.over_time[-1]
    alt = (
        f"Reward per step over the trial: {number(first.mean[0])} at its first steps, "
        f"{number(first.mean[-1])} at the end of its first round, {number(last.mean[-1])} at the end of its last."
    )
    return picture(figure, "Adaptation over time", alt)


def draw_over_time(
    axes: Axes,
    evaluation: Evaluation,
    colour: str,
    label: str,
    *,
    style: str | tuple[int, tuple[int, int]] = "-",
    has_names: bool = False,
) -> None:
    """All rounds one behind the other."""
    assert evaluation.measures is not None
    start = 0.0
    count = len(evaluation.measures.over_time)
    for index, part in enumerate(evaluation.measures.over_time):
        x = start + np.array(part.steps)
        low, high = np.array(part.ci95).T
        axes.fill_between(x, low, high, color=colour, alpha=0.16, lw=0)
        axes.plot(x, part.mean, color=colour, lw=1.8, ls=style, label=plain(label))
        end = start + evaluation.horizon
        if index < count - 1:
            axes.axvline(end, color="#bbbbbb", lw=0.9)
        if has_names and count <= 4:
            name = round_name(index, count, evaluation.adapts)
            axes.annotate(
                name, ((start + end) / 2, 1.0), xycoords=("data", "axes fraction"), ha="center", va="top", fontsize=8
            )
        start = end


# --- tasks -------------------------------------------------------------------------------------------


def before_and_after(evaluation: Evaluation) -> Picture:
    """A line per task from its first to its last round, the worst tasks at the bottom."""
    scores = sorted(evaluation.per_task, key=lambda score: score.returns[-1])
    first_name, last_name = (
        round_name(r, len(evaluation.rounds), evaluation.adapts) for r in (0, len(evaluation.rounds) - 1)
    )
    height = float(np.clip(0.12 * len(scores) + 1.2, 2.2, 6.0))
    figure, axes = new_figure("", f"{len(scores)} held-out tasks", (SIZE[0], height))
    axes.set_ylabel("")
    axes.set_xlabel("return per episode, undiscounted")
    rows = np.arange(len(scores))
    first, last = (np.array([score.returns[r] for score in scores]) for r in (0, -1))
    axes.hlines(rows, first, last, color=SKY, lw=1.4)
    axes.plot(first, rows, "o", color=VERMILLION, ms=3.5, label=first_name)
    axes.plot(last, rows, "o", color=BLUE, ms=3.5, label=last_name)
    if len(scores) <= 20:
        axes.set_yticks(rows, [plain(_short(score.label)) for score in scores], fontsize=8)
    else:
        axes.set_yticks([])
    axes.grid(axis="x", color="#e6e6e6", lw=0.8)
    axes.grid(axis="y", visible=False)
    add_legend(figure, axes)
    better = int((last > first).sum())
    alt = f"On {better} of {len(scores)} held-out tasks the last round returns more than the first."
    return picture(figure, "Each task", alt)


def splits(study: Study) -> Picture:
    """The last round's return on every split, with the reference returns."""
    figure, axes = new_figure("", "last round, mean over tasks with 95 % interval", SIZE)
    names = [split for split in ("train", "validation", "test", "ood") if split in study.evaluations]
    for index, split in enumerate(names):
        evaluation = study.evaluations[split]
        last, first = evaluation.rounds[-1], evaluation.rounds[0]
        _error_bar(axes, index, last.mean, last.ci95, SPLIT_COLOURS[split])
        if len(evaluation.rounds) > 1:
            label = round_name(0, len(evaluation.rounds), evaluation.adapts)
            axes.plot(index - 0.18, first.mean, "o", mfc="white", color=GREY, ms=5, label=label)
    position = len(names)
    for other, label, colour in ((study.blank, "blank\ncontext", GREY), (study.shuffled, "another\ntask's", ORANGE)):
        if other is not None:
            _error_bar(axes, position, other.rounds[-1].mean, other.rounds[-1].ci95, colour)
            names.append(label)  # type: ignore[arg-type]
            position += 1
    axes.set_xticks(range(len(names)), names)
    axes.set_xlim(-0.6, len(names) - 0.4)
    for reference, colour in zip(reference_returns(study.test.anchors), (GREY, ORANGE, GREEN), strict=False):
        axes.axhline(reference.value, color=colour, lw=1.1, ls=(0, (5, 4)), zorder=1, label=reference.label)
    if axes.get_legend_handles_labels()[0]:
        add_legend(figure, axes)
    parts = [
        f"{split} {number(evaluation.rounds[-1].mean)} {interval(evaluation.rounds[-1].ci95)}"
        for split, evaluation in study.evaluations.items()
    ]
    return picture(figure, "Splits, ablations and reference returns", f"Return of the last round: {', '.join(parts)}.")


def _error_bar(axes: Axes, x: float, mean: float, bounds: tuple[float, float], colour: str) -> None:
    errors = np.maximum([[mean - bounds[0]], [bounds[1] - mean]], 0.0)
    axes.errorbar([x], [mean], yerr=errors, color=colour, fmt="o", ms=7, capsize=6, lw=1.8)


# --- parameters --------------------------------------------------------------------------------------


def parameters(study: Study) -> list[Picture]:
    """Return against each parameter: a line where it was varied alone, else the tasks of all splits."""
    found, drawn = [], set()
    for grid in study.lines:
        axis = grid.axes[0]
        figure, axes = new_figure("", _held(grid), SIZE)
        draw_line(axes, grid)
        add_legend(figure, axes)
        low, high = (min(p.returns[-1] for p in grid.points), max(p.returns[-1] for p in grid.points))
        alt = f"Return of the last round against {axis.name}: from {number(low)} to {number(high)}."
        found.append(picture(figure, f"Return against {axis.name}", alt))
        drawn.add(axis.name)
    found += _scatter(study, drawn)
    return found


def _scatter(study: Study, drawn: Iterable[str]) -> list[Picture]:
    """The tasks of every split against each parameter that has no line."""
    columns = [name for name in _columns(study.test) if name not in set(drawn)]
    if not columns:
        return []
    shown = columns[:_MOST_PANELS]
    lines = -(-len(shown) // 2)
    figure = Figure(figsize=(SIZE[0], 1.9 * lines + 0.6), layout="constrained", facecolor="white")
    panels = figure.subplots(lines, 2, squeeze=False)
    for axes in panels.flat[len(shown) :]:
        axes.set_visible(False)
    for axes, name in zip(panels.flat, shown, strict=False):
        for split, evaluation in study.evaluations.items():
            values = _columns(evaluation)[name]
            returns = [score.returns[-1] for score in evaluation.per_task]
            axes.plot(values, returns, "o", color=SPLIT_COLOURS[split], ms=2.6, alpha=0.7, label=split)
        train = _columns(study.evaluations.get("train", study.test))[name]
        axes.axvspan(min(train), max(train), color=BLUE, alpha=0.08, lw=0, zorder=0)
        axes.set_xlabel(plain(name), fontsize=8)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = panels.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    more = f"; the first {len(shown)} of {len(columns)}" if len(shown) < len(columns) else ""
    alt = f"Return of the last round of each task against {', '.join(shown)}{more}; training tasks' range shaded."
    return [picture(figure, f"Return against each parameter{more}", alt)]


def _columns(evaluation: Evaluation) -> dict[str, list[float]]:
    """Values of every scalar parameter or component, in the order of `per_task`."""
    columns: dict[str, list[float]] = {}
    for score in evaluation.per_task:
        for name, value in score.task.items():
            parts = value if isinstance(value, tuple) else (value,)
            for index, part in enumerate(parts):
                columns.setdefault(f"{name}[{index}]" if isinstance(value, tuple) else name, []).append(part)
    return columns


def heat_map(grid: Grid) -> Picture:
    """The last round over two parameters."""
    figure, axes = new_figure("", _held(grid), (SIZE[0], 4.2))
    draw_heat_map(figure, axes, grid)
    names = " and ".join(axis.name for axis in grid.axes)
    best, worst = (f(grid.points, key=lambda p: p.returns[-1]) for f in (max, min))
    alt = (
        f"Return of the last round over {names}: best {number(best.returns[-1])} at {best.name}, "
        f"worst {number(worst.returns[-1])} at {worst.name}."
    )
    return picture(figure, f"Return over {names}", alt)


def _held(grid: Grid) -> str:
    held = ", ".join(f"{name}={_text(value)}" for name, value in grid.held.items())
    text = f"held: {held}" if held else f"{grid.episodes} episodes per task"
    return plain(_short(text, 70))


# --- training ----------------------------------------------------------------------------------------


def learning(runs: Sequence[Run], labels: Sequence[str] | None = None) -> Picture:
    """Return of the last round against environment steps of training, a colour per run."""
    figure, axes = new_figure("", "last round; dots: evaluations, thin: training", SIZE)
    for index, run in enumerate(runs):
        colour = CATEGORIES[index % len(CATEGORIES)]
        label = plain(_short(labels[index] if labels else run.name, 40))
        if run.train is not None:
            steps, returns = thinned(run.train)
            axes.plot(steps, returns, color=colour, lw=0.8, alpha=0.6, label=f"{label}, training")
        for split, curve in run.evaluations.items():
            steps, returns = thinned(curve)
            axes.plot(steps, returns, color=colour, lw=1.8, marker="o", ms=3.5, label=f"{label}, {split}")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel("environment steps of training")
    add_legend(figure, axes)
    ends = [f"{run.name} {number(float(thinned(run.train)[1][-1]))}" for run in runs if run.train is not None]
    return picture(
        figure, "Learning", f"Return of the last round at the end of training: {', '.join(ends) or 'unknown'}."
    )


def thinned(curve: Curve) -> tuple[np.ndarray, np.ndarray]:
    """Steps and the last round's returns, each the mean of as many records as leave at most 400 points."""
    width = -(-len(curve.env_steps) // _MOST_POINTS)
    starts = np.arange(0, len(curve.env_steps), width)
    counts = np.diff(np.append(starts, len(curve.env_steps)))
    return tuple(np.add.reduceat(values, starts) / counts for values in (curve.env_steps, curve.ends[:, 1]))  # type: ignore[return-value]


def _short(text: str, most: int = 34) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _text(value: object) -> str:
    return f"({', '.join(f'{v:.3g}' for v in value)})" if isinstance(value, tuple) else f"{value:.3g}"
