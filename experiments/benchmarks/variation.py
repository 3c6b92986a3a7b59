"""What variation costs: stepping varied robots against the same robots unvaried, on the native path, step by step in
turn.

Varied: eight model fields, an action delay of up to two steps with fractions, and observation noise. The ranges of the
fields are narrow and actions are held for 20 steps, so that the robots themselves move, and cost the simulator, the
same. The last line is one JSON object; `ratio` is the median of varied over unvaried steps per second of processor time
(all threads).

    python experiments/benchmarks/variation.py [--sims 200] [--steps 200] [--repeats 5] [--env HalfCheetah-v5]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from metarl.tasks import TaskBatch
from metarl.tasks.variation import MujocoVariation

FIELDS = (
    "body_mass[*]",
    "body_ipos[torso]",
    "geom_friction[*]",
    "dof_damping[*]",
    "dof_armature[*]",
    "jnt_stiffness[*]",
    "actuator_gear[*]",
    "gravity",
)
RANGE = {"uniform": [0.999, 1.001]}
EFFECTS = {"action_delay": {"prior": {"uniform": [0, 2]}}, "observation_noise": {"prior": {"uniform": [0.0, 0.05]}}}
HELD = 20  # steps
ONE = {"mass": {"field": "gravity", "prior": {"choice": [1.0, 1.0001]}}}  # as good as unvaried


def varied(env: str) -> MujocoVariation:
    vary: dict[str, Any] = {field.split("[")[0]: {"field": field, "prior": RANGE} for field in FIELDS}
    vary["body_ipos"] |= {"mode": "add", "columns": [0], "prior": {"uniform": [-1e-4, 1e-4]}}
    return MujocoVariation(env=env, vary=vary, effects=EFFECTS, unstable="terminate")


def seconds_in_turn(batches: Sequence[TaskBatch], actions: np.ndarray) -> list[float]:
    """What one episode takes on each batch, its reset included, step by step in turn."""
    seconds = [0.0] * len(batches)
    for i, batch in enumerate(batches):
        start = time.process_time()
        batch.reset(seed=0)
        seconds[i] += time.process_time() - start
    for action in actions:
        for i, batch in enumerate(batches):
            start = time.process_time()
            batch.step(action)
            seconds[i] += time.process_time() - start
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sims", type=int, default=200)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--env", default="HalfCheetah-v5")
    arguments = parser.parse_args()
    families = (varied(arguments.env), MujocoVariation(env=arguments.env, vary=ONE, unstable="terminate"))
    batches = [family.make_batch(family.sample("train", arguments.sims, 0)) for family in families]
    space = batches[0].single_action_space
    shape = (arguments.steps, arguments.sims, *(space.shape or ()))
    drawn = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    actions = np.repeat(drawn[::HELD], HELD, axis=0)[: arguments.steps]
    seconds_in_turn(batches, actions[:20])  # warms up
    times = [seconds_in_turn(batches, actions) for _ in range(arguments.repeats)]
    ratios = [plain / slow for slow, plain in times]
    rates = [arguments.steps * arguments.sims / statistics.median(column) for column in zip(*times, strict=True)]
    print(f"varied {rates[0]:,.0f} env steps per second of processor time, unvaried {rates[1]:,.0f}")
    result = {
        "env": arguments.env,
        "sims": arguments.sims,
        "varied_per_s": round(rates[0]),
        "unvaried_per_s": round(rates[1]),
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
