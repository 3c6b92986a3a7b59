"""An evaluation as a table for the terminal."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table
from rich.text import Text

from metarl.evaluation.by_task import FEW_TASKS
from metarl.evaluation.change import ChangeScore
from metarl.evaluation.evaluate import Evaluation
from metarl.evaluation.measures import CLOSE, ToThreshold
from metarl.report.labels import MEANINGS, RETURN, judged_actions, reference_returns, round_name
from metarl.rollout.types import Adapts

_COLUMNS = ("mean", "IQM", "95 % interval", "CVaR 5 %", "normalised")


def table(evaluation: Evaluation) -> Group:
    """Returns before and after adaptation, the gain, the reference returns beside them, success rates where tasks
    report them, few tasks one by one, and the notes."""
    shown = Table(title=headline(evaluation), title_justify="left", title_style="bold")
    shown.add_column(RETURN, min_width=12)
    for column in _COLUMNS:
        shown.add_column(column, justify="right", no_wrap=True)
    for index, score in enumerate(evaluation.rounds):
        cells = (number(score.mean), number(score.iqm), interval(score.ci95), number(score.cvar5))
        label = round_label(index, len(evaluation.rounds), evaluation.adapts)
        shown.add_row(label, *cells, _normalised(score.normalised))
    shown.add_section()
    _add_gains(shown, evaluation)
    _add_measures(shown, evaluation)
    _add_success_rates(shown, evaluation)
    _add_reference_returns(shown, evaluation)
    _add_tasks(shown, evaluation)
    return with_notes(shown, _caption(evaluation))


def with_notes(shown: Table, notes: str) -> Group:
    """A table and what stands below it, which a terminal that is narrower than the table does not cut off."""
    return Group(shown, Text(notes, style="table.caption"))  # Text: brackets in it are no markup


def headline(evaluation: Evaluation) -> str:
    """What was measured: the distribution with its version, the split, how many tasks and episodes."""
    drawn, distinct, episodes = evaluation.num_tasks, len(evaluation.per_task), evaluation.episodes_per_round
    tasks = f"{distinct} task{'s' * (distinct != 1)}"
    if distinct < drawn:
        tasks = f"{drawn} trials on {tasks}"
    per = f"{episodes} episode{'s' * (episodes != 1)} per {'trial' if distinct < drawn else 'task'} and round"
    return f"{evaluation.distribution} v{evaluation.version}, {evaluation.split} split: {tasks}, {per}"


def round_label(index: int, num_rounds: int, adapts: Adapts = "between") -> str:
    """'round 1 (after adaptation)': what the reader should think of when seeing this round; 'episode 2' of a policy
    that adapts within episodes, or not at all."""
    if adapts != "between":
        return round_name(index, num_rounds, adapts)
    if index == 0:
        return "round 0 (before adaptation)"
    return f"round {index} ({'after adaptation' if index == num_rounds - 1 else 'adapting'})"


def _add_gains(shown: Table, evaluation: Evaluation) -> None:
    """What adaptation brings: over the same policy given no experience, and over the best that cannot adapt."""
    is_between = evaluation.adapts == "between"
    if evaluation.blank is not None:
        blank = evaluation.blank
        shown.add_row("its last round, context blank", number(blank.mean), "", interval(blank.ci95), "", "")
    if evaluation.gain_over_blank is not None:
        gain = evaluation.gain_over_blank
        shown.add_row("gain over its blank context", number(gain.mean, "+"), "", interval(gain.ci95, "+"), "", "")
    if evaluation.last_minus_first is not None:
        difference, name = evaluation.last_minus_first, f"last - first {'round' if is_between else 'episode'}"
        shown.add_row(name, number(difference.mean, "+"), "", interval(difference.ci95, "+"), "", "")
    blind = evaluation.anchors.task_blind
    if not is_between and blind is not None and evaluation.split != "ood":
        last = evaluation.rounds[-1]
        low, high = (bound - blind for bound in last.ci95)
        over = interval((low, high), "+")
        shown.add_row("gain over the best non-adaptive policy", number(last.mean - blind, "+"), "", over, "", "")


def _add_measures(shown: Table, evaluation: Evaluation) -> None:
    """Of whole trials, exploration included."""
    measures = evaluation.measures
    if measures is None or len(evaluation.rounds) == 1:
        return
    shown.add_section()
    estimates = {
        "online return, exploration included": measures.online,
        "area under the adaptation curve": measures.area,
        "regret per episode, to the expert": measures.regret,
    }
    for name, found in estimates.items():
        if found is not None:
            shown.add_row(name, number(found.mean), "", interval(found.ci95), "", "")


def threshold_label(found: ToThreshold) -> str:
    """'adapted on until 90 % of the way to the expert (-12.3)'."""
    what = f"{100 * CLOSE:.0f} % of the way to the expert" if found.is_default else "the threshold"
    return f"adapted on until {what} ({number(found.threshold)})"


def threshold_value(found: ToThreshold) -> str:
    """'2.1 episodes, 42 steps (80% of tasks)'."""
    if found.episodes is None or found.steps is None:
        return "reached on no task"
    return f"{found.episodes:.1f} episodes, {found.steps:.0f} steps ({found.reached:.0%} of tasks)"


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
    lines = [f"{evaluation.env_steps:,} environment steps; judged actions: {judged}", meaning(evaluation)]
    found = None if evaluation.measures is None else evaluation.measures.to_threshold
    if found is not None and len(evaluation.rounds) > 1:
        text = threshold_label(found)
        lines.append(f"{text[0].upper()}{text[1:]}: {threshold_value(found)}.")
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


def meaning(evaluation: Evaluation) -> str:
    """What the rounds mean for the family of algorithms at hand, and how much experience lies between them."""
    measures = evaluation.measures
    text = MEANINGS[evaluation.adapts]
    if evaluation.adapts == "between" and len(evaluation.rounds) == 1:
        return "One round: the policy as it was trained, without experience of the task."
    if measures is None or evaluation.adapts == "never" or len(evaluation.rounds) == 1:
        return text
    what = "Episodes before the last round" if evaluation.adapts == "within" else "Episodes adapted to"
    return f"{text} {what}: {measures.episodes_adapted_on} of each task ({measures.steps_adapted_on:.0f} steps)."


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
