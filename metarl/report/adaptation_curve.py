"""Pictures of adaptation: return against the round of a trial, and return against training steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from metarl.errors import MetarlError
from metarl.evaluation.by_task import FEW_TASKS
from metarl.evaluation.evaluate import Evaluation
from metarl.report.labels import ReferenceReturn, judged_actions, reference_returns
from metarl.report.metrics import Curve, Run, read_run
from metarl.report.style import BLUE, CATEGORIES, INK, SKY, VERMILLION, add_legend, dark_viridis, new_figure, save
from metarl.report.table import headline, interval, number
from metarl.rollout.types import Adapts

_MAX_LABEL = 44
_LABEL_ROOM = 0.42  # right of the last round, as a share of all rounds' span, for the reference returns' names
_SAME_LABEL = 0.06  # reference returns closer than this share of the picture's height have their names stacked
_DASHED = (0, (5, 4))


def plot_adaptation(evaluation: Evaluation, path: Path) -> None:
    """Write `adaptation_figure` as a PNG."""
    save(adaptation_figure(evaluation), path)


def plot_learning_curve(metrics_path: Path | Sequence[Path], path: Path) -> None:
    """Write `learning_figure` of one or several runs' metrics.jsonl as a PNG."""
    paths = [metrics_path] if isinstance(metrics_path, Path) else list(metrics_path)
    save(learning_figure([read_run(one) for one in paths]), path)


# --- return against round ----------------------------------------------------------------------------


def adaptation_figure(evaluation: Evaluation) -> Figure:
    """Return against round: a thin line per task, the mean with its 95 % interval, the reference returns."""
    gain, num_rounds = evaluation.gain_over_blank or evaluation.last_minus_first, len(evaluation.rounds)
    subtitle = f"{headline(evaluation)}; judged actions: {judged_actions(evaluation.deterministic)}"
    is_between = evaluation.adapts == "between"
    if gain is not None:
        difference = f"last minus first {'round' if is_between else 'episode'}"
        what = "gain over a blank context" if evaluation.gain_over_blank else difference
        subtitle += f"\n{what} {number(gain.mean, '+')}, 95 % interval {interval(gain.ci95, '+')}, paired per task"
    title = "Return before and after adaptation" if is_between else "Return of the episodes of a trial"
    figure, axes = new_figure(title, subtitle)
    _draw_tasks(figure, axes, evaluation)
    _draw_mean(axes, evaluation)
    axes.set_xticks(range(num_rounds), [_round_tick(r, num_rounds, evaluation.adapts) for r in range(num_rounds)])
    span = max(num_rounds - 1, 1)
    axes.set_xlim(-0.1 * span, num_rounds - 1 + (_LABEL_ROOM if _references(evaluation) else 0.06) * span)
    axes.set_xlabel(
        "round (the episodes collected with one adaptation state)" if is_between else "episode of the trial"
    )
    _draw_references(axes, evaluation)
    add_legend(figure, axes)
    return figure


def _round_tick(index: int, num_rounds: int, adapts: Adapts) -> str:
    if adapts != "between":
        return str(index + 1)
    if index == 0:
        return "0\nbefore adaptation"
    return f"{index}\nafter adaptation" if index == num_rounds - 1 else str(index)


def _draw_tasks(figure: Figure, axes: Axes, evaluation: Evaluation) -> None:
    """Thin lines, coloured by the parameter where it is one scalar; few tasks are named in the legend."""
    scores, rounds = evaluation.per_task, range(len(evaluation.rounds))
    if len(scores) <= FEW_TASKS:
        for score, colour in zip(scores, CATEGORIES, strict=False):
            label = score.label if len(score.label) <= _MAX_LABEL else score.label[: _MAX_LABEL - 1] + "…"
            axes.plot(rounds, score.returns, color=colour, lw=1.6, marker="o", ms=4, label=label)
        return
    marker, label = "o" if len(rounds) == 1 else "", f"each of {len(scores)} tasks"
    parameter = _scalar_parameter(evaluation)
    if parameter is None:
        for score in scores:
            axes.plot(rounds, score.returns, color=SKY, lw=0.9, alpha=0.7, marker=marker, label=label)
        return
    values = np.array([score.task[parameter] for score in scores], dtype=np.float64)
    scale = ScalarMappable(Normalize(float(values.min()), float(values.max())), dark_viridis())
    for score, value in zip(scores, values, strict=True):
        axes.plot(rounds, score.returns, color=scale.to_rgba(value), lw=0.9, alpha=0.8, marker=marker, label=label)
    bar = figure.colorbar(scale, ax=axes, pad=0.02, fraction=0.05)
    bar.set_label(f"task parameter {parameter}")
    bar.outline.set_visible(False)


def _draw_mean(axes: Axes, evaluation: Evaluation) -> None:
    rounds = list(range(len(evaluation.rounds)))
    means = np.array([score.mean for score in evaluation.rounds])
    low, high = np.array([score.ci95 for score in evaluation.rounds]).T
    errors = np.maximum([means - low, high - means], 0.0)  # equal values: a bound may miss its mean by rounding
    axes.fill_between(rounds, low, high, color=INK, alpha=0.16, lw=0, zorder=3, label="95 % interval of the mean")
    axes.plot(rounds, means, color="white", lw=4.6, zorder=4)  # a halo, so that it stands out from the tasks
    axes.errorbar(rounds, means, yerr=errors, color=INK, capsize=5, lw=1.4, ls="", zorder=5)
    axes.plot(rounds, means, color=INK, lw=2.6, marker="o", ms=6, zorder=5, label="mean over tasks")


