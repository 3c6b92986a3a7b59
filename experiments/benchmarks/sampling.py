"""How near sampling comes to the physics limit: trials on Ray actors against bare stepping of the same simulations.

With everything on: 40 variants of HalfCheetahDynamics x 20 streams, every simulation with its own masses, frictions
and motors, each task's own adapted 2x64 policy (collect, inner gradient step, collect), storage, transport through
the object store, and tensors for the learner. The limit replays the very actions of those trials open-loop, on the
same simulations and processors, with nothing else: no policy, no observation, no storage. Both run in turn, A B A B;
the last line is one JSON object.

    python experiments/benchmarks/sampling.py [--actors 2] [--repeats 4]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence

import numpy as np
import torch

from metarl.algorithms.maml.config import MAMLConfig
from metarl.algorithms.maml.learner import MAML
from metarl.algorithms.tensors import RoundTensors
from metarl.distributed import RayExecutor, connect
from metarl.rollout.policy import Spaces
from metarl.rollout.spaces import env_action_map
from metarl.rollout.types import TrialBatch
from metarl.tasks import TaskDistribution, load_distribution
from metarl.tasks.mujoco import MujocoBatch
from metarl.training.loop import units_of

TASKS, TASKS_PER_UNIT, HORIZON = 40, 10, 100


def replay(distribution: TaskDistribution, trials: Sequence[TrialBatch]) -> float:
    """Seconds that the physics alone takes for all steps of `trials`, all simulations in one thread pool."""
    streams = trials[0].rounds[0].actions.shape[1]
    batch = distribution.make_batch([task for trial in trials for task in trial.tasks for _ in range(streams)])
    assert isinstance(batch, MujocoBatch)
    seconds = 0.0
    for index in range(len(trials[0].rounds)):
        actions = np.concatenate([trial.rounds[index].actions for trial in trials])  # [K, N, T, A]
        controls = env_action_map(batch.single_action_space)(actions).astype(np.float64)
        controls = np.ascontiguousarray(np.moveaxis(controls.reshape(batch.num_envs, HORIZON, -1), 1, 0))
        batch.reset(seed=index)
        start = time.perf_counter()
        for control in controls:
            batch.physics.ctrl[:] = control
            batch.physics.step(None, distribution.frame_skip)  # type: ignore[attr-defined]
        seconds += time.perf_counter() - start
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--actors", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=4)
    arguments = parser.parse_args()
    distribution = load_distribution("HalfCheetahDynamics", horizon=HORIZON)
    tasks = distribution.sample("train", TASKS, 0)
    batch = distribution.make_batch(tasks[:1])
    spaces = Spaces.of(batch.single_observation_space, batch.single_action_space)
    learner = MAML(MAMLConfig(name="maml", tasks_per_iteration=TASKS), spaces, torch.device("cpu"), seed=0)
    plan = learner.plan(HORIZON)
    steps = TASKS * plan.max_steps
    rates: list[float] = []
    limits: list[float] = []
    with connect(None, num_cpus=arguments.actors):
        executor = RayExecutor(distribution, learner.policy, num_workers=arguments.actors)
        for i in range(arguments.repeats + 1):  # the first round warms up: actors import, environments are built
            units = units_of(tasks, plan, TASKS_PER_UNIT, 0, i)
            start = time.perf_counter()
            trials = executor.collect(units, learner.weights(), version=i)
            for rounds in zip(*(trial.rounds for trial in trials), strict=True):
                RoundTensors.of(rounds, learner.device)
            rate = steps / (time.perf_counter() - start)
            limit = steps / replay(distribution, trials)
            if i:
                rates.append(rate)
                limits.append(limit)
                print(f"{rate:,.0f} env steps/s of {limit:,.0f}: {rate / limit:.3f}", flush=True)
        executor.close()
    result = {
        "actors": arguments.actors,
        "env_steps_per_s": round(statistics.median(rates)),
        "physics_limit_per_s": round(statistics.median(limits)),
        "ratio_to_physics": round(statistics.median(r / p for r, p in zip(rates, limits, strict=True)), 3),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
