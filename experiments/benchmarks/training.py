"""Whole-loop speed of meta-training: env steps per second, and where the time goes.

Runs a configuration's real training loop (Ray actors, learner, logging; no evaluation) for some iterations in a
temporary run directory and reads its own record. Between iterations, outside the time that records count, the actions
of the iteration just done are replayed by the physics alone (_physics.py): `ratio_to_physics` is the whole loop's env
steps per second over that limit, iteration by iteration; null, with a reason, where there is no such limit. The last
line is one JSON object with the medians over the iterations after the warm-up.

The default is HalfCheetahDir with the papers' batch: horizon 100, 40 tasks x 20 episodes per round.

    python experiments/benchmarks/training.py [CONFIG] [--iterations 12] [key=value ...]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _physics import NoPhysicsError, physics_limit_per_s
from _timing import paired_ratio, reported

from metarl.config import RunConfig, load_config
from metarl.distributed import RayExecutor, connect
from metarl.rollout.policy import AdaptivePolicy
from metarl.rollout.types import TrialBatch, Unit, Weights
from metarl.tasks import TaskDistribution
from metarl.training.loop import train

WARM_UP = 2


class KeepingExecutor(RayExecutor):
    """Keeps the trials that it collected last."""

    trials: Sequence[TrialBatch] = ()

    def collect(self, units: Sequence[Unit], weights: Weights, version: int) -> list[TrialBatch]:
        trials = super().collect(units, weights, version)
        self.trials = trials
        return trials


class PhysicsLimit:
    """The physics limit of each iteration, measured when the iteration is over. `reason`: why there is none."""

    def __init__(self, overlap: bool) -> None:
        self.per_s: list[float] = []
        self.reason = "training.overlap: the actors go on while the learner learns" if overlap else None
        self._distribution: TaskDistribution | None = None
        self._executor: KeepingExecutor | None = None

    def watch(self, distribution: TaskDistribution, executor: KeepingExecutor) -> None:
        self._distribution, self._executor = distribution, executor

    def measure(self) -> None:
        assert self._distribution is not None
        assert self._executor is not None
        if self.reason is None:
            try:
                self.per_s.append(physics_limit_per_s(self._distribution, self._executor.trials))
            except NoPhysicsError as error:
                self.reason = str(error)


def run(config: RunConfig, actors: int) -> tuple[list[dict[str, Any]], PhysicsLimit]:
    """The records of training `config` and the physics limits, both after the warm-up."""
    limit = PhysicsLimit(config.training.overlap)

    def make_executor(distribution: TaskDistribution, policy: AdaptivePolicy[Any]) -> KeepingExecutor:
        executor = KeepingExecutor(distribution, policy, num_workers=actors)
        limit.watch(distribution, executor)
        return executor

    with tempfile.TemporaryDirectory() as folder, connect(None, num_cpus=actors):
        train(config, Path(folder) / "run", make_executor, saved=limit.measure)
        lines = (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()
    limit.per_s = limit.per_s[WARM_UP:]
    return [json.loads(line) for line in lines][WARM_UP:], limit


def summary(records: Sequence[dict[str, Any]], limit: PhysicsLimit) -> dict[str, Any]:
    """Medians over the iterations."""
    medians = {
        k: statistics.median(r[k] for r in records) for k in ("env_steps_per_s", "sample_s", "learn_s", "other_s")
    }
    total = medians["sample_s"] + medians["learn_s"] + medians["other_s"]
    found: dict[str, Any] = {
        "env_steps_per_s": round(medians["env_steps_per_s"]),
        "sample_share": round(medians["sample_s"] / total, 3),
        "learn_share": round(medians["learn_s"] / total, 3),
        "other_share": round(medians["other_s"] / total, 3),
        "iteration_s": round(total, 3),
        "physics_limit_per_s": None,
        "ratio_to_physics": None,
    }
    if limit.reason is not None:
        return {**found, "ratio_to_physics_reason": limit.reason}
    ratio = paired_ratio([r["env_steps_per_s"] for r in records], limit.per_s)
    return {**found, "physics_limit_per_s": round(statistics.median(limit.per_s)), "ratio_to_physics": round(ratio, 3)}


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
        "training.checkpoint_every=1",
        "training.keep_checkpoints=1",
    ]
    config = load_config(arguments.config, overrides)
    with reported() as result:
        result |= {"config": arguments.config.stem, "overrides": arguments.overrides, "actors": arguments.actors}
        result |= summary(*run(config, arguments.actors))


if __name__ == "__main__":
    main()
