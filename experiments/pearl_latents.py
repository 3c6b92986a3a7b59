"""What a PEARL run infers, from the command line: prints tables, writes latents.json and latents.png.

What is computed: `pearl_beliefs.py`.

    python experiments/pearl_latents.py RUN [--tasks 100] [--seed 0] [--out DIR] [evaluation.context=shuffled ...]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from pearl_beliefs import Latents, analyse
from pearl_latents_figure import draw
from rich.console import Console
from rich.table import Table
from rich.text import Text

from metarl.errors import MetarlError
from metarl.evaluation.probe import Score
from metarl.files import write_text
from metarl.runs.build import load_run
from metarl.runs.directory import evaluation_folder

FEW_COMPONENTS = 4  # of a parameter: up to here the table has a line for each


def tables(latents: Latents) -> tuple[Table, Table]:
    """R2 of each parameter, and width against transitions."""
    name, count = latents.distribution.name, len(latents.beliefs.tasks)
    probed = Table(
        title=f"{name}, {count} held-out tasks",
        caption=Text("\n".join((f"{latents.env_steps:,} environment steps", *latents.notes))),
        title_justify="left",
        caption_justify="left",
    )
    for column in ("parameter", "probed as", "R2 from the posterior mean", "95% interval"):
        probed.add_column(column, justify="left" if column in ("parameter", "probed as") else "right", no_wrap=True)
    for parameter in latents.scores:
        unit = f", {parameter.unit}" if parameter.unit else ""
        probed.add_row(Text(parameter.name + unit), parameter.probed_as, *_cells(parameter.score))
        if 1 < len(parameter.columns) <= FEW_COMPONENTS:
            for label, score in parameter.columns.items():
                probed.add_row(Text(f"  {label}"), "", *_cells(score), style="dim")
    width = Table(title="std of the belief; the prior's is 1", title_justify="left")
    for column in ("transitions", "mean", "80% of tasks", "each latent"):
        width.add_column(column, justify="right")
    for w in latents.widths:
        each = " ".join(f"{v:.2f}" for v in w.per_latent)
        width.add_row(f"{w.transitions:.0f}", f"{w.mean:.3f}", Text(f"[{w.p10:.3f}, {w.p90:.3f}]"), each)
    return probed, width


def _cells(score: Score) -> tuple[str, Text]:
    if score.r2 is None or score.ci95 is None:
        return "-", Text("does not vary")
    return f"{score.r2:.2f}", Text(f"[{score.ci95[0]:.2f}, {score.ci95[1]:.2f}]")


# --- command line ------------------------------------------------------------------------------------


def main() -> None:
    """Load the run, roll it out, write latents.json and latents.png, print the tables."""
    parser = argparse.ArgumentParser(description="What a PEARL run infers about its tasks")
    parser.add_argument("run", type=Path, metavar="RUN", help="a PEARL run; config.yaml and checkpoints/")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="of the run's configuration, for this alone")
    parser.add_argument("--tasks", type=int, default=100, help="of each split [default: 100]")
    parser.add_argument("--seed", type=int, help="of the tasks and of all draws [default: the run's]")
    parser.add_argument("--out", type=Path, help="[default: RUN/evaluations/latents-ITERATION, and the overrides]")
    arguments = parser.parse_intermixed_args()
    if arguments.tasks < 2:
        parser.error("--tasks must be at least 2")
    try:
        trained = load_run(arguments.run, arguments.overrides)
        seed = trained.config.seed if arguments.seed is None else arguments.seed
        latents = analyse(trained, str(arguments.run), arguments.tasks, seed, arguments.overrides)
        iteration = trained.checkpoint.iteration
        folder = arguments.out or evaluation_folder(arguments.run, "latents", iteration, arguments.overrides)
        folder.mkdir(parents=True, exist_ok=True)
    except (MetarlError, OSError) as error:
        parser.error(str(error))
    write_text(folder / "latents.json", json.dumps(latents.to_json(), indent=1, allow_nan=False) + "\n")
    draw(latents, folder / "latents.png")
    console = Console()
    for table in tables(latents):
        console.print(table)
    for written in ("latents.json", "latents.png"):
        console.print(str(folder / written), markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
