"""Trials of a trained policy with the pictures of one stream of each task: what an evaluation does, filmed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from metarl.errors import ConfigError
from metarl.report.labels import round_name
from metarl.rollout import seeds
from metarl.rollout.collect import collect_trials
from metarl.rollout.types import Adapts, Context, Round, TrialPlan
from metarl.rollout.worker import GuardedBatch, environment_faults, single_threaded
from metarl.runs.build import TrainedRun
from metarl.tasks import Split, Task
from metarl.tasks.batch import TaskBatch
from metarl.tasks.rendering import rendering_batch

_LONGEST = 120  # pictures of an episode


@dataclass(frozen=True)
class Belief:
    """What the policy believes during an episode, from the rounds before it: N(mean, std^2) of every latent, [Z]."""

    mean: np.ndarray
    std: np.ndarray


@dataclass(frozen=True)
class Clip:
    """One episode. `frames[i]` [height, width, 3] shows it after `steps[i]` steps; empty where nothing renders."""

    task: Task
    round_index: int
    name: str  # of the round: "before adaptation", "episode 2"
    steps: tuple[int, ...]
    frames: tuple[np.ndarray, ...]
    rewards: np.ndarray  # [length]
    observations: np.ndarray  # [length, O]
    belief: Belief | None
    change_step: float | None = None  # of a task that changes in mid-episode

    @property
    def length(self) -> int:
        return len(self.rewards)

    def frame_at(self, step: int) -> np.ndarray | None:
        """The latest picture taken by then."""
        shown = [frame for taken, frame in zip(self.steps, self.frames, strict=True) if taken <= step]
        return shown[-1] if shown else None


@dataclass(frozen=True)
class Film:
    """The filmed episodes, a row per task and a column per filmed round."""

    rows: tuple[tuple[Clip, ...], ...]
    every: int  # steps between two pictures
    steps_per_s: float  # of the simulated time
    adapts: Adapts
    split: Split

    @property
    def length(self) -> int:
        """Steps of the longest episode."""
        return max(clip.length for row in self.rows for clip in row)


def film(
    trained: TrainedRun,
    tasks: Sequence[Task],
    split: Split,
    rounds: str = "all",
    every: int | None = None,
    context: Context | None = None,
) -> Film:
    """Film a trial on each task, with the seed and the plan of the run's evaluations.

    rounds: "all", "ends" (the first and the last) or "last". every: steps between pictures; None: as many as leave 120
    pictures of an episode. context: what the policy infers the task from; None: as the run's evaluations.

    Raises what collecting raises: EnvironmentFault naming the task, ConfigError of the algorithm's plan.
    """
    distribution, settings = trained.distribution, trained.config.evaluation.settings
    settings = replace(settings, context=context or settings.context)
    plan = trained.algorithm.evaluation_plan(distribution.horizon, settings)
    filmed = _filmed_rounds(rounds, len(plan.rounds))
    every = every or max(1, math.ceil(plan.horizon / _LONGEST))
    env_rng, policy_rng = seeds.generators(seeds.evaluation_unit(trained.config.seed, split, 0))
    all_tasks = [task for task in tasks for _ in range(plan.num_streams)]
    with environment_faults(all_tasks, "building the environment"):
        batch = rendering_batch(distribution, all_tasks)
    camera = _FilmingBatch(batch, range(0, len(all_tasks), plan.num_streams), filmed, every)
    try:
        with single_threaded():
            trial = collect_trials(
                trained.algorithm.policy, trained.algorithm.weights(), camera, plan, env_rng, policy_rng
            )
    finally:
        batch.close()
    rows = tuple(
        tuple(_clip(camera, trial, plan, task, k, r, distribution.change_step(task)) for r in filmed)
        for k, task in enumerate(tasks)
    )
    return Film(rows, every, float(batch.metadata.get("render_fps", 20)), plan.adapts, split)


def film_ablation(trained: TrainedRun, tasks: Sequence[Task], split: Split, every: int | None = None) -> Film:
    """The last episode of each task beside that of the same policy whose context stays blank.

    Raises what `film` raises; ConfigError where the algorithm has no context that can be blank.
    """
    own, blank = (film(trained, tasks, split, "last", every, context) for context in ("own", "blank"))
    rows = tuple(
        (replace(adapts, name="adapts"), replace(other, name="context kept blank"))
        for (adapts,), (other,) in zip(own.rows, blank.rows, strict=True)
    )
    return replace(own, rows=rows)


def _filmed_rounds(rounds: str, num_rounds: int) -> tuple[int, ...]:
    choices = {"all": range(num_rounds), "ends": sorted({0, num_rounds - 1}), "last": [num_rounds - 1]}
    if rounds not in choices:
        raise ConfigError(f"unknown rounds to film {rounds!r}; allowed: {', '.join(choices)}")
    return tuple(choices[rounds])


def _clip(
    camera: _FilmingBatch,
    trial: tuple[Round, ...],
    plan: TrialPlan,
    task: Task,
    k: int,
    round_index: int,
    change_step: float | None,
) -> Clip:
    episodes = trial[round_index]
    length = int(episodes.lengths[k, 0])
    taken = [(step, frame) for step, frame in camera.pictures.get((k, round_index), []) if step <= length]
    return Clip(
        task,
        round_index,
        round_name(round_index, len(trial), plan.adapts),
        tuple(step for step, _ in taken),
        tuple(frame for _, frame in taken),
        episodes.rewards[k, 0, :length],
        episodes.observations[k, 0, :length],
        _belief_before(trial, round_index, k),
        change_step,
    )


def _belief_before(trial: tuple[Round, ...], round_index: int, k: int) -> Belief | None:
    """What the round before left; the prior N(0, 1) before the first. None where the policy has no belief."""
    derived = trial[max(round_index - 1, 0)].derived
    if "belief_mean" not in derived:
        return None
    mean, var = (derived[name][k, 0] for name in ("belief_mean", "belief_var"))
    return Belief(np.zeros_like(mean), np.ones_like(var)) if round_index == 0 else Belief(mean, np.sqrt(var))


class _FilmingBatch(GuardedBatch):
    """Keeps pictures of the environments at `indices`, one per filmed task: {(task, round): [(step, picture)]}."""

    def __init__(self, batch: TaskBatch, indices: Sequence[int], rounds: Sequence[int], every: int):
        super().__init__(batch)
        self.pictures: dict[tuple[int, int], list[tuple[int, np.ndarray]]] = {}
        self._indices, self._rounds, self._every = tuple(indices), frozenset(rounds), every
        self._round, self._step = -1, 0
        self._over = np.zeros(self.num_envs, bool)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        answer = super().reset(seed=seed, options=options)
        self._round, self._step, self._over = self._round + 1, 0, np.zeros(self.num_envs, bool)
        self._keep(range(len(self._indices)))
        return answer

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        answer = super().step(actions)
        self._step += 1
        is_over = answer[2] | answer[3]
        on_time = self._step % self._every == 0
        self._keep(
            [
                k
                for k, index in enumerate(self._indices)
                if not self._over[index] and (on_time or is_over[index])  # its last picture shows how it ended
            ]
        )
        self._over = self._over | is_over
        return answer

    def _keep(self, filmed_tasks: Sequence[int]) -> None:
        for k in filmed_tasks if self._round in self._rounds else ():
            frame = self.render_frame(self._indices[k])
            if frame is not None:
                self.pictures.setdefault((k, self._round), []).append((self._step, np.array(frame)))
