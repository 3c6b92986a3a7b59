"""What a PEARL run infers: how sure it becomes of the task, and what of the task its belief holds.

    trials on training and on held-out tasks  ->  N(mean, var) over z after n transitions, by the policy's own end_round

    width    the belief's standard deviation against n, mean over held-out tasks; the prior's is 1
    probe    R2 of each task parameter from the posterior mean, by a linear map fitted on training tasks
    picture  the posterior means of held-out tasks, coloured by each of their parameters

The probe is `metarl.evaluation.probe`. In families whose training and held-out tasks coincide both halves are other
trials of the same tasks, and the result says so. Letters: K task, N stream, Z latent, S number of transitions seen.

    python experiments/pearl_latents.py RUN [--tasks 100] [--seed 0] [--out DIR] [algorithm.context=shuffled ...]
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from pearl_latents_figure import draw
from rich.console import Console
from rich.table import Table
from rich.text import Text

from metarl.algorithms.pearl.learner import PEARL
from metarl.algorithms.pearl.policy import PEARLPolicy
from metarl.errors import ConfigError, MetarlError
from metarl.evaluation.evaluate import evaluation_units
from metarl.evaluation.probe import ParameterScore, Represented, Score, is_angle, probe
from metarl.rollout.local import LocalExecutor
from metarl.rollout.types import Round, TrialBatch, TrialPlan, Weights
from metarl.runs.build import TrainedRun, load_run
from metarl.runs.directory import evaluation_folder, write_text
from metarl.tasks import Split, Task, TaskDistribution

FEW_COMPONENTS = 4  # of a parameter: up to here the table has a line for each


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
    plan, weights = algorithm.plan(distribution.horizon, evaluation=True), algorithm.weights()
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
    state = policy.begin_trial(weights, K, N, np.random.Generator(np.random.Philox(0)))
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
    """Beliefs on `num_tasks` training and as many held-out tasks, and what they hold. ConfigError as beliefs_of_run."""
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


def tables(latents: Latents) -> tuple[Table, Table]:
    """R2 of each parameter, and width against transitions."""
    name, count = latents.distribution.name, len(latents.beliefs.tasks)
    probed = Table(
        title=f"{name}, {count} held-out tasks",
        caption=Text("\n".join((f"{latents.env_steps:,} environment steps", *latents.notes))),
        title_justify="left",
        caption_justify="left",
    )
    for column in ("parameter", "probed as", "R2 from the posterior mean", "95% interval"):
        probed.add_column(column, justify="left" if column in ("parameter", "probed as") else "right", no_wrap=True)
    for parameter in latents.scores:
        unit = f", {parameter.unit}" if parameter.unit else ""
        probed.add_row(Text(parameter.name + unit), parameter.probed_as, *_cells(parameter.score))
        if 1 < len(parameter.columns) <= FEW_COMPONENTS:
            for label, score in parameter.columns.items():
                probed.add_row(Text(f"  {label}"), "", *_cells(score), style="dim")
    width = Table(title="std of the belief; the prior's is 1", title_justify="left")
    for column in ("transitions", "mean", "80% of tasks", "each latent"):
        width.add_column(column, justify="right")
    for w in latents.widths:
        each = " ".join(f"{v:.2f}" for v in w.per_latent)
        width.add_row(f"{w.transitions:.0f}", f"{w.mean:.3f}", Text(f"[{w.p10:.3f}, {w.p90:.3f}]"), each)
    return probed, width


def _cells(score: Score) -> tuple[str, Text]:
    if score.r2 is None or score.ci95 is None:
        return "-", Text("does not vary")
    return f"{score.r2:.2f}", Text(f"[{score.ci95[0]:.2f}, {score.ci95[1]:.2f}]")


# --- command line ------------------------------------------------------------------------------------


def main() -> None:
    """Load the run, roll it out, write latents.json and latents.png, print the tables."""
    parser = argparse.ArgumentParser(description="What a PEARL run infers about its tasks")
    parser.add_argument("run", type=Path, metavar="RUN", help="a PEARL run; config.yaml and checkpoints/")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="of the run's configuration, for this alone")
    parser.add_argument("--tasks", type=int, default=100, help="of each split [default: 100]")
    parser.add_argument("--seed", type=int, help="of the tasks and of all draws [default: the run's]")
    parser.add_argument("--out", type=Path, help="[default: RUN/evaluations/latents-ITERATION, and the overrides]")
    arguments = parser.parse_intermixed_args()
    if arguments.tasks < 2:
        parser.error("--tasks must be at least 2")
    try:
        trained = load_run(arguments.run, arguments.overrides)
        seed = trained.config.seed if arguments.seed is None else arguments.seed
        latents = analyse(trained, str(arguments.run), arguments.tasks, seed, arguments.overrides)
        iteration = trained.checkpoint.iteration
        folder = arguments.out or evaluation_folder(arguments.run, "latents", iteration, arguments.overrides)
        folder.mkdir(parents=True, exist_ok=True)
    except (MetarlError, OSError) as error:
        parser.error(str(error))
    write_text(folder / "latents.json", json.dumps(latents.to_json(), indent=1, allow_nan=False) + "\n")
    draw(latents, folder / "latents.png")
    console = Console()
    for table in tables(latents):
        console.print(table)
    for written in ("latents.json", "latents.png"):
        console.print(str(folder / written), markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
