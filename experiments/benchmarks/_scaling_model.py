"""What sampling on many actors would cost: a simulation of the driver, the actors and the learner.

    iteration   driver hands units out, one after the other, to every actor that holds fewer than `in_flight`;
                an actor runs its units in order; the driver takes results in, one after the other, as they come;
                when all are there, the learner learns, and the actors wait

One driver serves all actors, so what it does for a unit, `call_s` and `transfer_s`, is never done in parallel. An
actor is one processor. Unit times are lognormal with mean `unit_s` and the relative spread `spread`.

The bottleneck is the cost without which the iteration would gain most: a simulation for each of them, without it.
"""

from __future__ import annotations

import heapq
import math
import statistics
from collections import deque
from dataclasses import dataclass, replace

import numpy as np

_GOOD_ENOUGH = 0.95  # an efficiency beyond which nothing is called a bottleneck
_REPEATS = 8  # simulated iterations


@dataclass(frozen=True)
class Costs:
    """Seconds. `learner_s`: for one unit's data; it grows with the batch."""

    unit_s: float
    spread: float  # standard deviation over mean
    call_s: float  # of the driver, to hand a unit out and take its result in, whatever its size
    transfer_s: float  # of the driver, for the bytes of a result
    learner_s: float


@dataclass(frozen=True)
class Prediction:
    actors: int
    units: int
    iteration_s: float
    efficiency: float  # time spent in units, of the time that all actors have together
    bottleneck: str


def predict(costs: Costs, actors: int, units: int, in_flight: int = 2, seed: int = 0) -> Prediction:
    """The mean iteration, its efficiency, and what stands in the way."""
    seconds = iteration_s(costs, actors, units, in_flight, seed)
    efficiency = units * costs.unit_s / (actors * seconds)
    if efficiency > _GOOD_ENOUGH:
        return Prediction(actors, units, seconds, efficiency, "none")
    waves = math.ceil(units / actors)
    even = units / (waves * actors)  # the size of a unit when there are as many for every actor, and the same work
    without = {
        "driver": iteration_s(replace(costs, call_s=0.0), actors, units, in_flight, seed),
        "transfer": iteration_s(replace(costs, transfer_s=0.0), actors, units, in_flight, seed),
        "stragglers": iteration_s(replace(costs, spread=0.0), actors, units, in_flight, seed),
        "too few units": iteration_s(_cut(costs, even), actors, waves * actors, in_flight, seed),
        "learner": iteration_s(replace(costs, learner_s=0.0), actors, units, in_flight, seed),
    }
    return Prediction(actors, units, seconds, efficiency, min(without, key=lambda name: without[name]))


def _cut(costs: Costs, size: float) -> Costs:
    """Of units of another size, with the same work altogether."""
    return Costs(
        costs.unit_s * size, costs.spread, costs.call_s * size, costs.transfer_s * size, costs.learner_s * size
    )


def iteration_s(costs: Costs, actors: int, units: int, in_flight: int = 2, seed: int = 0) -> float:
    """Mean duration of an iteration."""
    rng = np.random.default_rng(seed)
    num = _REPEATS if costs.spread else 1
    return statistics.fmean(collect_s(costs, actors, unit_times(costs, units, rng), in_flight) for _ in range(num)) + (
        units * costs.learner_s
    )


def unit_times(costs: Costs, units: int, rng: np.random.Generator) -> np.ndarray:
    """Lognormal with mean `unit_s` and standard deviation `spread` * `unit_s`: [units]."""
    variance = math.log1p(costs.spread**2)
    return costs.unit_s * np.exp(math.sqrt(variance) * rng.standard_normal(units) - variance / 2)


def collect_s(costs: Costs, actors: int, times: np.ndarray, in_flight: int) -> float:
    """When the driver has taken in the last result. Half of `call_s` is handing out, half taking in."""
    half_s, in_s = costs.call_s / 2, costs.call_s / 2 + costs.transfer_s
    queue = deque(float(t) for t in times)
    free_at = [0.0] * actors  # when each actor has run all it holds
    results: list[tuple[float, int]] = []  # (when it is there, from whom)
    now = 0.0

    def hand_out(actor: int) -> None:
        nonlocal now
        now += half_s
        free_at[actor] = max(free_at[actor], now) + queue.popleft()
        heapq.heappush(results, (free_at[actor], actor))

    for _ in range(in_flight):
        for actor in range(actors):
            if queue:
                hand_out(actor)
    while results:
        there, actor = heapq.heappop(results)
        now = max(now, there) + in_s
        if queue:
            hand_out(actor)
    return now
