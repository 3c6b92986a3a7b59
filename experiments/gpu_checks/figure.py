"""The figure: updates per second by device and mode, and how training divides its time.

python experiments/gpu_checks/figure.py DIR       draws it again from DIR/gpu_check.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from metarl.report.style import BLUE, CATEGORIES, GREY, ORANGE

_SHARES = {"sample_share": ("sampling", BLUE), "learn_share": ("learning", ORANGE), "other_share": ("other", GREY)}


def draw(report: dict[str, Any], path: Path) -> None:
    """Write the figure of what `report` holds; parts that are missing leave their axes empty."""
    figure = Figure(figsize=(12, 5.6), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    device = report["device"] or "no device"
    note = ", rehearsal with small sizes" if report["is_rehearsal"] else ""
    figure.suptitle(f"The learner on {device}{note}", x=0.012, ha="left", fontsize=13, fontweight="bold")
    _draw_speed(left, report["parts"].get("speed", {}).get("results", {}))
    _draw_shares(right, report["parts"].get("training", {}).get("results", {}))
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=9)
        axes.set_axisbelow(True)
        axes.grid(axis="x", color="#e6e6e6", lw=0.8)
    figure.savefig(path, dpi=150)


def _draw_speed(axes: Axes, results: dict[str, Any]) -> None:
    """A group of bars for each learner, a bar for each device and mode; the number stands at the bar's end."""
    rates: dict[str, dict[str, float]] = {}
    for key, result in results.items():
        if "updates_per_s" in result:
            learner, place, mode = key.split(" / ")
            rates.setdefault(learner, {})[f"{place}, {mode}"] = result["updates_per_s"]
    modes = list(dict.fromkeys(mode for bars in rates.values() for mode in bars))
    colours = dict(zip(modes, [GREY, *(c for c in CATEGORIES if c != GREY)], strict=False))
    y, ticks = 0.0, []
    for bars in rates.values():
        ticks.append(y + (len(bars) - 1) / 2)
        for mode, rate in bars.items():
            axes.barh(y, rate, height=0.85, color=colours[mode], label=mode)
            axes.annotate(f" {rate:.3g}", (rate, y), va="center", fontsize=8)
            y += 1
        y += 1
    axes.set_yticks(ticks, list(rates))
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")
    axes.margins(x=0.15)
    axes.set_xlabel("updates per second (log scale)")
    axes.set_title("Updates per second", loc="left", fontsize=10)
    _legend(axes)


def _draw_shares(axes: Axes, results: dict[str, Any]) -> None:
    """A bar for each family, divided into sampling, learning and the rest."""
    rows = [(name, result) for name, result in results.items() if "sample_share" in result]
    for y, (_, result) in enumerate(rows):
        x = 0.0
        for key, (label, colour) in _SHARES.items():
            share = 100 * result[key]
            axes.barh(y, share, left=x, height=0.6, color=colour, label=label)
            if share > 6:
                axes.annotate(f"{share:.0f}%", (x + share / 2, y), ha="center", va="center", fontsize=9, color="white")
            x += share
    axes.set_yticks(range(len(rows)), [f"{name}\n{result['env_steps_per_s']:,.0f} steps/s" for name, result in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("share of an iteration's time (%)")
    axes.set_title("Short training runs, local executor", loc="left", fontsize=10)
    _legend(axes)


def _legend(axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    if unique:
        axes.legend(
            list(unique.values()),
            list(unique),
            fontsize=8,
            frameon=False,
            loc="upper left",
            ncols=3,
            bbox_to_anchor=(0, -0.12),
        )


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    draw(json.loads((folder / "gpu_check.json").read_text()), folder / "gpu_check.png")
