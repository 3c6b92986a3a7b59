"""The settings of a sweep side by side, for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from metarl.distributed.sweep.results import FAILED, STOPPED_EARLY, RunResult, SettingResult, rivals
from metarl.report.table import interval, number


def table(results: Sequence[SettingResult], title: str) -> Table:
    """A row per setting: its return after adaptation over seeds, and how many of its runs ended otherwise."""
    shown = Table(title=Text(title), caption=Text(_caption(results)), title_justify="left", caption_justify="left")
    shown.add_column("setting", overflow="fold")
    for column in ("return after adaptation", "95 % interval", "IQM", "before", "seeds"):
        shown.add_column(column, justify="right", no_wrap=True)
    shown.add_column("", no_wrap=True)
    for result in results:
        before = [run.returns[0] for run in result.runs if run.returns and run.score is not None]
        shown.add_row(
            Text(result.setting.name),
            "-" if result.mean is None else number(result.mean),
            "-" if result.ci95 is None else interval(result.ci95),
            "-" if result.iqm is None else number(result.iqm),
            number(sum(before) / len(before)) if before else "-",
            f"{len(result.scores)}/{len(result.runs)}",
            ", ".join(_marks(result)),
            style="bold" if result.is_best else None,
        )
    return shown


def failures(results: Sequence[SettingResult]) -> list[RunResult]:
    """The runs that failed."""
    return [run for result in results for run in result.runs if run.status == FAILED]


def _marks(result: SettingResult) -> list[str]:
    marks = ["best"] if result.is_best else []
    stopped = [run for run in result.runs if run.status == STOPPED_EARLY]
    if stopped:
        where = sorted({run.iteration for run in stopped})
        span = f"{where[0]}" if len(where) == 1 else f"{where[0]} to {where[-1]}"
        marks.append(f"{len(stopped)} stopped early, at iteration {span}")
    if failed := result.count(FAILED):
        marks.append(f"{failed} failed")
    return marks


def _caption(results: Sequence[SettingResult]) -> str:
    """What the numbers are of, and what they do not tell."""
    what = "Mean over seeds of the mean return per episode on held-out tasks, undiscounted, at a run's last evaluation"
    lines = [f"{what}; 95 % bootstrap interval over seeds."]
    if any(result.count(STOPPED_EARLY) for result in results):
        lines.append("Runs stopped early count with the return that they were stopped at.")
    close = rivals(results)
    if close:
        lines.append(
            f"These seeds do not tell the best from {', '.join(close)}: 0 is in the interval of the difference."
        )
    return "\n".join(lines)
