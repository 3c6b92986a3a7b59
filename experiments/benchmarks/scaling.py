"""What a second actor brings, and what a thousand would: measured with one and with two, predicted from there on.

Measured: env steps per second of sampling, on one actor and on two in turn (A B A B) in one process, with everything
that sampling.py has on; then each cost alone. Two actors need two idle processors. Predicted: the efficiency on 8 to
1,000 actors and its bottleneck (_scaling_model.py), for the measured batch, and for one that grows with the actors
(4 units for each, learned from by a learner as fast as this one). The last line is one JSON object.

    python experiments/benchmarks/scaling.py [--repeats 6] [--gbit 10] [--learner-s SECONDS] [--tasks 40]
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import statistics
import time
from collections.abc import Sequence

import numpy as np
import torch
from _scaling_model import Costs, Prediction, predict
from _timing import paired_ratio, reported
from rich.console import Console
from rich.table import Table

from metarl.algorithms.maml.config import MAMLConfig
from metarl.algorithms.maml.learner import MAML
from metarl.algorithms.tensors import RoundTensors
from metarl.distributed import RayExecutor, connect
from metarl.rollout.executor import Executor
from metarl.rollout.spaces import Spaces
from metarl.rollout.types import TrialBatch, Unit
from metarl.tasks import TaskDistribution, load_distribution
from metarl.training.loop import units_of

TASKS_PER_UNIT = 5
ACTORS = (8, 16, 32, 64, 128, 256, 512, 1000)
UNITS_PER_ACTOR = 4
_EMPTY_CALLS = 200


def learner_for(distribution: TaskDistribution, config: MAMLConfig) -> MAML:
    batch = distribution.make_batch(distribution.sample("train", 1, 0))
    spaces = Spaces.of(batch.single_observation_space, batch.single_action_space)
    batch.close()
    return MAML(config, spaces, torch.device("cpu"), seed=0)


def units_for(distribution: TaskDistribution, learner: MAML, tasks_per_unit: int, iteration: int) -> list[Unit]:
    tasks = learner.tasks(distribution, 0, iteration)
    return units_of(tasks, learner.plan(distribution.horizon), tasks_per_unit, 0, iteration)


def collect(executor: Executor, learner: MAML, units: Sequence[Unit], version: int) -> tuple[list[TrialBatch], float]:
    """The trials, and the seconds until they are tensors for the learner."""
    start = time.perf_counter()
    trials = executor.collect(units, learner.weights(), version)
    to_tensors(trials, learner)
    return trials, time.perf_counter() - start


def to_tensors(trials: Sequence[TrialBatch], learner: MAML) -> None:
    for rounds in zip(*(trial.rounds for trial in trials), strict=True):
        RoundTensors.of(rounds, learner.device)


def rates_in_turn(distribution: TaskDistribution, learner: MAML, repeats: int) -> list[list[float]]:
    """Env steps per second on one and on two actors, after a warm-up of each."""
    rates: list[list[float]] = [[], []]
    executors = [RayExecutor(distribution, learner.policy, num_workers=n) for n in (1, 2)]
    for i in range(repeats + 1):
        units = units_for(distribution, learner, TASKS_PER_UNIT, i)
        for executor, rate in zip(executors, rates, strict=True):
            trials, seconds = collect(executor, learner, units, i)
            if i:
                rate.append(sum(trial.num_steps for trial in trials) / seconds)
    for executor in executors:
        executor.close()
    return rates


def call_s(repeats: int) -> float:
    """Seconds per call with next to nothing in it, on two actors: the driver's share of it is at most that."""
    distribution = load_distribution("PointGoal", horizon=1)
    learner = learner_for(distribution, MAMLConfig(name="maml", tasks_per_iteration=_EMPTY_CALLS, num_streams=1))
    with RayExecutor(distribution, learner.policy, num_workers=2) as executor:
        units = units_for(distribution, learner, 1, 0)
        times = [collect(executor, learner, units, i)[1] for i in range(repeats + 1)]
    return statistics.median(times[1:]) / len(units)


