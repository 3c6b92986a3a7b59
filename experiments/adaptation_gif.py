"""An animation of adaptation: a trained policy searches for a goal that it is not told, and remembers it.

Collects one trial of a run on SparsePointGoal and draws its episodes side by side, step by step. The policy sees its
position and its reward; the goal is drawn for the reader alone.

    python experiments/adaptation_gif.py [RUN] [--angle 0.41] [--out experiments/figures/sparse_point_rl2.gif]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from metarl.report.style import BLUE, GREY, INK, VERMILLION
from metarl.rollout.local import LocalExecutor
from metarl.rollout.types import Round, Unit
from metarl.runs.build import load_run

HERE = Path(__file__).parent
GOAL_RADIUS = 0.2  # of SparsePointGoal
EVERY = 3  # steps per picture
PAUSE = 12  # pictures of the end


def collect(run: Path, angle: float) -> tuple[Round, ...]:
    """The rounds of one trial, one stream, of the run's policy on the goal at `angle`."""
    trained = load_run(run)
    task = trained.distribution.task(angle=angle)
    plan = trained.algorithm.evaluation_plan(trained.distribution.horizon, trained.config.evaluation.settings)
    executor = LocalExecutor(trained.distribution, trained.algorithm.policy)
    try:
        (batch,) = executor.collect([Unit(0, (task,), plan, (0, 0, 0))], trained.algorithm.weights(), 0)
    finally:
        executor.close()
    return batch.rounds


def draw(rounds: tuple[Round, ...], goal: np.ndarray, step: int) -> np.ndarray:
    """The picture at a step of the trial, [height, width, 3] uint8: episodes that are over, and the one under way."""
    figure = Figure(figsize=(7.2, 2.05), dpi=100, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    before = 0
    for index, round_ in enumerate(rounds):
        length = int(round_.lengths[0, 0])
        shown = int(np.clip(step - before, 0, length))
        axes = figure.add_subplot(1, len(rounds), index + 1)
        axes.set_xlim(-1.35, 1.35)
        axes.set_ylim(-0.55, 1.45)
        axes.set_aspect("equal")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_color("#cccccc")
        axes.add_patch(Circle((float(goal[0]), float(goal[1])), GOAL_RADIUS, color=VERMILLION, alpha=0.25, lw=0))
        path = round_.observations[0, 0, : max(shown, 1), :2]
        axes.plot(path[:, 0], path[:, 1], color=BLUE if shown else GREY, lw=1.8)
        if 0 < shown < length or (shown == length and index == len(rounds) - 1):
            axes.plot(path[-1:, 0], path[-1:, 1], "o", color=INK, ms=6)
        earned = float(round_.rewards[0, 0, :shown].sum())
        axes.set_title(f"episode {index + 1}: return {earned:.0f}", fontsize=10, color=INK if shown else GREY)
        before += length
    figure.subplots_adjust(left=0.01, right=0.99, top=0.9, bottom=0.02, wspace=0.04)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, nargs="?", default=HERE / "pretrained" / "sparse_point_rl2")
    parser.add_argument("--angle", type=float, default=0.41, help="of the goal on the unit semicircle, in radians")
    parser.add_argument("--out", type=Path, default=HERE / "figures" / "sparse_point_rl2.gif")
    arguments = parser.parse_args()
    rounds = collect(arguments.run, arguments.angle)
    goal = np.array([np.cos(arguments.angle), np.sin(arguments.angle)])
    total = sum(int(round_.lengths[0, 0]) for round_ in rounds)
    frames = [draw(rounds, goal, step) for step in range(0, total + EVERY, EVERY)]
    frames += [frames[-1]] * PAUSE
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    imageio.imwrite(arguments.out, np.stack(frames), duration=60, loop=0)
    print(f"{arguments.out}: returns {', '.join(f'{float(r.returns[0, 0]):.1f}' for r in rounds)}")


if __name__ == "__main__":
    main()
