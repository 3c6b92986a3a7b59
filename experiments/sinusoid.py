"""Few-shot sinusoid regression from the command line: trains, prints a table, writes sinusoid.json and sinusoid.png.

What is computed: `sinusoid_regression.py`.

    python experiments/sinusoid.py [--methods maml reptile] [--shots 5 10] [--iterations 5000] [--seeds 0 1] [--out DIR]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from sinusoid_figure import draw
from sinusoid_regression import METHODS, NUM_HELD_OUT, Result, evaluate, train

SHOWN_STEPS = (0, 1, 5, 10)


def run_method(name: str, shots: int, iterations: int, seeds: Sequence[int]) -> Result:
    """Train and evaluate one method, with progress lines."""
    start, method = time.process_time(), METHODS[name]
    errors, rates, first = [], [], None
    for seed in seeds:
        recent: list[float] = []

        def report(i: int, loss: float, seed: int = seed, recent: list[float] = recent) -> None:
            recent.append(loss)
            if i % max(1, iterations // 4) == 0:
                text = f"{name:>10}  {shots:2d} shots  seed {seed}  iteration {i:6d}/{iterations}"
                print(f"{text}  training loss {np.mean(recent):6.3f}  {time.process_time() - start:5.0f} s", flush=True)
                recent.clear()

        trained = train(method, shots, iterations, seed, report)
        first = first or trained
        seed_errors, seed_rates = evaluate(trained, shots)
        errors.append(seed_errors)
        rates.append(seed_rates)
    assert first is not None
    return Result(name, shots, errors, rates, first, time.process_time() - start)


def table(results: Sequence[Result]) -> str:
    """Markdown: mean squared error and its interval after some numbers of steps."""
    lines = ["| shots | method | " + " | ".join(f"{s} step" + "s" * (s != 1) for s in SHOWN_STEPS) + " |"]
    lines.append("|---|---|" + "---|" * len(SHOWN_STEPS))
    for result in results:
        means, (low, high) = result.curve()
        cells = [f"{means[s]:.3g} [{low[s]:.3g}, {high[s]:.3g}]" for s in SHOWN_STEPS]
        lines.append(f"| {result.shots} | {METHODS[result.name].label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run everything asked for, print the table, write sinusoid.json and sinusoid.png."""
    parser = argparse.ArgumentParser(description="Few-shot sinusoid regression with metarl's inner loop")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--shots", nargs="+", type=int, default=[5, 10])
    parser.add_argument("--iterations", type=int, default=5000)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--out", type=Path, default=Path("runs/sinusoid"))
    arguments = parser.parse_args()
    if min(*arguments.shots, arguments.iterations, 1) < 1:
        parser.error("--shots and --iterations must be at least 1")
    torch.set_num_threads(1)
    results = [
        run_method(name, shots, arguments.iterations, arguments.seeds)
        for shots in arguments.shots
        for name in arguments.methods
    ]
    print(table(results))
    print(f"{sum(result.seconds for result in results) / 60:.1f} CPU minutes")
    arguments.out.mkdir(parents=True, exist_ok=True)
    settings = {"iterations": arguments.iterations, "seeds": arguments.seeds, "held_out_tasks": NUM_HELD_OUT}
    document = {**settings, "results": [result.record() for result in results]}
    (arguments.out / "sinusoid.json").write_text(json.dumps(document, indent=1))
    draw(results, arguments.out / "sinusoid.png")
    print(arguments.out / "sinusoid.json")


if __name__ == "__main__":
    main()
