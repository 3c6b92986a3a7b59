"""Evaluation: how well a policy adapts to tasks of a split, as numbers that can be compared and repeated.

    sample(split) -> units -> executor.collect -> returns [R, K, N] -> summarise -> evaluation.json

Nothing of training is touched: weights go in and are only read, tasks and randomness come from seed paths of their
own, and normalisers and buffers never see these trials. The same seed gives the same file, byte for byte.
Shape letters: R rounds, K drawn tasks, N streams, D distinct tasks (D < K where a finite family repeats its tasks).
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from metarl.errors import ConfigError, MetarlError
from metarl.evaluation.by_task import ByTask, Estimate, tasks_ci95
from metarl.evaluation.change import ChangeScore, change_score
from metarl.evaluation.measures import Measures, measure
from metarl.evaluation.notes import ORACLE, is_whole_family, notes_of, width_notes
from metarl.evaluation.statistics import Interval, cvar, iqm, mean
from metarl.files import write_json
from metarl.rollout import seeds
from metarl.rollout.executor import Executor
from metarl.rollout.types import Adapts, TrialBatch, TrialPlan, Unit, Weights
from metarl.tasks import Anchors, Split, Task, TaskDistribution
from metarl.tasks.task import Value

TASKS_PER_UNIT = 10


@dataclass(frozen=True)
class RoundScore:
    """Returns of one round: `mean`, `iqm` over tasks, `ci95` of the mean, `cvar5` over episodes.

    `normalised` is the mean on the scale 0 = best non-adaptive policy, 1 = expert; None where either is unknown.
    """

    mean: float
    iqm: float
    ci95: Interval
    cvar5: float
    normalised: float | None


@dataclass(frozen=True)
class TaskScore:
    """One distinct task: its values, its printed name, its mean return per round, its episodes per round.

    repeats: the independent scores of the last round, the means of its trials or the episodes of a single trial.
    """

    task: dict[str, Value]
    name: str
    returns: tuple[float, ...]
    episodes: int
    repeats: tuple[float, ...] = ()  # earlier versions did not write them

    @property
    def label(self) -> str:
        """The name without the distribution's."""
        return self.name.partition("(")[2].removesuffix(")") or self.name


