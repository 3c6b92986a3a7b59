"""How fast a PEARL run on HalfCheetahVel goes after it has explored at one speed: what its encoder reads from afar.

    python experiments/pearl_exploration.py RUN [--seed S]

Each trial explores for one episode with a z of its own in the one component that the run uses, the others 0, then is
judged for one with its belief. The last line is JSON: for every z its mean speed of exploration, and the mean speed
and return of the judged episode for every wanted speed. A belief that is right gives the wanted speed in every line.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from metarl.algorithms.pearl.policy import PEARLPolicy, PEARLState
from metarl.rollout.collect import collect_trials
from metarl.rollout.types import Round
from metarl.runs.build import TrainedRun, load_run

WANTED = (0.01, 0.1, 0.2, 0.5, 1.0, 1.5, 2.0, 2.5)  # m/s
EXPLORED = (-1.8, -1.2, -0.6, 0.0, 0.6, 1.2, 1.8)  # z
_SPEED = 8  # the observation that is the torso's forward velocity


class _FromZ(PEARLPolicy):
    """The run's policy, whose trials begin with `start` [Z] as their z; None: with samples of the prior."""

    def __init__(self, policy: PEARLPolicy, start: np.ndarray | None):
        vars(self).update(vars(policy))
        self._start = start

    def begin_trial(self, *arguments: Any, **options: Any) -> PEARLState:
        state = super().begin_trial(*arguments, **options)
        if self._start is None:
            return state
        return replace(state, z=np.broadcast_to(self._start, state.z.shape).astype(np.float32), is_stale=False)


def explored(trained: TrainedRun, seed: int) -> list[dict[str, Any]]:
    """A line per z of EXPLORED."""

    policy = trained.algorithm.policy
    assert isinstance(policy, PEARLPolicy)
    pearl: PEARLPolicy = policy
    tasks = [trained.distribution.task(velocity=speed) for speed in WANTED]
    plan = trained.algorithm.evaluation_plan(trained.distribution.horizon, trained.config.evaluation.settings)

    def trial(start: np.ndarray | None) -> tuple[Round, ...]:
        batch = trained.distribution.make_batch([task for task in tasks for _ in range(plan.num_streams)])
        generators = (np.random.Generator(np.random.Philox(key=[seed, i])) for i in (0, 1))
        return collect_trials(_FromZ(pearl, start), trained.algorithm.weights(), batch, plan, *generators)

    beliefs = trial(None)[0].derived["belief_mean"][:, 0]
    component = int(np.argmax(beliefs.std(axis=0)))
    lines = []
    for z in EXPLORED:
        start = np.zeros(beliefs.shape[1])
        start[component] = z
        explore, judged = trial(start)
        lines.append(
            {
                "z": z,
                "explored_speed": float(explore.observations[..., _SPEED].mean()),
                "judged_speed": judged.observations[..., _SPEED].mean(axis=(1, 2)).tolist(),
                "judged_return": judged.rewards.sum(axis=2).mean(axis=1).tolist(),
            }
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    trained = load_run(arguments.run, ["evaluation.support_episodes=1", "evaluation.episodes=8"])
    lines = explored(trained, arguments.seed)
    for line in lines:
        print(f"z {line['z']:+.1f}, {line['explored_speed']:.2f} m/s:", *(f"{v:6.2f}" for v in line["judged_speed"]))
    print(json.dumps({"wanted": WANTED, "lines": lines, "iteration": trained.checkpoint.iteration}))


if __name__ == "__main__":
    main()
