"""An evaluation as a table for the terminal."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from metarl.evaluation.change import ChangeScore
from metarl.evaluation.evaluate import FEW_TASKS, Evaluation
from metarl.report.labels import RETURN, judged_actions, reference_returns

_COLUMNS = ("mean", "IQM", "95 % interval", "CVaR 5 %", "normalised")


def table(evaluation: Evaluation) -> Table:
    """Returns before and after adaptation, the gain, the reference returns beside them, success rates where tasks
    report them, few tasks one by one, and the notes."""
    shown = Table(
        title=headline(evaluation),
        caption=Text(_caption(evaluation)),  # Text: brackets in it are no markup
        title_justify="left",
        caption_justify="left",
        title_style="bold",
    )
    shown.add_column(RETURN, min_width=20)
    for column in _COLUMNS:
        shown.add_column(column, justify="right", no_wrap=True)
    for index, score in enumerate(evaluation.rounds):
        cells = (number(score.mean), number(score.iqm), interval(score.ci95), number(score.cvar5))
        shown.add_row(round_label(index, len(evaluation.rounds)), *cells, _normalised(score.normalised))
    shown.add_section()
    gain = evaluation.adaptation_gain
    shown.add_row("adaptation gain (last - first round)", number(gain.mean, "+"), "", interval(gain.ci95, "+"), "", "")
    _add_success_rates(shown, evaluation)
    _add_reference_returns(shown, evaluation)
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


def _add_success_rates(shown: Table, evaluation: Evaluation) -> None:
    if evaluation.success_rates is None:
        return
    shown.add_section()
    rates = " → ".join(f"{rate:.0%}" for rate in evaluation.success_rates)
    shown.add_row("success rate, per round", rates, "", "", "", "")


def _add_reference_returns(shown: Table, evaluation: Evaluation) -> None:
    known = reference_returns(evaluation.anchors)
    has_scale = evaluation.rounds[0].normalised is not None
    shown.add_section()
    if not known:
        shown.add_row("reference returns: none known", *[""] * len(_COLUMNS), style="dim")
    for reference in known:
        normalised = evaluation.anchors.normalise(reference.value) if has_scale else None
        name = f"reference return: {reference.label}"
        shown.add_row(name, number(reference.value), "", "", "", _normalised(normalised), style="dim")


def _add_tasks(shown: Table, evaluation: Evaluation) -> None:
    if len(evaluation.per_task) > FEW_TASKS:
        return
    shown.add_section()
    for score in evaluation.per_task:
        shown.add_row(Text(f"task {score.label}"), " → ".join(number(value) for value in score.returns), "", "", "", "")


def _caption(evaluation: Evaluation) -> str:
    judged = judged_actions(evaluation.deterministic)
    lines = [f"{evaluation.env_steps:,} environment steps; judged actions: {judged}"]
    if evaluation.anchors.source:
        lines.append(f"Reference returns: {evaluation.anchors.source}")
    if evaluation.change is not None:
        lines.append(_change(evaluation.change))
    return "\n".join([*lines, *evaluation.notes])


def _change(change: ChangeScore) -> str:
    """What changes in mid-episode did, in one line."""
    recovery = "none recovers"
    if change.recovery_steps is not None:
        never = f", {change.share_never:.0%} never" if change.share_never else ""
        recovery = f"90 % recovered after {change.recovery_steps:.0f} steps{never}"
    rewards = f"{number(change.reward_before)} per step before, {number(change.reward_after)} after"
    return f"Change in mid-episode ({change.episodes} episodes): reward {rewards}; {recovery}"


def number(value: float, sign: str = "") -> str:
    """A return with one decimal, one below 10 with two, one below 0.1 with three significant digits."""
    if value == 0:
        return f"{0.0:{sign}.2f}"  # never -0.00
    if abs(value) < 0.1:
        return f"{value:{sign}.3g}"
    return f"{value:{sign}.1f}" if abs(value) >= 10 else f"{value:{sign}.2f}"


def interval(bounds: tuple[float, float], sign: str = "") -> str:
    """Both bounds in brackets."""
    return f"[{number(bounds[0], sign)}, {number(bounds[1], sign)}]"


def _normalised(value: float | None) -> str:
    return "" if value is None else number(value)