def _references(evaluation: Evaluation) -> list[ReferenceReturn]:
    """The known reference returns from the lowest up, as they are named in the picture."""
    where = " in the training range" if evaluation.split == "ood" else ""
    known = [ReferenceReturn(one.label + where, one.value) for one in reference_returns(evaluation.anchors)]
    return sorted(known, key=lambda one: (one.value, one.label))


def _draw_references(axes: Axes, evaluation: Evaluation) -> None:
    """Dashed lines, named at their right end; names too close to each other are stacked on the upper line."""
    known = _references(evaluation)
    for reference in known:
        axes.axhline(reference.value, color=INK, lw=1.0, ls=_DASHED, alpha=0.6, zorder=1)
    low, high = axes.get_ylim()
    high += 0.06 * (high - low) * bool(known)  # room for the name above the highest line
    axes.set_ylim(low, high)
    stacks: list[list[ReferenceReturn]] = []
    for reference in known:
        if stacks and reference.value - stacks[-1][-1].value < _SAME_LABEL * (high - low):
            stacks[-1].append(reference)
        else:
            stacks.append([reference])
    for stack in stacks:
        axes.annotate(
            "\n".join(f"{one.label}  {_typeset(one.value)}" for one in reversed(stack)),
            xy=(1.0, stack[-1].value),
            xycoords=axes.get_yaxis_transform(),
            xytext=(-4, 2),
            textcoords="offset points",
            ha="right",
            va="bottom",
            fontsize=8.5,
            color="#333333",
        )


def _typeset(value: float) -> str:
    return f"{value:.4g}".replace("-", "\N{MINUS SIGN}")


def _scalar_parameter(evaluation: Evaluation) -> str | None:
    """The name of the only task parameter where it is one number."""
    task = evaluation.per_task[0].task
    name = next(iter(task))
    return name if len(task) == 1 and not isinstance(task[name], tuple) else None


# --- return against training steps -------------------------------------------------------------------


def learning_figure(runs: Sequence[Run]) -> Figure:
    """Return of the first (dashed) and of the last round (solid) against environment steps.

    One run: evaluations bold with markers, training thin. Several runs: a colour each; all of them on the validation
    split where all were evaluated on it, else on the test split (earlier versions), else on their training tasks.
    MetarlError where they have none in common.
    """
    rounds = "first (dashed) and last round (solid) of a trial"
    if len(runs) == 1:
        figure, axes = new_figure("Learning to adapt", f"{runs[0].name}: {rounds}")
        _draw_run(axes, runs[0])
    else:
        what, curves = _comparable(runs)
        figure, axes = new_figure("Learning to adapt", f"{len(runs)} runs, {what} tasks: {rounds}")
        names = [run.name for run in runs]
        for index, (name, curve) in enumerate(zip(names, curves, strict=True)):
            colour = CATEGORIES[index % len(CATEGORIES)]
            label = name if names.count(name) == 1 else f"{name} ({index + 1})"
            _draw_ends(axes, curve, (colour, colour), _first_and_last(label))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel("environment steps of training")
    add_legend(figure, axes)
    return figure


def _comparable(runs: Sequence[Run]) -> tuple[str, list[Curve]]:
    """What all runs can be compared on, and each run's curve of it."""
    for split in ("validation", "test"):
        evaluated = [run.evaluations[split] for run in runs if split in run.evaluations]
        if evaluated and len(evaluated) == len(runs):
            return split, evaluated
    trained = [run.train for run in runs if run.train is not None]
    if trained and len(trained) == len(runs):
        return "training", trained
    raise MetarlError("learning curves: the runs have neither evaluations of a split nor training records in common")


def _draw_run(axes: Axes, run: Run) -> None:
    if run.train is not None:
        _draw_ends(axes, run.train, (VERMILLION, BLUE), _first_and_last("training"), width=0.9, alpha=0.6)
    markers = {"validation": "o", "test": "o", "ood": "s"}
    for split in sorted(run.evaluations, reverse=True):
        marker = markers.get(split, "^")
        names = _first_and_last(f"{split} tasks")
        _draw_ends(axes, run.evaluations[split], (VERMILLION, BLUE), names, marker, width=2.2)


def _first_and_last(what: str) -> tuple[str, str]:
    return f"{what}, first round", f"{what}, last round"


def _draw_ends(
    axes: Axes,
    curve: Curve,
    colours: tuple[str, str],
    names: tuple[str, str],
    marker: str = "",
    *,
    width: float = 1.6,
    alpha: float = 1.0,
) -> None:
    """The first (dashed) and the last round of a curve; of a single round one line alone."""
    fill = "white" if marker == "s" else None  # out-of-distribution tasks: hollow
    for end in (0, -1) if curve.returns.shape[1] > 1 else (-1,):
        (line,) = axes.plot(curve.env_steps, curve.ends[:, end], color=colours[end], lw=width, alpha=alpha)
        line.set(label=names[end], linestyle="-" if end else _DASHED, marker=marker, ms=5)
        line.set_markerfacecolor(fill or colours[end])
