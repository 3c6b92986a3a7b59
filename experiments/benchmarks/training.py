"""Whole-loop speed of meta-training: env steps per second, and where the time goes.

Runs a configuration's real training loop (Ray actors, learner, logging; no evaluation, no checkpoint but the last)
for some iterations in a temporary run directory and reads its own record. The last line is one JSON object with the
medians over the iterations after the warm-up.

The default is HalfCheetahDir with the papers' batch: horizon 100, 40 tasks x 20 episodes per round.

    python experiments/benchmarks/training.py [CONFIG] [--iterations 12] [key=value ...]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from metarl.config import load_config
from metarl.distributed import RayExecutor, connect
from metarl.training.loop import train

WARM_UP = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "config", type=Path, nargs="?", default=Path(__file__).parents[1] / "half_cheetah_dir_promp.yaml"
    )
    parser.add_argument("overrides", nargs="*", default=["algorithm.tasks_per_iteration=40"])
    parser.add_argument("--iterations", type=int, default=12)
    parser.add_argument("--actors", type=int, default=2)
    arguments = parser.parse_args()
    overrides = [
        *arguments.overrides,
        f"training.iterations={arguments.iterations + WARM_UP}",
        "training.evaluate_every=0",
    ]
    config = load_config(arguments.config, [*overrides, "training.checkpoint_every=1000000"])
    with tempfile.TemporaryDirectory() as folder, connect(None, num_cpus=arguments.actors):
        train(
            config,
            Path(folder) / "run",
            lambda distribution, policy: RayExecutor(distribution, policy, num_workers=arguments.actors),
        )
        lines = (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines][WARM_UP:]
    medians = {
        k: statistics.median(r[k] for r in records) for k in ("env_steps_per_s", "sample_s", "learn_s", "other_s")
    }
    total = medians["sample_s"] + medians["learn_s"] + medians["other_s"]
    result = {
        "config": arguments.config.stem,
        "overrides": arguments.overrides,
        "env_steps_per_s": round(medians["env_steps_per_s"]),
        "sample_share": round(medians["sample_s"] / total, 3),
        "learn_share": round(medians["learn_s"] / total, 3),
        "other_share": round(medians["other_s"] / total, 3),
        "iteration_s": round(total, 3),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
