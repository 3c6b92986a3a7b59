"""How near sampling comes to the physics limit: trials on Ray actors against bare stepping of the same simulations.

With everything on: 40 variants of HalfCheetahDynamics x 20 streams, every simulation with its own masses, frictions
and motors, each task's own adapted 2x64 policy (collect, inner gradient step, collect), storage, transport through
the object store, and tensors for the learner. The limit replays the very actions of those trials open-loop, on the
same simulations and processors, with nothing else: no policy, no observation, no storage. Both run in turn, A B A B;
the last line is one JSON object.

    python experiments/benchmarks/sampling.py [--actors 2] [--repeats 4] [--tasks 40] [--horizon 100]
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from _physics import physics_limit_per_s
from _timing import paired_ratio, reported

from metarl.algorithms.maml.config import MAMLConfig
from metarl.algorithms.maml.learner import MAML
from metarl.algorithms.tensors import RoundTensors
from metarl.distributed import RayExecutor, connect
from metarl.rollout.spaces import Spaces
from metarl.tasks import load_distribution
from metarl.training.loop import units_of

TASKS_PER_UNIT = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--actors", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--tasks", type=int, default=40)
    parser.add_argument("--horizon", type=int, default=100)
    arguments = parser.parse_args()
    with reported() as result:
        result |= measure(arguments.actors, arguments.repeats, arguments.tasks, arguments.horizon)


def measure(actors: int, repeats: int, num_tasks: int, horizon: int) -> dict[str, object]:
    """The rates of sampling and of the physics alone, and their ratio."""
    distribution = load_distribution("HalfCheetahDynamics", horizon=horizon)
    tasks = distribution.sample("train", num_tasks, 0)
    batch = distribution.make_batch(tasks[:1])
    spaces = Spaces.of(batch.single_observation_space, batch.single_action_space)
    learner = MAML(MAMLConfig(name="maml", tasks_per_iteration=num_tasks), spaces, torch.device("cpu"), seed=0)
    plan = learner.plan(horizon)
    steps = num_tasks * plan.max_steps
    rates: list[float] = []
    limits: list[float] = []
    with connect(None, num_cpus=actors):
        executor = RayExecutor(distribution, learner.policy, num_workers=actors)
        for i in range(repeats + 1):  # the first round warms up: actors import, environments are built
            units = units_of(tasks, plan, TASKS_PER_UNIT, 0, i)
            start = time.perf_counter()
            trials = executor.collect(units, learner.weights(), version=i)
            for rounds in zip(*(trial.rounds for trial in trials), strict=True):
                RoundTensors.of(rounds, learner.device)
            rate = steps / (time.perf_counter() - start)
            limit = physics_limit_per_s(distribution, trials)
            if i:
                rates.append(rate)
                limits.append(limit)
                print(f"{rate:,.0f} env steps/s of {limit:,.0f}: {rate / limit:.3f}", flush=True)
        executor.close()
    return {
        "actors": actors,
        "tasks": num_tasks,
        "horizon": horizon,
        "env_steps_per_s": round(statistics.median(rates)),
        "physics_limit_per_s": round(statistics.median(limits)),
        "ratio_to_physics": round(paired_ratio(rates, limits), 3),
    }


if __name__ == "__main__":
    main()
