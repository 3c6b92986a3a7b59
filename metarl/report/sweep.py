"""The settings of a sweep side by side: a table for the terminal, and their learning curves as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from rich.table import Table
from rich.text import Text

from metarl.distributed.sweep.results import SettingResult, common_curve
from metarl.report.style import CATEGORIES, add_legend, new_figure, save
from metarl.report.table import interval, number
from metarl.runs.outcome import FAILED, STOPPED_EARLY


def sweep_table(results: Sequence[SettingResult], title: str) -> Table:
    """A row per setting: its return after adaptation over seeds, and how many of its runs ended otherwise."""
    shown = Table(title=Text(title), title_justify="left")
    shown.add_column("setting", overflow="fold")
    for column in ("before", "return after adaptation", "95 % interval", "seeds"):
        shown.add_column(column, justify="right", no_wrap=True)
    shown.add_column("", no_wrap=True)
    for r in results:
        before = [run.before for run in r.runs if run.before is not None]
        stopped = sorted(run.iteration for run in r.runs if run.status == STOPPED_EARLY)
        marks = ["best"] if r.is_best else []
        span = " to ".join(map(str, sorted({*stopped[:1], *stopped[-1:]})))
        marks += [f"{len(stopped)} stopped early, at iteration {span}"] * bool(stopped)
        marks += [f"{r.count(FAILED)} failed"] * bool(r.count(FAILED))
        numbers = [number(sum(before) / len(before)) if before else "-", "-" if r.mean is None else number(r.mean)]
        numbers += ["-" if r.ci95 is None else interval(r.ci95), f"{len(r.scores)}/{len(r.runs)}"]
        shown.add_row(Text(r.name), *numbers, ", ".join(marks), style="bold" if r.is_best else None)
    return shown


def sweep_notes(results: Sequence[SettingResult]) -> str:
    """What the numbers of `sweep_table` are, and which settings these seeds do not tell from the best."""
    notes = (
        "Mean over seeds of the mean return per episode on validation tasks (or those of evaluation.split), "
        "undiscounted, at a run's last evaluation; 95 % t interval over seeds. Runs stopped early count with the "
        "return that they were stopped at."
    )
    rivals = [result.name for result in results if result.is_rival]
    untold = f"\nThese seeds do not tell the best from {', '.join(rivals)} (paired t tests, Holm's correction)."
    return notes + (untold if rivals else "")


def save_figure(results: Sequence[SettingResult], title: str, path: Path) -> None:
    """Write `sweep_figure` as a PNG."""
    save(sweep_figure(results, title), path)


def sweep_figure(results: Sequence[SettingResult], title: str) -> Figure:
    """Return after adaptation against environment steps: the mean over seeds bold, with its 95 % interval, each seed
    thin, a cross where a run was stopped early. Of many settings the best have a colour, the others are grey."""
    subtitle = f"{title}: return after adaptation on validation tasks, mean over seeds"
    figure, axes = new_figure("Settings compared", subtitle)
    shown = [result for result in results if any(run.curve for run in result.runs)]
    shown.sort(key=lambda r: float("-inf") if r.mean is None else r.mean, reverse=True)
    num_coloured = len(CATEGORIES) - (len(shown) > len(CATEGORIES))  # the last one is grey
    for rank, result in enumerate(shown):
        label = result.name + " (best)" * result.is_best if rank < num_coloured else "the other settings"
        _draw(axes, result, CATEGORIES[min(rank, len(CATEGORIES) - 1)], label, 3 if rank < num_coloured else 2)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel("environment steps of training")
    if shown:
        add_legend(figure, axes)
    return figure


def _draw(axes: Axes, result: SettingResult, colour: str, label: str, zorder: int) -> None:
    for run in (run for run in result.runs if run.status != FAILED):
        steps, after = [p.env_steps for p in run.curve], [p.after for p in run.curve]
        axes.plot(steps, after, color=colour, lw=0.8, alpha=0.45, zorder=zorder)
        marker = "x" if run.status == STOPPED_EARLY else "."
        axes.plot(steps[-1:], after[-1:], color=colour, marker=marker, ls="", zorder=zorder + 2)
    rows = common_curve(result.runs)
    axes.plot([r[0] for r in rows], [r[1] for r in rows], color=colour, lw=2.2, zorder=zorder + 1, label=label)
    bounds = [(x, *ends) for x, _, ends in rows if ends is not None]
    x, low, high = ([row[i] for row in bounds] for i in range(3))
    axes.fill_between(x, low, high, color=colour, alpha=0.15, lw=0, zorder=zorder - 1)
    axes.vlines(x[-1:], low[-1:], high[-1:], color=colour, lw=1.4, zorder=zorder)