def measure(distribution: TaskDistribution, learner: MAML, repeats: int, gbit: float) -> Costs:
    """Each cost alone. A result's transfer: its bytes at the network's speed, and its way into tensors."""
    seconds: list[float] = []
    with RayExecutor(distribution, learner.policy, num_workers=1) as executor:
        for i in range(repeats + 1):
            trials = []
            for unit in units_for(distribution, learner, TASKS_PER_UNIT, i):
                start = time.perf_counter()
                trials += executor.collect([unit], learner.weights(), i)
                if i:
                    seconds.append(time.perf_counter() - start)
    start = time.perf_counter()
    to_tensors(trials, learner)
    tensors_s = time.perf_counter() - start
    learner.update(trials, progress=0.0)  # a warm-up
    start = time.perf_counter()
    learner.update(trials, progress=0.0)
    learner_s = time.perf_counter() - start
    a_call_s, unit_s = call_s(repeats), statistics.fmean(seconds)
    return Costs(
        unit_s=unit_s - a_call_s,
        spread=statistics.stdev(seconds) / unit_s,
        call_s=a_call_s,
        transfer_s=8 * statistics.fmean(map(bytes_of, trials)) / (gbit * 1e9) + tensors_s / len(trials),
        learner_s=learner_s / len(trials),
    )


def bytes_of(trial: TrialBatch) -> int:
    """Of its arrays."""

    def count(value: object) -> int:
        if isinstance(value, dict):
            return sum(map(count, value.values()))
        return value.nbytes if isinstance(value, np.ndarray) else 0

    return sum(count(getattr(r, field.name)) for r in trial.rounds for field in dataclasses.fields(r))


def table(title: str, whole: Sequence[Prediction], sampling: Sequence[Prediction]) -> Table:
    shown = Table(title=title, title_justify="left")
    for column in ("actors", "units", "iteration", "efficiency", "bottleneck", "sampling alone", "its bottleneck"):
        shown.add_column(column, justify="left" if "bottleneck" in column else "right")
    for p, s in zip(whole, sampling, strict=True):
        row = [f"{p.actors:,}", f"{p.units:,}", f"{p.iteration_s:.2f} s", f"{p.efficiency:.3f}", p.bottleneck]
        shown.add_row(*row, f"{s.efficiency:.3f}", s.bottleneck)
    return shown


def print_predictions(costs: Costs, num_units: int) -> dict[str, list[dict[str, object]]]:
    """The tables; all that is in them."""
    console = Console(width=110)
    found: dict[str, list[dict[str, object]]] = {}
    alone = dataclasses.replace(costs, learner_s=0.0)
    for name, units in (
        (f"this batch of {num_units} units", [num_units] * len(ACTORS)),
        (f"{UNITS_PER_ACTOR} units per actor", [UNITS_PER_ACTOR * actors for actors in ACTORS]),
    ):
        whole, sampling = (
            [predict(c, actors, num) for actors, num in zip(ACTORS, units, strict=True)] for c in (costs, alone)
        )
        console.print(table(f"predicted: {name}", whole, sampling))
        found |= {name: as_json(whole), f"{name}, sampling alone": as_json(sampling)}
    return found


def as_json(predictions: Sequence[Prediction]) -> list[dict[str, object]]:
    return [
        dataclasses.asdict(p) | {"iteration_s": round(p.iteration_s, 3), "efficiency": round(p.efficiency, 3)}
        for p in predictions
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=6)
    parser.add_argument("--gbit", type=float, default=10.0, help="the driver's network, in gigabits per second")
    parser.add_argument("--learner-s", type=float, help="per update of the measured batch, instead of this machine's")
    parser.add_argument("--tasks", type=int, default=40)
    parser.add_argument("--horizon", type=int, default=100)
    arguments = parser.parse_args()
    distribution = load_distribution("HalfCheetahVel", horizon=arguments.horizon)
    learner = learner_for(distribution, MAMLConfig(name="maml", tasks_per_iteration=arguments.tasks))
    num_units = math.ceil(arguments.tasks / TASKS_PER_UNIT)
    with reported() as result:
        with connect(None, num_cpus=3):  # one actor and two: those out of turn stand still
            on_one, on_two = rates_in_turn(distribution, learner, arguments.repeats)
            costs = measure(distribution, learner, arguments.repeats, arguments.gbit)
        if arguments.learner_s is not None:
            costs = dataclasses.replace(costs, learner_s=arguments.learner_s / num_units)
        one, two, speedup = statistics.median(on_one), statistics.median(on_two), paired_ratio(on_two, on_one)
        print(f"1 actor {one:,.0f}, 2 actors {two:,.0f} env steps/s: {speedup:.2f} times as many")
        result |= {
            "tasks": arguments.tasks,
            "horizon": arguments.horizon,
            "env_steps_per_s": {"1": round(one), "2": round(two)},
            "speedup_2_actors": round(speedup, 3),
            "costs": {name: float(f"{value:.3g}") for name, value in dataclasses.asdict(costs).items()},
            "predicted": print_predictions(costs, num_units),
        }


if __name__ == "__main__":
    main()
