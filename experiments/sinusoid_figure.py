"""The picture of `sinusoid_regression.py`: error against gradient steps for each number of shots, an example task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter
from sinusoid_regression import (
    METHODS,
    NUM_HELD_OUT,
    TEST,
    Result,
    constant_rates,
    fine_tune,
    held_out,
    predict,
    sinusoid,
)

from metarl.report.style import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, VERMILLION, new_figure, save

COLOURS = {
    "maml": BLUE,
    "fomaml": GREEN,
    "reptile": PURPLE,
    "meta_sgd": ORANGE,
    "pretrained": VERMILLION,
    "oracle": GREY,
}
_DASHED = (0, (2, 1.6))
_HIGHEST = 10.0  # Meta-SGD leaves the picture beyond the one step it is trained for


def draw(results: Sequence[Result], path: Path) -> None:
    """Write the picture as a PNG."""
    shots = sorted({result.shots for result in results})
    shown = [r for r in results if r.shots == shots[-1] and r.name in ("maml", "pretrained")]
    num_panels = len(shots) + bool(shown)
    figure, first = new_figure(
        "Few-shot sinusoid regression: error against gradient steps", "", (4.2 * num_panels + 0.6, 4.6)
    )
    grid = figure.add_gridspec(1, num_panels, width_ratios=[1.0] * len(shots) + [1.25] * bool(shown))
    first.set_subplotspec(grid[0])
    panels = [first, *(figure.add_subplot(grid[i]) for i in range(1, num_panels))]
    for axes in panels:
        _plain(axes)
    means = np.concatenate([result.curve()[0] for result in results])
    lowest = 0.6 * float(means.min())
    for axes, number in zip(panels, shots, strict=False):
        _draw_errors(axes, [r for r in results if r.shots == number], lowest)
        axes.set_title(f"{number} support points", loc="left", fontsize=10, color=INK)
    first.set_ylabel(f"mean squared error, {NUM_HELD_OUT} held-out tasks\nband: 95 % interval over tasks", fontsize=9)
    handles, labels = first.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=len(labels), frameon=False, fontsize=9)
    if shown:
        _draw_example(panels[-1], shown, shots[-1])
    save(figure, path)


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#999999")
    axes.tick_params(which="both", color="#999999", labelsize=9)
    axes.grid(axis="y", color="#e6e6e6", lw=0.8)
    axes.set_axisbelow(True)
    axes.set_ylabel("")


def _draw_errors(axes: Axes, results: Sequence[Result], lowest: float) -> None:
    for result in results:
        means, (low, high) = result.curve()
        steps, colour = np.arange(len(means)), COLOURS[result.name]
        is_reference = METHODS[result.name].sees_task
        axes.fill_between(steps, low, high, color=colour, alpha=0.18, lw=0)
        style = {"ls": _DASHED} if is_reference else {"marker": "o", "ms": 3.5}
        axes.plot(steps, means, color=colour, lw=1.7, label=METHODS[result.name].label, **style)
    axes.set_yscale("log")
    axes.set_ylim(lowest, _HIGHEST)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xticks(range(0, 11, 2))
    axes.set_xlabel("gradient steps on the support points", fontsize=9)


def _draw_example(axes: Axes, results: Sequence[Result], shots: int) -> None:
    """The nets before and after one step, on the first test task of a large amplitude and a phase far from the mean."""
    batch = held_out(TEST, shots)
    k = int(((batch.amplitude > 3) & (batch.phase < 0.5)).nonzero()[0])
    x = torch.linspace(-5, 5, 201)[None, :, None]
    truth = sinusoid(x, batch.amplitude[k : k + 1], batch.phase[k : k + 1])
    axes.plot(x.flatten(), truth.flatten(), color=INK, lw=1.3, label="true curve")
    for result in results:
        trained, colour, label = result.trained, COLOURS[result.name], METHODS[result.name].label
        rates = constant_rates(trained.theta, result.rates[0][1]) if result.rates[0] else trained.rates
        for params, when, style in zip(fine_tune(trained.theta, rates, batch, 1), "01", (_DASHED, "-"), strict=True):
            one = {name: value[k : k + 1].detach() for name, value in params.items()}
            name = f"{label}, before" if when == "0" else f"{label}, after 1 step"
            axes.plot(x.flatten(), predict(one, x).flatten(), color=colour, lw=1.7, ls=style, label=name)
    points = batch.support_x[k].flatten(), batch.support_y[k].flatten()
    axes.plot(*points, "o", color=INK, ms=5, mec="white", mew=0.8, label=f"{shots} support points", zorder=5)
    top = float(batch.amplitude[k])
    axes.set_ylim(-1.15 * top, 1.95 * top)
    axes.legend(frameon=False, fontsize=8, ncols=2, loc="upper left", borderaxespad=0.2)
    axes.set_title("one held-out task", loc="left", fontsize=10, color=INK)
    axes.set_xlabel("x", fontsize=9)
