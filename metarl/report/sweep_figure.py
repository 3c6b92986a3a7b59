"""The learning curves of a sweep's settings in one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from metarl.distributed.sweep.results import FAILED, STOPPED_EARLY, SettingResult, common_curve
from metarl.report.style import CATEGORIES, GREY, add_legend, new_figure, save

_OTHERS = "the other settings"


def plot_sweep(results: Sequence[SettingResult], title: str, path: Path) -> None:
    """Write `sweep_figure` as a PNG."""
    save(sweep_figure(results, title), path)


def sweep_figure(results: Sequence[SettingResult], title: str) -> Figure:
    """Return after adaptation against environment steps: the mean over seeds bold, with its 95 % interval, each seed
    thin, a cross where a run was stopped early. Of many settings the best have a colour, the others are grey."""
    num_seeds = max((len(result.runs) for result in results), default=0)
    subtitle = f"{title}: return after adaptation on held-out tasks, mean over {num_seeds} seeds"
    figure, axes = new_figure("Settings compared", f"{subtitle}, 95 % interval" if num_seeds > 1 else subtitle)
    ranked = sorted(results, key=lambda r: float("-inf") if r.mean is None else r.mean, reverse=True)
    coloured = [r for r in ranked if r.mean is not None or any(run.curve for run in r.runs)]
    if len(coloured) > len(CATEGORIES):
        coloured = coloured[: len(CATEGORIES) - 1]  # the last of the colours is the others' grey
    for result in results:
        if result in coloured:
            index = [r for r in results if r in coloured].index(result)
            _draw(axes, result, CATEGORIES[index], result.setting.name + (" (best)" if result.is_best else ""), 3)
        elif any(run.curve for run in result.runs):
            _draw(axes, result, GREY, _OTHERS, 2)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel("environment steps of training")
    if axes.get_legend_handles_labels()[1]:
        add_legend(figure, axes)
    return figure


def _draw(axes: Axes, result: SettingResult, colour: str, label: str, zorder: int) -> None:
    for run in result.runs:
        if run.status == FAILED or not run.curve:
            continue
        steps, after = [p.env_steps for p in run.curve], [p.after for p in run.curve]
        axes.plot(steps, after, color=colour, lw=0.8, alpha=0.45, zorder=zorder, marker="." if len(steps) == 1 else "")
        if run.status == STOPPED_EARLY:
            axes.plot(steps[-1:], after[-1:], color=colour, marker="x", ms=6, ls="", zorder=zorder + 2)
    rows = common_curve(result.runs)
    steps_mean, means = [row[0] for row in rows], [row[1] for row in rows]
    marker = "o" if len(rows) == 1 else ""
    axes.plot(steps_mean, means, color=colour, lw=2.2, marker=marker, ms=6, zorder=zorder + 1, label=label)
    bounds = [row[2] for row in rows if row[2] is not None]
    if not bounds or len(bounds) < len(rows):
        return
    low, high = [b[0] for b in bounds], [b[1] for b in bounds]
    if len(rows) == 1:
        axes.vlines(steps_mean, low, high, color=colour, lw=1.4, zorder=zorder)
    else:
        axes.fill_between(steps_mean, low, high, color=colour, alpha=0.15, lw=0, zorder=zorder - 1)
