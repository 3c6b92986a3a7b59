"""What a PEARL run infers: how sure it becomes of the task, and what of the task its belief holds.

    trials on tasks of the training and the test split
        ->  N(mean, var) over z after n transitions, by the policy's own end_round

    width    the belief's standard deviation against n, mean over held-out tasks; the prior's is 1
    probe    R2 of each task parameter from the posterior mean, by a linear map fitted on those of the training split
    picture  the posterior means of held-out tasks, coloured by each of their parameters

The probe is `metarl.evaluation.probe`. In families whose training and held-out tasks coincide both halves are other
trials of the same tasks, and the result says so. Letters: K task, N stream, Z latent, S number of transitions seen.

The command is `pearl_latents.py`, the picture `pearl_latents_figure.py`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from metarl.algorithms.pearl import PEARL
from metarl.algorithms.pearl.policy import PEARLPolicy
from metarl.errors import ConfigError
from metarl.evaluation.evaluate import evaluation_units
from metarl.evaluation.probe import ParameterScore, Represented, is_angle, probe
from metarl.rollout.local import LocalExecutor
from metarl.rollout.policy import context_sources
from metarl.rollout.types import Round, TrialBatch, TrialPlan, Weights
from metarl.runs.build import TrainedRun
from metarl.tasks import Split, Task, TaskDistribution

# --- beliefs -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Beliefs:
    """What the policy believed about each task after some numbers of transitions; the last is all of them."""

    tasks: tuple[Task, ...]  # K
    transitions: Float[np.ndarray, " S"]  # mean over tasks and streams; fewer than steps where episodes ended early
    mean: Float[np.ndarray, "S K N Z"]
    std: Float[np.ndarray, "S K N Z"]
    env_steps: int

    @property
    def final(self) -> Represented:
        """The posterior means after all transitions."""
        return Represented(self.tasks, self.mean[-1])


def beliefs_of_run(trained: TrainedRun, split: Split, num_tasks: int, seed: int) -> Beliefs:
    """Roll the run's policy out on `num_tasks` of a split, as its evaluations do, and follow its belief.

    Raises ConfigError where the run's algorithm has no belief over a latent.
    """
    algorithm, distribution = trained.algorithm, trained.distribution
    if not isinstance(algorithm, PEARL):
        name = trained.config.algorithm.name  # type: ignore[attr-defined]
        raise ConfigError(f"the run's algorithm is {name}, which infers no latent; allowed: pearl")
    config = trained.config.evaluation
    plan, weights = algorithm.evaluation_plan(distribution.horizon, config.settings), algorithm.weights()
    units = evaluation_units(distribution, plan, split, num_tasks, seed, trained.config.training.tasks_per_unit)
    executor = LocalExecutor(distribution, algorithm.policy)
    try:
        trials = executor.collect(units, weights, trained.checkpoint.iteration)
    finally:
        executor.close()
    parts = [follow(algorithm.policy, weights, trial, plan) for trial in trials]
    seen, mean, std = (np.concatenate(arrays, axis=1) for arrays in zip(*parts, strict=True))
    tasks = tuple(task for unit in units for task in unit.tasks)
    return Beliefs(tasks, seen.mean(axis=(1, 2)), mean, std, sum(trial.num_steps for trial in trials))


def follow(
    policy: PEARLPolicy, weights: Weights, trial: TrialBatch, plan: TrialPlan
) -> tuple[Int[np.ndarray, "S K N"], Float[np.ndarray, "S K N Z"], Float[np.ndarray, "S K N Z"]]:
    """Transitions seen, mean and std of the belief if it were formed after 1, 2, 5, 10, ..., all steps of exploration.

    A round cut short is given to the policy's `end_round`, after the whole rounds before it.
    """
    K, N = trial.rounds[0].lengths.shape
    sources = context_sources(trial.tasks, plan.context)
    state = policy.begin_trial(weights, K, N, np.random.Generator(np.random.Philox(0)), sources)
    seen, means, stds = [], [], []
    before = np.zeros((K, N), np.int64)
    wanted = step_numbers(plan.horizon * (len(plan.rounds) - 1))
    for index, (episodes, round_plan) in enumerate(zip(trial.rounds[:-1], plan.rounds[:-1], strict=True)):
        first = index * plan.horizon
        for number in (n - first for n in wanted if first < n <= first + plan.horizon):
            cut = first_steps(episodes, number)
            _, derived = policy.end_round(state, cut, adapt=True)
            seen.append(before + cut.lengths)
            means.append(derived["belief_mean"])
            stds.append(np.sqrt(derived["belief_var"]))
        state, _ = policy.end_round(state, episodes, round_plan.adapt)
        before = before + episodes.lengths
    return np.stack(seen), np.stack(means), np.stack(stds)


def step_numbers(total: int) -> list[int]:
    """1, 2, 5, 10, 20, 50, ... and `total`."""
    numbers = (factor * 10**power for power in itertools.count() for factor in (1, 2, 5))
    return [*itertools.takewhile(lambda n: n < total, numbers), total]


def first_steps(episodes: Round, number: int) -> Round:
    """The round as if its episodes had run out of time after `number` steps, where they lasted longer."""
    lengths = np.minimum(episodes.lengths, number)
    is_cut = episodes.lengths > number
    k, n = np.indices(lengths.shape)
    return Round(
        episodes.observations[:, :, :number],
        episodes.actions[:, :, :number],
        episodes.rewards[:, :, :number],
        lengths,
        episodes.terminated & ~is_cut,
        episodes.truncated | is_cut,
        episodes.next_observations[k, n, lengths - 1],
        extras={},
        derived={},
    )


# --- result ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Width:
    """The belief's std after so many transitions: mean over tasks and latents, the band that holds 80 % of tasks, and
    the mean over tasks of each latent."""

    transitions: float
    mean: float
    p10: float
    p90: float
    per_latent: tuple[float, ...]


def widths_of(beliefs: Beliefs) -> tuple[Width, ...]:
    """One `Width` per number of transitions."""
    widths = []
    for transitions, std in zip(beliefs.transitions, beliefs.std, strict=True):
        of_task = std.mean(axis=(1, 2))  # [K]
        p10, p90 = np.quantile(of_task, (0.1, 0.9))
        per_latent = tuple(float(v) for v in std.mean(axis=(0, 1)))
        widths.append(Width(float(transitions), float(of_task.mean()), float(p10), float(p90), per_latent))
    return tuple(widths)


@dataclass(frozen=True)
class Latents:
    """The result: what goes into latents.json and latents.png."""

    run: str
    iteration: int
    seed: int
    distribution: TaskDistribution
    beliefs: Beliefs  # on held-out tasks
    widths: tuple[Width, ...]
    scores: tuple[ParameterScore, ...]
    env_steps: int
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; means and stds after all transitions, [stream][latent] per task."""
        b = self.beliefs
        return {
            "run": self.run,
            "iteration": self.iteration,
            "seed": self.seed,
            "distribution": {"name": self.distribution.name, "version": self.distribution.version},
            "splits_coincide": self.distribution.splits_coincide,
            "num_tasks": len(b.tasks),
            "env_steps": self.env_steps,
            "notes": self.notes,
            "r2": [asdict(score) for score in self.scores],
            "width": [asdict(width) for width in self.widths],
            "tasks": [
                {"task": task.values, "mean": mean.tolist(), "std": std.tolist()}
                for task, mean, std in zip(b.tasks, b.mean[-1], b.std[-1], strict=True)
            ],
        }


