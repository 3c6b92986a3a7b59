"""What may be wrong with a policy that adapts, each with an interval and a sentence.

    adaptation           last minus first round, or minus the same policy with a blank context: does experience help?
    context              own minus another task's context: does it use the context of this task, or any?
    meta-overfitting     training minus test tasks: does it do better on those that it knows?
    out of range         inside minus outside the training range, along one parameter
    exploration          the return given up per episode while exploring
    calibration          how often the posterior's 90 % interval holds the task's true value (PEARL)

An interval that lies on one side of zero decides; else the finding is "not shown". Estimates compare means over tasks;
see `metarl.evaluation.by_task` for what their intervals resample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from metarl.evaluation.by_task import Estimate
from metarl.evaluation.evaluate import Evaluation, paired
from metarl.evaluation.grid import INSIDE, Grid
from metarl.evaluation.statistics import NUM_RESAMPLES, generator
from metarl.report.table import number

Verdict = Literal["good", "bad", "open"]
LEVEL = 0.9  # of the posterior's intervals
OUTSIDE = "Outside the range of "


@dataclass(frozen=True)
class Finding:
    """One diagnosis. `estimate` is None where it could not be made; the sentence then says why."""

    name: str
    verdict: Verdict
    estimate: Estimate | None
    sentence: str
    sign: str = "+"  # of differences; shares have none
    objection: str = ""  # what a verdict on the whole says of it where it is bad


def adaptation(evaluation: Evaluation) -> Finding:
    """Whether the policy does better with its experience of a task than without."""
    name = "Adaptation"
    if evaluation.is_oracle:
        return Finding(name, "open", None, "The policy is told the task: an oracle. Its returns show no adaptation.")
    if evaluation.adapts == "never":
        return Finding(name, "bad", None, "This policy has no memory and takes no inner steps: it cannot adapt.")
    if evaluation.gain_over_blank is not None:
        gain, compared = evaluation.gain_over_blank, "with its context kept blank"
    elif evaluation.adapts == "between" and evaluation.last_minus_first is not None:
        gain, compared = evaluation.last_minus_first, "before adaptation"
    else:
        return Finding(
            name, "open", None, "Nothing to compare with: one round, and no evaluation with a blank context."
        )
    size = f"{number(gain.mean, '+')} return per episode over the same policy {compared}"
    if gain.is_above_zero:
        return Finding(name, "good", gain, f"Experience of the task helps: {size}.")
    if gain.is_below_zero:
        return Finding(name, "bad", gain, f"Experience of the task harms: {size}.")
    return Finding(name, "bad", gain, f"No adaptation is shown: {size}; the interval holds zero.")


def context_use(own: Evaluation, shuffled: Evaluation | None, seed: int) -> Finding:
    """Whether another task's experience serves as well as the task's own: the policy then takes a shortcut."""
    name = "Use of the task's own context"
    if own.is_oracle:
        return Finding(name, "open", None, "The policy is told the task, so that its context may be ignored.")
    if shuffled is None:
        return Finding(name, "open", None, "This algorithm, or this number of tasks, knows no shuffled context.")
    gap = paired(own, shuffled, seed)
    size = f"{number(gap.mean, '+')} return per episode over the same policy given another task's experience"
    if gap.is_above_zero:
        return Finding(name, "good", gap, f"It uses what it learns of this task: {size}.")
    if gap.is_below_zero:
        worse, objection = f"Its own context serves it worse than another task's: {size}.", "its own context harms it"
        return Finding(name, "bad", gap, worse, objection=objection)
    shortcut = f"A shortcut: another task's experience serves as well ({size}; it holds zero)."
    return Finding(name, "bad", gap, shortcut, objection="it does as well with another task's context")


def meta_overfitting(train: Evaluation, test: Evaluation, seed: int) -> Finding:
    """Whether the policy does better on the tasks that it was trained on than on others of the same range."""
    name = "Meta-overfitting"
    if test.splits_coincide:
        return Finding(name, "open", None, "Train and test tasks coincide: there are no other tasks to compare with.")
    gap = unpaired([s.returns[-1] for s in train.per_task], [s.returns[-1] for s in test.per_task], seed)
    size = f"training minus test tasks {number(gap.mean, '+')} return per episode"
    if gap.is_above_zero:
        objection = "it is over-fitted to its training tasks"
        return Finding(name, "bad", gap, f"Over-fitted to its training tasks: {size}.", objection=objection)
    return Finding(name, "good", gap, f"No over-fitting to the training tasks is shown: {size}.")


def out_of_range(grid: Grid, seed: int) -> Finding:
    """How much lower the return is outside the training range than inside, along the grid's one axis."""
    (axis,) = grid.axes
    name = f"{OUTSIDE}{axis.name}"
    inside = [p.returns[-1] for p in grid.points if p.where == INSIDE]
    outside = [p.returns[-1] for p in grid.points if p.where != INSIDE]
    if not inside or not outside:
        return Finding(name, "open", None, f"No value of {axis.name} was tried on either side of its range.")
    gap = unpaired(outside, inside, seed)
    size = f"{number(gap.mean, '+')} return per episode against inside, over {len(outside)} values"
    if gap.is_below_zero:
        return Finding(name, "bad", gap, f"The return falls outside the training range: {size}.")
    return Finding(name, "good", gap, f"No fall outside the training range is shown: {size}.")


