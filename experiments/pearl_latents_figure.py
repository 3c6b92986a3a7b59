"""The picture of `pearl_beliefs.py`: how the belief narrows, and posterior means coloured by each task parameter."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter
from pearl_beliefs import Latents

from metarl.evaluation.probe import Score, is_angle
from metarl.report.style import BLUE, GREY, INK, SKY, dark_viridis, new_figure, save
from metarl.tasks import LogUniform

MAX_PANELS = 8  # of parameters: those that the belief holds best
_COLUMNS = 3
_DASHED = (0, (5, 4))


def draw(latents: Latents, path: Path) -> None:
    """Write the picture as a PNG."""
    save(figure_of(latents), path)


def figure_of(latents: Latents) -> Figure:
    """The width against transitions first, then one panel for every component of a parameter."""
    panels, left_out = _panels(latents)
    num_columns = min(_COLUMNS, len(panels) + 1)
    num_rows = math.ceil((len(panels) + 1) / num_columns)
    name, count = latents.distribution.name, len(latents.beliefs.tasks)
    title = f"{name}: what the belief holds of {count} held-out tasks, iteration {latents.iteration}"
    figure, first = new_figure(title, "", (4.3 * num_columns + 0.4, 3.9 * num_rows + 0.6))
    grid = figure.add_gridspec(num_rows, num_columns)
    first.set_subplotspec(grid[0, 0])
    _draw_width(first, latents)
    points, labels = plane(latents.beliefs.mean[-1].reshape(-1, latents.beliefs.mean.shape[3]))
    for i, (label, values, colours) in enumerate(panels, start=1):
        axes = figure.add_subplot(grid[i // num_columns, i % num_columns])
        _draw_means(figure, axes, points, values, label, labels, *colours)
    notes = list(latents.notes)
    if left_out:
        notes.append(f"{left_out} more components are not shown: those with the highest R2 are.")
    if notes:
        figure.supxlabel("\n".join(notes), x=0.012, ha="left", fontsize=8.5, color=INK)
    return figure


def plane(z: Float[np.ndarray, "n Z"]) -> tuple[Float[np.ndarray, "n 2"], tuple[str, str]]:
    """The latents where there are two, of more the two principal components, of one itself and zeros; axis labels."""
    if z.shape[1] == 1:
        return np.concatenate((z, np.zeros_like(z)), axis=1), ("posterior mean of z", "")
    if z.shape[1] == 2:
        return z, ("posterior mean of z[0]", "posterior mean of z[1]")
    centred = z - z.mean(axis=0)
    _, singular, directions = np.linalg.svd(centred, full_matrices=False)
    shares = 100 * singular**2 / max(float((singular**2).sum()), 1e-30)
    first, second = (f"posterior mean, component {i + 1} ({shares[i]:.0f} %)" for i in (0, 1))
    return centred @ directions[:2].T, (first, second)


def _panels(latents: Latents) -> tuple[list[tuple[str, np.ndarray, tuple[str, Normalize]]], int]:
    """(title, values of all points, colours) of the components shown, in the parameters' order; how many are not."""
    num_streams = latents.beliefs.mean.shape[2]
    found: list[tuple[float, str, np.ndarray, tuple[str, Normalize]]] = []
    for parameter, score in zip(latents.distribution.parameters, latents.scores, strict=True):
        values = np.array([task[parameter.name] for task in latents.beliefs.tasks], dtype=np.float64)
        values = values.reshape(len(latents.beliefs.tasks), -1).repeat(num_streams, axis=0)
        is_log = isinstance(parameter.prior, LogUniform)
        for i, label in enumerate(parameter.components):
            own = score.score if is_angle(parameter) else list(score.columns.values())[i]
            unit = f", {parameter.unit}" if parameter.unit else ""
            colours = colours_of(values[:, i], is_angle(parameter), is_log)
            r2 = -math.inf if own.r2 is None else own.r2
            found.append((r2, f"{label}{unit}\n{_r2(own)}", values[:, i], colours))
    best = sorted(range(len(found)), key=lambda i: -found[i][0])[:MAX_PANELS]
    return [found[i][1:] for i in sorted(best)], len(found) - len(best)


def _r2(score: Score) -> str:
    if score.r2 is None or score.ci95 is None:
        return "the same on all tasks"
    return f"linear probe: R2 = {score.r2:.2f} [{score.ci95[0]:.2f}, {score.ci95[1]:.2f}]"


def colours_of(values: np.ndarray, is_circular: bool, is_log: bool) -> tuple[str, Normalize]:
    """Which colours, over which range; those of angles all round go round too, so that 0 and 2 pi look alike."""
    low, high = float(values.min()), float(values.max())
    if is_circular and high - low > 1.5 * math.pi:
        return "twilight", Normalize(0.0, 2 * math.pi)
    return "viridis", LogNorm(low, high) if is_log and low < high else Normalize(low, high)


def _draw_width(axes: Axes, latents: Latents) -> None:
    n = [w.transitions for w in latents.widths]
    axes.axhline(1.0, color=GREY, lw=1.0, ls=_DASHED, label="the prior's")
    for i, each in enumerate(np.array([w.per_latent for w in latents.widths]).T):
        axes.plot(n, each, color=SKY, lw=0.9, label="of each latent" if i == 0 else None)
    bounds = ([w.p10 for w in latents.widths], [w.p90 for w in latents.widths])
    axes.fill_between(n, *bounds, color=BLUE, alpha=0.18, lw=0, label="80 % of tasks")
    axes.plot(n, [w.mean for w in latents.widths], color=BLUE, lw=2.0, marker="o", ms=3.5, label="mean")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(bottom=0.0)
    axes.set_xlabel("transitions seen", fontsize=9)
    axes.set_ylabel("std of the belief", fontsize=9)
    axes.set_title("how sure it is", loc="left", fontsize=10, color=INK)
    axes.legend(frameon=False, fontsize=8)


def _draw_means(
    figure: Figure,
    axes: Axes,
    points: np.ndarray,
    values: np.ndarray,
    title: str,
    labels: tuple[str, str],
    colours: str,
    scale: Normalize,
) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#999999")
    axes.tick_params(color="#999999", labelsize=9)
    cmap = dark_viridis() if colours == "viridis" else colours
    drawn = axes.scatter(points[:, 0], points[:, 1], c=values, cmap=cmap, norm=scale, s=22, lw=0.3, edgecolor=INK)
    bar = figure.colorbar(drawn, ax=axes, pad=0.02, fraction=0.05)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8)
    axes.locator_params(nbins=5)
    axes.set_xlabel(labels[0], fontsize=9)
    axes.set_ylabel(labels[1], fontsize=9)
    axes.set_title(title, loc="left", fontsize=10, color=INK)