@dataclass(frozen=True)
class Evaluation:
    """The result of `evaluate`. All returns are undiscounted, per episode; each distinct task weighs the same."""

    distribution: str
    version: int
    horizon: int
    split: Split
    num_tasks: int  # drawn; `per_task` holds the distinct ones
    episodes_per_round: int  # of each drawn task
    rounds: tuple[RoundScore, ...]
    per_task: tuple[TaskScore, ...]
    last_minus_first: Estimate | None  # round, paired per task; None where the two do not act alike, or are one
    anchors: Anchors
    seed: int
    iteration: int  # of the weights
    env_steps: int  # all of them, the rounds adapted on included
    splits_coincide: bool
    notes: tuple[str, ...]
    deterministic: bool | None = None  # whether judged actions are means, not samples; None: not recorded
    success_rates: tuple[float, ...] | None = None  # per round, where the tasks report success
    change: ChangeScore | None = None  # where the tasks change in mid-episode
    adapts: Adapts = "between"  # rounds, or within them: then the first round is no measure of the policy before
    measures: Measures | None = None  # of whole trials; earlier versions did not write them
    blank: Estimate | None = None  # the last round's return of the same policy with its context kept blank
    gain_over_blank: Estimate | None = None  # last round minus that, paired per task
    is_whole: bool = False  # whether no other task could have been drawn

    @property
    def is_oracle(self) -> bool:
        """Whether the policy was told the task."""
        return ORACLE in self.notes

    @property
    def has_adapted(self) -> bool:
        """Whether the policy had experience to adapt to before it was judged, or while."""
        return self.adapts == "within" or (self.adapts == "between" and len(self.rounds) > 1)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; the layout of evaluation.json."""
        content = asdict(self)
        content["distribution"] = {name: content.pop(name) for name in ("version", "horizon")}
        content["distribution"]["name"] = self.distribution
        if self.change is None:
            del content["change"]
        return dict(json.loads(json.dumps(content)))  # tuples become lists

    @staticmethod
    def from_json(content: dict[str, Any]) -> Evaluation:
        """The inverse of `to_json`; KeyError or TypeError where the layout is another."""
        plain = {
            key: content[key] for key in ("split", "num_tasks", "episodes_per_round", "seed", "iteration", "env_steps")
        }
        distribution = content["distribution"]
        return Evaluation(
            distribution=distribution["name"],
            version=distribution["version"],
            horizon=distribution["horizon"],
            rounds=tuple(RoundScore(**{**score, "ci95": tuple(score["ci95"])}) for score in content["rounds"]),
            per_task=tuple(
                TaskScore(
                    {name: tuple(v) if isinstance(v, list) else v for name, v in score["task"].items()},
                    score["name"],
                    tuple(score["returns"]),
                    score["episodes"],
                    tuple(score.get("repeats", ())),
                )
                for score in content["per_task"]
            ),
            last_minus_first=Estimate.from_json(content.get("last_minus_first", content.get("adaptation_gain"))),
            anchors=Anchors(**content["anchors"]),
            splits_coincide=content["splits_coincide"],
            notes=tuple(content["notes"]),
            deterministic=content.get("deterministic"),  # earlier versions did not write it
            success_rates=None if content.get("success_rates") is None else tuple(content["success_rates"]),
            change=ChangeScore.from_json(content.get("change")),
            adapts=content.get("adapts", "between"),
            measures=None if content.get("measures") is None else Measures.from_json(content["measures"]),
            blank=Estimate.from_json(content.get("blank")),
            gain_over_blank=Estimate.from_json(content.get("gain_over_blank")),
            is_whole=content.get("is_whole", False),
            **plain,
        )

    def write(self, path: Path) -> None:
        """Write evaluation.json; atomic, and the same bytes for the same evaluation."""
        write_json(path, self.to_json())

    @staticmethod
    def load(path: Path) -> Evaluation:
        """Read what `write` wrote. MetarlError naming the file where it is not an evaluation."""
        try:
            return Evaluation.from_json(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise MetarlError(f"{path}: no such evaluation") from None
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
            raise MetarlError(f"{path}: not an evaluation file ({error!r})") from error


def evaluate(
    executor: Executor,
    distribution: TaskDistribution,
    policy_plan: TrialPlan,
    weights: Weights,
    *,
    split: Split,
    num_tasks: int,
    seed: int,
    iteration: int = 0,
    tasks_per_unit: int = TASKS_PER_UNIT,
    trained_on: Sequence[Task] | None = None,
    chosen: Sequence[Task] = (),
    threshold: float | None = None,
) -> Evaluation:
    """Collect trials on `num_tasks` tasks of a split with fixed weights, and summarise them.

    `chosen`: these tasks instead, which are then said to be of `split`.

    The result depends on the arguments alone: units have `tasks_per_unit` tasks (the last one what remains),
    however many workers there are. The same seed draws the same tasks at every iteration of the weights.
    `trained_on` holds the tasks themselves, where they are some that the weights were trained on. `threshold`: the
    return that `measures.to_threshold` asks for; None: close to the expert's, where that is known.
    """
    assert trained_on is None or (split == "train" and len(trained_on) == num_tasks)
    given = trained_on if trained_on is not None else chosen or None
    units = evaluation_units(distribution, policy_plan, split, num_tasks, seed, tasks_per_unit, given)
    trials = executor.collect(units, weights, iteration)
    assert [trial.tasks for trial in trials] == [unit.tasks for unit in units], "trials must come in unit order"
    tasks = tuple(task for unit in units for task in unit.tasks)
    summary = summarise(
        distribution,
        policy_plan,
        split,
        tasks,
        np.concatenate([trial.returns for trial in trials], axis=1),
        env_steps=sum(trial.num_steps for trial in trials),
        seed=seed,
        iteration=iteration,
        success=_success(trials),
        was_trained_on=trained_on is not None,
        is_chosen=bool(chosen),
    )
    groups = ByTask(tasks, summary.is_whole, seed)
    anchors = _anchors_that_apply(distribution, policy_plan, split)
    measures = measure(trials, policy_plan, groups, anchors, threshold)
    return replace(summary, measures=measures, change=change_score(distribution, trials))


def _success(trials: Sequence[TrialBatch]) -> Bool[np.ndarray, "R K N"] | None:
    """Which episodes were a success; None where nothing is reported at all. Else silence is no success."""
    reported = [trial.success for trial in trials]
    if all(success is None for success in reported):
        return None
    return np.concatenate(
        [np.zeros(t.returns.shape, bool) if s is None else s for s, t in zip(reported, trials, strict=True)], axis=1
    )


def evaluation_units(
    distribution: TaskDistribution,
    plan: TrialPlan,
    split: Split,
    num_tasks: int,
    seed: int,
    tasks_per_unit: int,
    tasks: Sequence[Task] | None = None,
) -> list[Unit]:
    """What an evaluation collects: `num_tasks` tasks drawn from a split, or `tasks`, in units of `tasks_per_unit`."""
    if tasks_per_unit < 1:
        raise ConfigError(f"tasks_per_unit must be at least 1, got {tasks_per_unit}")
    if tasks is None:
        tasks = distribution.sample(split, num_tasks, seeds.evaluation_tasks(seed))
    starts = list(range(0, len(tasks), tasks_per_unit))
    if plan.context == "shuffled" and len(starts) > 1 and len(tasks) - starts[-1] == 1:
        del starts[-1]  # a task alone has none whose context it could be given
    groups = [tuple(tasks[i:j]) for i, j in itertools.pairwise([*starts, len(tasks)])]
    return [Unit(i, group, plan, seeds.evaluation_unit(seed, split, i)) for i, group in enumerate(groups)]


def summarise(
    distribution: TaskDistribution,
    plan: TrialPlan,
    split: Split,
    tasks: Sequence[Task],
    returns: Float[np.ndarray, "R K N"],
    *,
    env_steps: int,
    seed: int,
    iteration: int = 0,
    success: Bool[np.ndarray, "R K N"] | None = None,
    was_trained_on: bool = False,
    is_chosen: bool = False,
) -> Evaluation:
    """The statistics of `returns` on `tasks`; trials on equal tasks are joined, so that each task weighs the same.

    `was_trained_on`: the tasks are some that the weights were trained on. `is_chosen`: they were not drawn.
    """
    is_whole = is_whole_family(distribution, split, len(set(tasks)))
    groups = ByTask(tasks, is_whole, seed)
    distinct, rows = groups.distinct, groups.rows
    task_means, repeats = groups.means(returns), groups.repeats(returns)  # [R, D], D x [R, M]
    anchors = _anchors_that_apply(distribution, plan, split)
    intervals = [groups.interval(means, [scores[r] for scores in repeats]) for r, means in enumerate(task_means)]
    rounds = tuple(
        RoundScore(float(mean(means)), float(iqm(means)), ci95, cvar(episodes), anchors.normalise(float(mean(means))))
        for means, ci95, episodes in zip(task_means, intervals, returns, strict=True)
    )
    difference = None
    if plan.ends_alike:
        gaps = task_means[-1] - task_means[0]  # [D], each task with itself
        difference = Estimate(float(mean(gaps)), groups.interval(gaps, [scores[-1] - scores[0] for scores in repeats]))
    notes = notes_of(distribution, plan, split, len(distinct), len(tasks), was_trained_on, is_chosen)
    intervals += [difference.ci95] if difference else []
    return Evaluation(
        distribution=distribution.name,
        version=distribution.version,
        horizon=distribution.horizon,
        split=split,
        num_tasks=len(tasks),
        episodes_per_round=plan.num_streams,
        rounds=rounds,
        per_task=tuple(
            TaskScore(task.values, str(task), tuple(means), len(row) * plan.num_streams, tuple(scores[-1].tolist()))
            for task, means, row, scores in zip(distinct, task_means.T.tolist(), rows, repeats, strict=True)
        ),
        last_minus_first=difference,
        anchors=distribution.anchors,
        seed=seed,
        iteration=iteration,
        env_steps=env_steps,
        splits_coincide=distribution.splits_coincide,
        notes=(*notes, *width_notes(intervals, repeats)),
        deterministic=plan.rounds[-1].deterministic,
        success_rates=None if success is None else tuple(groups.means(success).mean(axis=1).tolist()),
        adapts="never" if plan.context == "blank" else plan.adapts,
        is_whole=is_whole,
    )


def against_blank(evaluation: Evaluation, blank: Evaluation, seed: int) -> Evaluation:
    """`evaluation` with the return of `blank`, the same tasks judged with a blank context, and the gain over it."""
    assert [s.task for s in evaluation.per_task] == [s.task for s in blank.per_task]
    last = blank.rounds[-1]
    return replace(evaluation, blank=Estimate(last.mean, last.ci95), gain_over_blank=paired(evaluation, blank, seed))


def paired(one: Evaluation, other: Evaluation, seed: int) -> Estimate:
    """Last round's return of `one` minus that of `other` on the same tasks, paired per task."""
    gaps = np.array([a.returns[-1] - b.returns[-1] for a, b in zip(one.per_task, other.per_task, strict=True)])
    repeats = [scores[:, 0] - scores[:, 1] for scores in last_repeats(one, other)]
    return Estimate(float(mean(gaps)), tasks_ci95(gaps, repeats, mean, one.is_whole, seed))


def last_repeats(*evaluations: Evaluation) -> list[Float[np.ndarray, "_ E"]]:
    """The independent scores of each task in the last round, of E evaluations of the same tasks side by side.

    Of evaluations with unequal numbers of them as many as the fewest, around each one's own mean.
    """

    def first(score: TaskScore, number: int) -> np.ndarray:
        kept = np.array((score.repeats or score.returns[-1:])[:number])
        return kept + (score.returns[-1] - kept.mean())

    numbers = [
        min(len(s.repeats) or 1 for s in scores) for scores in zip(*(e.per_task for e in evaluations), strict=True)
    ]
    return [np.stack([first(e.per_task[k], n) for e in evaluations], axis=1) for k, n in enumerate(numbers)]


def _anchors_that_apply(distribution: TaskDistribution, plan: TrialPlan, split: Split) -> Anchors:
    """The distribution's, or none where tasks or episodes are others than they are known for."""
    return distribution.anchors if split != "ood" and plan.horizon == distribution.horizon else Anchors()
