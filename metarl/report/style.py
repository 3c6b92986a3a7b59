"""What all pictures share: colours, a figure, saving.

Drawn on Figure objects directly, never through pyplot: no global state, no display, safe in any thread.
Colours: Okabe and Ito (2008) for categories, viridis without its palest end for a scalar; both read under
colour-vision deficiency.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.figure import Figure

from metarl.report.labels import RETURN

BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, BROWN, GREY = "#E69F00", "#56B4E9", "#7F5F3F", "#777777"
CATEGORIES = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BROWN, GREY)
INK = "#1a1a1a"
_SUBTLE = "#444444"


def new_figure(title: str, subtitle: str, size_inches: tuple[float, float] = (8.4, 5.2)) -> tuple[Figure, Axes]:
    """A white figure with one set of axes, a light grid, a bold title and smaller lines below it, as wide as fits."""
    figure = Figure(figsize=size_inches, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#999999")
    axes.tick_params(color="#999999", labelsize=9)
    axes.grid(axis="y", color="#e6e6e6", lw=0.8)
    axes.set_axisbelow(True)
    axes.set_ylabel(RETURN)
    figure.suptitle(_wrapped(title, size_inches[0], 0.115), x=0.012, ha="left", fontsize=13, fontweight="bold")
    axes.set_title(_wrapped(subtitle, size_inches[0] - 0.9, 0.07), loc="left", fontsize=9.5, color=_SUBTLE, pad=10)
    return figure, axes


def _wrapped(text: str, inches: float, inches_per_letter: float) -> str:
    return "\n".join(textwrap.fill(line, int(inches / inches_per_letter)) for line in text.splitlines())


def add_legend(figure: Figure, axes: Axes) -> None:
    """A legend below the axes, where it hides nothing; a name that several lines share stands there once."""
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    longest = max(map(len, labels))
    room = int(figure.get_figwidth() / (0.085 * longest + 0.45))  # inches of a name of that length, with its line
    columns = min(2 if longest > 26 else 3, max(room, 1))
    names = [name for column in range(columns) for name in list(unique)[column::columns]]  # read row by row
    figure.legend(
        [unique[name] for name in names], names, loc="outside lower center", ncols=columns, frameon=False, fontsize=9
    )


def plain(text: str) -> str:
    """Text that matplotlib takes as it is: a dollar sign starts no formula."""
    return text.replace("$", r"\$")


def dark_viridis() -> Colormap:
    """viridis without its palest tenth, which thin lines lose on white."""
    return ListedColormap(colormaps["viridis"](np.linspace(0.0, 0.9, 256)))


def save(figure: Figure, path: Path) -> None:
    """Write a PNG, making its folder where needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, facecolor="white", format="png")