def exploration(evaluation: Evaluation) -> Finding:
    """What exploring costs."""
    name = "Cost of exploration"
    measures = evaluation.measures
    if measures is None or len(evaluation.rounds) < 2:
        return Finding(name, "open", None, "One round: nothing is explored before it.")
    cost = measures.exploration_cost
    sentence = (
        f"Over a whole trial, exploration included, an episode returns {number(cost.mean)} less than the judged one; "
        f"{measures.episodes_adapted_on} episodes ({measures.steps_adapted_on:.0f} steps) are explored per task."
    )
    if cost.mean < 0:
        sentence = f"Exploring episodes return {number(-cost.mean)} more than the judged one, on average of a trial."
    return Finding(name, "open", cost, sentence)


def calibration(coverage: Sequence[tuple[str, Estimate]]) -> Finding:
    """`coverage`: for each parameter the share of held-out tasks whose value lies in the posterior's 90 % interval."""
    name = "Calibration of the posterior"
    if not coverage:
        return Finding(name, "open", None, "This policy has no posterior over a latent.")
    worst_name, worst = min(coverage, key=lambda one: -abs(one[1].mean - LEVEL))
    shares = ", ".join(f"{parameter} {share.mean:.0%}" for parameter, share in coverage)
    sentence = f"The posterior's {LEVEL:.0%} intervals hold the true value of held-out tasks in: {shares}."
    if worst.ci95[1] < LEVEL:
        too_sure = f"The posterior is too sure of {worst_name}. {sentence}"
        return Finding(name, "bad", worst, too_sure, "", "its posterior is too sure")
    if worst.ci95[0] > LEVEL:
        return Finding(name, "open", worst, f"It is less sure of {worst_name} than it could be. {sentence}", "")
    return Finding(name, "good", worst, sentence, "")


def unpaired(one: Sequence[float], other: Sequence[float], seed: int) -> Estimate:
    """Mean of `one` minus mean of `other`, scores of different tasks; the interval resamples both."""
    rng = generator(seed)
    a, b = np.asarray(one, np.float64), np.asarray(other, np.float64)
    resampled = _resampled_means(a, rng) - _resampled_means(b, rng)
    low, high = np.quantile(resampled, (0.025, 0.975))
    return Estimate(float(a.mean() - b.mean()), (float(low), float(high)))


def _resampled_means(values: Float[np.ndarray, " K"], rng: np.random.Generator) -> Float[np.ndarray, " B"]:
    return np.asarray(values[rng.integers(len(values), size=(NUM_RESAMPLES, len(values)))].mean(axis=1))


def verdict(findings: Sequence[Finding], evaluation: Evaluation) -> str:
    """One sentence on the whole: whether it adapts, by what, and what stands against it."""
    first = findings[0]
    sentence = first.sentence
    against = [f for f in findings[1:] if f.verdict == "bad"]
    reasons = [f.objection for f in against if f.objection]
    fallen = [f.name.removeprefix(OUTSIDE) for f in against if f.name.startswith(OUTSIDE)]
    if fallen:
        reasons.append(f"it does worse outside the range of {', '.join(fallen)}")
    if first.verdict == "good" and evaluation.splits_coincide:
        reasons.append("the family has no other tasks, so that this shows no generalisation")
    if not reasons:
        return sentence
    listed = reasons[0] if len(reasons) == 1 else f"{', '.join(reasons[:-1])} and {reasons[-1]}"
    return f"{sentence.removesuffix('.')}; but {listed}."
