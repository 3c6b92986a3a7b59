"""How close a trained policy comes to the best bandit algorithms: cumulative regret on held-out Bernoulli bandits.

A trial, all its rounds together, is one bandit of H = rounds x horizon pulls on the same arms; arms pay 1 with
probability p_k ~ U(0, 1). The regret of a pull is max_k p_k - p_(arm pulled), free of the noise of what was paid.
On the same tasks:

    uniform random    the policy that learns nothing
    UCB1              argmax  mean_k + sqrt(c ln t / n_k), each arm once first; c = 2, Auer et al. (2002)
    tuned UCB1        the same with the c that has the least regret on as many training tasks, of the grid in UCB_GRID
    Thompson          argmax of a draw from each arm's posterior Beta(1 + s_k, 1 + f_k); Thompson (1933)
    Gittins           argmax of the finite-horizon Gittins index of each arm's posterior with the pulls left;
                      Gittins (1979), undiscounted with a horizon: Kaufmann (2018). Not exactly Bayes-optimal, but
                      its return is within 0.1 % of it where both were computed
    Bayes-optimal     exact, by `Bandit.bayes_optimal_return`, where arms and pulls are few

The run's policy is given one stream per task: every pull that it learns from is one that counts.
Letters: K task, A arm, H pulls; s, f an arm's successes and failures.

    python experiments/bandit_regret.py RUN [--tasks 2000] [--seed 0]
    python experiments/bandit_regret.py --arms 5 --pulls 100 [--tasks 2000] [--seed 0]    the references alone
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from metarl_envs.tabular import Bandit
from rich.console import Console
from rich.table import Table

from metarl.errors import ConfigError, MetarlError
from metarl.evaluation.evaluate import evaluation_units
from metarl.evaluation.statistics import Interval, bootstrap_ci95, mean
from metarl.rollout import seeds
from metarl.rollout.local import LocalExecutor
from metarl.runs.build import TrainedRun, load_run
from metarl.tasks import Split, TaskDistribution

UCB_GRID = (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.7, 1.0, 2.0)
NUM_RATES = 256  # of the known arm that the indices are calibrated against
MAX_EXACT_STATES = 200_000  # some seconds
SPLIT: Split = "test"

Counts = Int[np.ndarray, "K A"]
Scores = Float[np.ndarray, "K A"]
Score = Callable[[Counts, Counts, int, np.random.Generator], Scores]  # (s, f, pulls left) -> pull the highest


# --- policies: a score per arm -----------------------------------------------------------------------


def uniform_random(s: Counts, f: Counts, left: int, rng: np.random.Generator) -> Scores:
    """Every arm as likely, whatever it paid."""
    return rng.random(s.shape)


def thompson(s: Counts, f: Counts, left: int, rng: np.random.Generator) -> Scores:
    """A draw from Beta(1 + s, 1 + f), the posterior of a uniform prior."""
    return rng.beta(1 + s, 1 + f)


def ucb(c: float) -> Score:
    """s / n + sqrt(c ln t / n) with t pulls so far, n of this arm; infinite before an arm's first pull."""

    def score(s: Counts, f: Counts, left: int, rng: np.random.Generator) -> Scores:
        n, t = s + f, (s + f).sum(axis=1, keepdims=True)
        bound = s / np.maximum(n, 1) + np.sqrt(c * np.log(np.maximum(t, 1)) / np.maximum(n, 1))
        return np.where(n > 0, bound, np.inf)

    return score


ucb1 = ucb(2.0)


def tuned_ucb(p: Float[np.ndarray, "K A"], num_pulls: int, seed: int) -> float:
    """The c of UCB_GRID with the least mean regret on the tasks p, which are not those that it is judged on."""
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, 1])))
    regrets = [cumulative_regret(p, play(ucb(c), p, num_pulls, rng)).mean() for c in UCB_GRID]
    return UCB_GRID[int(np.argmin(regrets))]


def gittins(num_pulls: int) -> Score:
    """The index policy of the finite-horizon Gittins index, for trials of `num_pulls`."""
    tables = gittins_indices(num_pulls)

    def score(s: Counts, f: Counts, left: int, rng: np.random.Generator) -> Scores:
        return tables[left - 1][s, f]

    return score


