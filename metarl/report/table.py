"""An evaluation as a table for the terminal."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from metarl.evaluation.evaluate import FEW_TASKS, Evaluation

_COLUMNS = ("mean", "IQM", "95 % interval", "CVaR 5 %", "normalised")


def table(evaluation: Evaluation) -> Table:
    """Returns before and after adaptation, the gain, the anchors beside them, few tasks one by one, and the notes."""
    shown = Table(
        title=headline(evaluation),
        caption=Text(_caption(evaluation)),  # Text: brackets in it are no markup
        title_justify="left",
        caption_justify="left",
        title_style="bold",
    )
    shown.add_column("return per episode, undiscounted", min_width=20)
    for column in _COLUMNS:
        shown.add_column(column, justify="right", no_wrap=True)
    for index, score in enumerate(evaluation.rounds):
        cells = (number(score.mean), number(score.iqm), interval(score.ci95), number(score.cvar5))
        shown.add_row(round_label(index, len(evaluation.rounds)), *cells, _normalised(score.normalised))
    shown.add_section()
    gain = evaluation.adaptation_gain
    shown.add_row("adaptation gain (last - first round)", number(gain.mean, "+"), "", interval(gain.ci95, "+"), "", "")
    _add_anchors(shown, evaluation)
    _add_tasks(shown, evaluation)
    return shown


def headline(evaluation: Evaluation) -> str:
    """What was measured: the distribution with its version, the split, how many tasks and episodes."""
    drawn, distinct, episodes = evaluation.num_tasks, len(evaluation.per_task), evaluation.episodes_per_round
    tasks = f"{distinct} task{'s' * (distinct != 1)}"
    if distinct < drawn:
        tasks = f"{drawn} trials on {tasks}"
    per = f"{episodes} episode{'s' * (episodes != 1)} per {'trial' if distinct < drawn else 'task'} and round"
    return f"{evaluation.distribution} v{evaluation.version}, {evaluation.split} split: {tasks}, {per}"


def round_label(index: int, num_rounds: int) -> str:
    """'round 1 (after adaptation)': what the reader should think of when seeing this round."""
    if index == 0:
        return "round 0 (before adaptation)"
    return f"round {index} ({'after adaptation' if index == num_rounds - 1 else 'adapting'})"


def _add_anchors(shown: Table, evaluation: Evaluation) -> None:
    anchors = evaluation.anchors
    named = (
        ("standing still", anchors.nothing),
        ("best task-blind policy", anchors.task_blind),
        ("expert that knows the task", anchors.expert),
    )
    known = [(name, value) for name, value in named if value is not None]
    has_scale = evaluation.rounds[0].normalised is not None
    shown.add_section()
    if not known:
        shown.add_row("anchors: none known", *[""] * len(_COLUMNS), style="dim")
    for name, value in known:
        normalised = anchors.normalise(value) if has_scale else None
        shown.add_row(f"anchor: {name}", number(value), "", "", "", _normalised(normalised), style="dim")


def _add_tasks(shown: Table, evaluation: Evaluation) -> None:
    if len(evaluation.per_task) > FEW_TASKS:
        return
    shown.add_section()
    for score in evaluation.per_task:
        shown.add_row(Text(f"task {score.label}"), " → ".join(number(value) for value in score.returns), "", "", "", "")


def _caption(evaluation: Evaluation) -> str:
    lines = [f"{evaluation.env_steps:,} environment steps"]
    if evaluation.anchors.source:
        lines.append(f"Anchors: {evaluation.anchors.source}")
    return "\n".join([*lines, *evaluation.notes])


def number(value: float, sign: str = "") -> str:
    """A return with one decimal, a small one with two."""
    return f"{value:{sign}.1f}" if abs(value) >= 10 else f"{value:{sign}.2f}"


def interval(bounds: tuple[float, float], sign: str = "") -> str:
    """Both bounds in brackets."""
    return f"[{number(bounds[0], sign)}, {number(bounds[1], sign)}]"


def _normalised(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
