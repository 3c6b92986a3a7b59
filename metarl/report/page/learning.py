"""Learning curves of runs that differ in their seed alone, as one curve with an interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import yaml
from jaxtyping import Float
from matplotlib.ticker import EngFormatter

from metarl.evaluation.statistics import seed_ci95
from metarl.report.metrics import Curve, Run
from metarl.report.page.figures import SIZE, Picture, picture, thinned
from metarl.report.study import Study
from metarl.report.style import CATEGORIES, add_legend, new_figure, plain
from metarl.report.table import number

_POINTS = 100


def learning_over_seeds(studies: Sequence[Study]) -> list[Picture]:
    """One curve per configuration: the mean of its seeds, with the 95 % interval over them where there are several."""
    ranked = sorted(studies, key=lambda study: -study.test.rounds[-1].mean)  # as comparisons are: the same colours
    groups = by_configuration(ranked)
    if not any(_curve(study) for study in studies):
        return []
    figure, axes = new_figure("", "last round; mean over seeds, 95 % t interval over seeds", SIZE)
    ends = []
    for index, group in enumerate(groups):
        curves = [thinned(curve) for curve in map(_curve, group) if curve is not None]
        if not curves:
            continue
        steps, returns = on_common_steps(curves)
        colour = CATEGORIES[index % len(CATEGORIES)]
        seeds = f" ({len(curves)} seeds)" if len(curves) > 1 else ""
        label = plain(f"{group[0].name if len(group) == 1 else group[0].algorithm}{seeds}")
        axes.plot(steps, returns.mean(axis=0), color=colour, lw=1.8, label=label)
        if len(curves) > 1:
            low, high = np.array([seed_ci95(column.tolist()) for column in returns.T]).T
            axes.fill_between(steps, low, high, color=colour, alpha=0.18, lw=0)
        ends.append(f"{label} {number(float(returns[:, -1].mean()))}")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel("environment steps of training")
    add_legend(figure, axes)
    return [picture(figure, "Learning", f"Return of the last round at the end of training: {', '.join(ends)}.")]


def by_configuration(studies: Sequence[Study]) -> list[list[Study]]:
    """Runs whose configurations differ in the seed, and in where units run, at most."""
    groups: dict[str, list[Study]] = {}
    for study in studies:
        content = yaml.safe_load(study.config)
        key = yaml.safe_dump({k: v for k, v in content.items() if k not in ("seed", "executor", "device")})
        groups.setdefault(key, []).append(study)
    return list(groups.values())


def on_common_steps(
    curves: Sequence[tuple[np.ndarray, np.ndarray]],
) -> tuple[Float[np.ndarray, " P"], Float[np.ndarray, "S P"]]:
    """The curves at 100 numbers of steps that all of them reach, linearly between their own."""
    low, high = max(steps[0] for steps, _ in curves), min(steps[-1] for steps, _ in curves)
    at = np.linspace(low, max(low, high), _POINTS)
    return at, np.stack([np.interp(at, steps, returns) for steps, returns in curves])


def _curve(study: Study) -> Curve | None:
    """The evaluations where there are several, else training."""
    run: Run | None = study.curves
    if run is None:
        return None
    for split in ("validation", "test"):
        if split in run.evaluations and len(run.evaluations[split].env_steps) > 1:
            return run.evaluations[split]
    return run.train
