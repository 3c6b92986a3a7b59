"""What variation costs: stepping varied robots against the same robots unvaried, on the native path, in turn A B A B.

Varied: eight model fields, an action delay of up to two steps with fractions, and observation noise. The last line is
one JSON object; `ratio` is the median of varied over unvaried steps per second.

    python experiments/benchmarks/variation.py [--sims 200] [--steps 200] [--repeats 7] [--env HalfCheetah-v5]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
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
RANGE = {"uniform": [0.8, 1.25]}
EFFECTS = {"action_delay": {"prior": {"uniform": [0, 2]}}, "observation_noise": {"prior": {"uniform": [0.0, 0.05]}}}
ONE = {"mass": {"field": "gravity", "prior": {"choice": [1.0, 1.0001]}}}  # as good as unvaried


def varied(env: str) -> MujocoVariation:
    vary: dict[str, Any] = {field.split("[")[0]: {"field": field, "prior": RANGE} for field in FIELDS}
    vary["body_ipos"] |= {"mode": "add", "columns": [0], "prior": {"uniform": [-0.02, 0.02]}}
    vary["jnt_stiffness"] |= {"mode": "add"}
    return MujocoVariation(env=env, vary=vary, effects=EFFECTS, unstable="terminate")


def steps_per_second(batch: TaskBatch, actions: np.ndarray) -> float:
    """Of one episode, the reset included; episodes that end early are left where they are."""
    start = time.perf_counter()
    batch.reset(seed=0)
    for action in actions:
        batch.step(action)
    return len(actions) * batch.num_envs / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sims", type=int, default=200)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--env", default="HalfCheetah-v5")
    arguments = parser.parse_args()
    families = (varied(arguments.env), MujocoVariation(env=arguments.env, vary=ONE, unstable="terminate"))
    batches = [family.make_batch(family.sample("train", arguments.sims, 0)) for family in families]
    space = batches[0].single_action_space
    shape = (arguments.steps, arguments.sims, *(space.shape or ()))
    actions = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    rates: list[list[float]] = [[], []]
    for i in range(arguments.repeats + 1):  # the first round warms up
        for batch, measured in zip(batches, rates, strict=True):
            rate = steps_per_second(batch, actions)
            if i:
                measured.append(rate)
    ratios = [one / other for one, other in zip(*rates, strict=True)]
    print(f"varied {statistics.median(rates[0]):,.0f} env steps/s, unvaried {statistics.median(rates[1]):,.0f}")
    result = {
        "env": arguments.env,
        "sims": arguments.sims,
        "varied_per_s": round(statistics.median(rates[0])),
        "unvaried_per_s": round(statistics.median(rates[1])),
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