def gittins_indices(num_pulls: int, num_rates: int = NUM_RATES) -> list[Float[np.ndarray, "m m"]]:
    """Entry `left - 1` holds the index of an arm with (s, f) at [s, f] when `left` pulls remain, m = H - left + 1.

    The index is the rate l of a known arm against which the arm is just worth pulling, once at least and as long as
    one likes (Gittins 1979; without discount, with a horizon: Kaufmann 2018): the root in l of

        q_l(s, f; r) = p - l + p w_l(s + 1, f; r - 1) + (1 - p) w_l(s, f + 1; r - 1),   p = (s + 1) / (s + f + 2)
        w_l(s, f; r) = max(0, q_l(s, f; r)),   w_l(s, f; 0) = 0

    q is solved on a grid of rates in one pass and its root interpolated: q is convex, piecewise linear and falls
    with slope -1 at least, so the error is a fraction of the spacing, and with one pull left (q = p - l) there is
    none. Time grows as H^3, memory as H^2 times the rates: 200 pulls take some seconds and half a GB.
    """
    rates = np.linspace(0.0, 1.0, num_rates)
    w = np.zeros((num_rates, num_pulls + 1, num_pulls + 1))
    tables = []
    for left in range(1, num_pulls + 1):
        s = np.arange(num_pulls - left + 1)
        p = (s[:, None] + 1) / (s[:, None] + s + 2)
        q = p - rates[:, None, None] + p * w[:, 1:, :-1] + (1 - p) * w[:, :-1, 1:]
        tables.append(_root(rates, q))
        w = np.maximum(q, 0.0, out=q)
    return tables


def _root(rates: Float[np.ndarray, " L"], q: Float[np.ndarray, "L m m"]) -> Float[np.ndarray, "m m"]:
    """Where q, falling along its first axis from above 0 to below, is 0: linear between grid points."""
    above = (q > 0).sum(axis=0) - 1  # the last rate with q > 0; p > 0, so rate 0 is one, and p < 1: rate 1 is not
    high, low = (np.take_along_axis(q, (above + i)[None], axis=0)[0] for i in (0, 1))
    return rates[above] + high / (high - low) * (rates[1] - rates[0])


# --- playing -----------------------------------------------------------------------------------------


def play(score: Score, p: Float[np.ndarray, "K A"], num_pulls: int, rng: np.random.Generator) -> Int[np.ndarray, "K H"]:
    """The arms pulled on K tasks with success probabilities p."""
    rows = np.arange(len(p))
    s, f = np.zeros(p.shape, np.int64), np.zeros(p.shape, np.int64)
    arms = np.zeros((len(p), num_pulls), np.int64)
    for t in range(num_pulls):
        arm = score(s, f, num_pulls - t, rng).argmax(axis=1)
        won = rng.random(len(p)) < p[rows, arm]
        s[rows, arm] += won
        f[rows, arm] += ~won
        arms[:, t] = arm
    return arms


def cumulative_regret(p: Float[np.ndarray, "K A"], arms: Int[np.ndarray, "K H"]) -> Float[np.ndarray, " K"]:
    """sum_t (max_k p_k - p_(a_t)) of each task."""
    return (p.max(axis=1, keepdims=True) - np.take_along_axis(p, arms, axis=1)).sum(axis=1)


def bayes_optimal_regret(num_arms: int, num_pulls: int) -> float | None:
    """Over the prior, not over some tasks: H A / (A + 1) less the Bayes-optimal return. None where too slow."""
    # The ways to spread up to H outcomes over 2 A counts, arms interchangeable.
    if math.comb(num_pulls + 2 * num_arms, 2 * num_arms) / math.factorial(num_arms) > MAX_EXACT_STATES:
        return None
    return num_pulls * num_arms / (num_arms + 1) - Bandit(num_arms, num_pulls).bayes_optimal_return()


