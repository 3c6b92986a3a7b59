"""Several runs on equal tasks: a table for the terminal, and pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from rich.console import Group
from rich.table import Table
from rich.text import Text

from metarl.evaluation.comparison import Comparison, Gap
from metarl.evaluation.evaluate import Evaluation
from metarl.report.labels import RETURN, reference_returns
from metarl.report.page.figures import SIZE, Picture, draw_over_time, picture
from metarl.report.style import CATEGORIES, GREY, add_legend, new_figure, plain
from metarl.report.table import headline, interval, number, with_notes

_ABOUT_INTERVALS = (
    "Intervals resample the tasks; differences are paired per task. Each policy is of one training: another seed may "
    "rank them otherwise."
)


def kind_of(evaluation: Evaluation) -> str:
    """What a run is in a comparison."""
    if evaluation.is_oracle:
        return "oracle: told the task"
    kinds = {"never": "task-blind", "within": "adapts at every step", "between": "adapts between rounds"}
    return kinds[evaluation.adapts]


def comparison_table(comparison: Comparison) -> Group:
    """A row per run, best first; then every pair."""
    first = next(iter(comparison.evaluations.values()))
    shown = Table(title=headline(first), title_justify="left", title_style="bold")
    shown.add_column(RETURN, min_width=16)
    for column in ("what it is", "last round", "95 % interval", "first round", "online"):
        shown.add_column(column, justify="left" if column == "what it is" else "right")
    for name, evaluation in comparison.evaluations.items():
        last, online = evaluation.rounds[-1], evaluation.measures
        cells = (number(last.mean), interval(last.ci95), number(evaluation.rounds[0].mean))
        shown.add_row(Text(name), kind_of(evaluation), *cells, number(online.online.mean) if online else "")
    shown.add_section()
    for reference in reference_returns(first.anchors):
        shown.add_row(f"reference return: {reference.label}", "", number(reference.value), style="dim")
    lines = [
        f"{pair.first} against {pair.second}: {number(pair.difference.mean, '+')} "
        f"{interval(pair.difference.ci95, '+')}; better on a task with probability {pair.improvement.mean:.2f} "
        f"[{pair.improvement.ci95[0]:.2f}, {pair.improvement.ci95[1]:.2f}]"
        for pair in comparison.pairs
    ]
    if comparison.gap is not None:
        lines += gap_lines(comparison.gap)
    return with_notes(shown, "\n".join([*lines, _ABOUT_INTERVALS]))


def gap_lines(gap: Gap) -> list[str]:
    """What knowing the task is worth, and the share of it that each policy recovers."""
    worth = f"{number(gap.width.mean, '+')} {interval(gap.width.ci95, '+')}"
    if not gap.width.is_above_zero:
        return [f"Knowing the task is worth {worth} ({gap.oracle} against {gap.task_blind}): there is no gap to close"]
    lines = [f"Knowing the task is worth {worth} ({gap.oracle} against {gap.task_blind}). Of that, recovered by"]
    for name, share in gap.recovered.items():
        mean, low, high = (f"{round(100 * value)}%" for value in (share.mean, *share.ci95))
        lines.append(f"  {name}: {mean} [{low}, {high}]")
    return lines


def comparison_figure(evaluations: dict[str, Evaluation], size_inches: tuple[float, float] = SIZE) -> Figure:
    """The last round's return of every run, with the reference returns."""
    names = list(evaluations)
    height = float(np.clip(0.45 * len(names) + 1.3, 2.2, 8.0))
    figure, axes = new_figure("", "last round, mean over the same tasks, 95 % interval", (size_inches[0], height))
    axes.set_ylabel("")
    axes.set_xlabel(RETURN)
    for row, name in enumerate(reversed(names)):
        last = evaluations[name].rounds[-1]
        errors = np.maximum([[last.mean - last.ci95[0]], [last.ci95[1] - last.mean]], 0.0)
        colour = CATEGORIES[names.index(name) % len(CATEGORIES)]
        axes.errorbar([last.mean], [row], xerr=errors, fmt="o", color=colour, ms=7, capsize=5, lw=1.8)
    axes.set_yticks(range(len(names)), [plain(_short(name)) for name in reversed(names)])
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.grid(axis="x", color="#e6e6e6", lw=0.8)
    references = reference_returns(next(iter(evaluations.values())).anchors)
    for reference, style in zip(references, ((0, (2, 2)), (0, (5, 4)), "-"), strict=False):
        axes.axvline(reference.value, color=GREY, lw=1.1, ls=style, zorder=1, label=reference.label)
    if references:
        add_legend(figure, axes)
    return figure


def comparison_pictures(comparison: Comparison) -> list[Picture]:
    """Returns beside each other, and adaptation over time of all runs."""
    evaluations = comparison.evaluations
    ranked = ", ".join(f"{name} {number(e.rounds[-1].mean)}" for name, e in evaluations.items())
    found = [picture(comparison_figure(evaluations), "Runs on equal tasks", f"Return of the last round: {ranked}.")]
    figure, axes = new_figure("", "mean over the same tasks, 95 % interval", SIZE)
    axes.set_ylabel("reward per step")
    axes.set_xlabel("environment steps of the trial")
    for index, (name, evaluation) in enumerate(evaluations.items()):
        if evaluation.measures is not None:
            draw_over_time(axes, evaluation, CATEGORIES[index % len(CATEGORIES)], _short(name))
    add_legend(figure, axes)
    found.append(
        picture(figure, "Adaptation over time", f"Reward per step of {len(evaluations)} runs over their trials.")
    )
    return found


def unique_names(names: Sequence[str]) -> list[str]:
    """Each name, with a number behind it where several runs have it."""
    return [name if names.count(name) == 1 else f"{name} ({index + 1})" for index, name in enumerate(names)]


def _short(text: str, most: int = 34) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