def analyse(trained: TrainedRun, run: str, num_tasks: int, seed: int, overrides: Sequence[str] = ()) -> Latents:
    """Beliefs on `num_tasks` tasks of the training and as many of the test split, and what they hold. ConfigError as
    `beliefs_of_run`."""
    fitted_on, judged_on = (beliefs_of_run(trained, split, num_tasks, seed) for split in ("train", "test"))
    family = trained.distribution
    scores = probe(family.parameters, fitted_on.final, judged_on.final, seed, by_task=family.splits_coincide)
    notes = []
    if family.splits_coincide:
        notes.append("Train and test tasks coincide: the probe is judged on other trials of the tasks it is fitted on.")
    if family.reveals_task:
        notes.append("The policy is told the task: what it infers, it could have read.")
    angles = [p.name for p in family.parameters if is_angle(p)]
    if angles:
        notes.append(f"Angles are probed as cosine and sine: {', '.join(angles)}.")
    if num_tasks * fitted_on.mean.shape[2] < 5 * fitted_on.mean.shape[3]:
        notes.append("Fewer than five trials per latent to fit the probe on: R2 is too low.")
    if overrides:
        notes.append(f"Rolled out with {', '.join(overrides)}.")
    return Latents(
        run,
        trained.checkpoint.iteration,
        seed,
        family,
        judged_on,
        widths_of(judged_on),
        scores,
        fitted_on.env_steps + judged_on.env_steps,
        tuple(notes),
    )