def pulls_of_run(trained: TrainedRun, num_tasks: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Held-out tasks' probabilities [K, A] and the arms that the run's policy pulled there, over all rounds [K, H]."""
    distribution, algorithm = trained.distribution, trained.algorithm
    if distribution.name != Bandit.name:
        raise ConfigError(f"the run's task distribution is {distribution.name}; allowed: {Bandit.name}")
    plan = algorithm.evaluation_plan(distribution.horizon, trained.config.evaluation.settings)
    plan = replace(plan, num_streams=1)
    units = evaluation_units(distribution, plan, SPLIT, num_tasks, seed, trained.config.training.tasks_per_unit)
    executor = LocalExecutor(distribution, algorithm.policy)
    try:
        trials = executor.collect(units, algorithm.weights(), trained.checkpoint.iteration)
    finally:
        executor.close()
    arms = [np.concatenate([episodes.actions[:, 0] for episodes in trial.rounds], axis=1) for trial in trials]
    probabilities = [task["probabilities"] for unit in units for task in unit.tasks]
    return np.array(probabilities), np.concatenate(arms)


def probabilities_of(distribution: TaskDistribution, split: Split, num_tasks: int, seed: int) -> np.ndarray:
    """The success probabilities [K, A] of the tasks that an evaluation with this seed draws from a split."""
    tasks = distribution.sample(split, num_tasks, seeds.evaluation_tasks(seed))
    return np.array([task["probabilities"] for task in tasks])


def reference_regrets(
    p: Float[np.ndarray, "K A"], num_pulls: int, seed: int, tuned_c: float
) -> dict[str, Float[np.ndarray, " K"]]:
    """Each reference policy's regret on every task; the policies' random numbers are independent."""
    policies: dict[str, Score] = {
        "uniform random": uniform_random,
        "UCB1": ucb1,
        "Thompson": thompson,
        "Gittins": gittins(num_pulls),
        f"UCB1, c = {tuned_c:g}": ucb(tuned_c),
    }
    policy_seeds = np.random.SeedSequence(seed).spawn(len(policies))
    return {
        name: cumulative_regret(p, play(score, p, num_pulls, np.random.Generator(np.random.Philox(policy_seed))))
        for (name, score), policy_seed in zip(policies.items(), policy_seeds, strict=True)
    }


# --- command line ------------------------------------------------------------------------------------


def report(regrets: Mapping[str, np.ndarray], exact: float | None, about: dict[str, Any], console: Console) -> None:
    """The table, and as the last line the same as JSON."""
    pulls, arms, tasks = about["num_pulls"], about["num_arms"], about["num_tasks"]
    table = Table(title=f"{arms} arms, {pulls} pulls, {tasks} held-out tasks", title_justify="left")
    for column in ("policy", "cumulative regret", "95% interval", "per pull"):
        table.add_column(column, justify="left" if column == "policy" else "right")
    scores: dict[str, dict[str, float | Interval]] = {}
    for name, values in regrets.items():
        value, interval = float(values.mean()), bootstrap_ci95(values, mean, about["seed"])
        scores[name] = {"mean": value, "ci95": interval}
        table.add_row(name, f"{value:.2f}", f"[{interval[0]:.2f}, {interval[1]:.2f}]", f"{value / pulls:.4f}")
    if exact is not None:
        table.add_row("Bayes-optimal (exact)", f"{exact:.2f}", "", f"{exact / pulls:.4f}")
    console.print(table)
    print(json.dumps({**about, "regret": scores, "bayes_optimal_regret": exact}))


def main() -> None:
    """Load the run if there is one, play everything, print the table and the JSON line."""
    parser = argparse.ArgumentParser(description="Cumulative regret of a trained policy against bandit algorithms")
    parser.add_argument(
        "run", type=Path, nargs="?", metavar="RUN", help="a run on Bandit; config.yaml and checkpoints/"
    )
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--arms", type=int, default=5, help="without a run")
    parser.add_argument("--pulls", type=int, default=100, help="without a run")
    parser.add_argument("--seed", type=int, help="of the tasks and of all draws [default: the run's, else 0]")
    arguments = parser.parse_args()
    if arguments.tasks < 1:
        parser.error("--tasks must be at least 1")
    regrets: dict[str, Float[np.ndarray, " K"]] = {}
    about: dict[str, Any] = {}
    try:
        if arguments.run is None:
            seed = arguments.seed or 0
            distribution: TaskDistribution = Bandit(arguments.arms, arguments.pulls)
            p, num_pulls = probabilities_of(distribution, SPLIT, arguments.tasks, seed), arguments.pulls
        else:
            trained = load_run(arguments.run)
            seed = trained.config.seed if arguments.seed is None else arguments.seed
            distribution, (p, arms) = trained.distribution, pulls_of_run(trained, arguments.tasks, seed)
            num_pulls = arms.shape[1]
            label = f"run: {trained.config.algorithm.name}"  # type: ignore[attr-defined]
            label += ", told the task" if distribution.reveals_task else ""
            regrets[label] = cumulative_regret(p, arms)
            about = {"run": str(arguments.run), "iteration": trained.checkpoint.iteration}
    except MetarlError as error:
        parser.error(str(error))
    tuned_c = tuned_ucb(probabilities_of(distribution, "train", arguments.tasks, seed), num_pulls, seed)
    regrets |= reference_regrets(p, num_pulls, seed, tuned_c)
    about |= {"seed": seed, "tuned_c": tuned_c, "num_tasks": len(p), "num_arms": p.shape[1], "num_pulls": num_pulls}
    report(regrets, bayes_optimal_regret(p.shape[1], num_pulls), about, Console())


if __name__ == "__main__":
    main()
