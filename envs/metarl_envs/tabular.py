"""Bernoulli bandits and random finite MDPs: small enough that the exact optimum is known."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import gymnasium
import numpy as np

from metarl.errors import TaskError
from metarl.tasks import Anchors, Parameter, Simplex, Task, TaskParams, Uniform
from metarl.tasks.arrays import ArrayTaskDistribution


class Bandit(ArrayTaskDistribution):
    """Arms that pay 1 with probability p_k ~ U(0, 1), else 0. Observation 1: always 0. One pull per step."""

    name = "Bandit"
    version = 1

    def __init__(self, num_arms: int = 5, horizon: int = 10):
        super().__init__(horizon)
        if num_arms < 2:
            raise TaskError(f"{self.name}: num_arms must be at least 2, got {num_arms}")
        self.num_arms = num_arms
        self.parameters = (Parameter("probabilities", Uniform(0.0, 1.0, num_arms)),)
        self.single_observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float64)
        self.single_action_space = gymnasium.spaces.Discrete(num_arms)

    @property
    def anchors(self) -> Anchors:
        blind, expert = 0.5 * self.horizon, self.horizon * self.num_arms / (self.num_arms + 1)
        return Anchors(blind, blind, expert, "closed form: E p = 1/2; the mean of the largest of K uniforms is K/(K+1)")

    def optimal_return(self, task: Task) -> float:
        """Expected return of pulling the task's best arm throughout."""
        return self.horizon * float(max(task.vector()))

    def bayes_optimal_return(self) -> float:
        """The best expected return over the prior of any policy that must find the best arm within the horizon.

        Backward induction over each arm's (successes, failures); exact, for a few arms and short horizons.
        """
        return _bandit_value(((0, 0),) * self.num_arms, self.horizon)

    def initial_state(self, rng: np.random.Generator, n: int) -> np.ndarray:
        return np.zeros((n, 1))

    def transition(
        self, rng: np.random.Generator, state: np.ndarray, action: np.ndarray, params: TaskParams
    ) -> tuple[np.ndarray, np.ndarray]:
        p = np.take_along_axis(params["probabilities"], action.astype(np.int64)[:, None], axis=1)[:, 0]
        return state, (rng.random(len(p)) < p).astype(np.float64)


@functools.lru_cache(maxsize=1_000_000)
def _bandit_value(counts: tuple[tuple[int, int], ...], pulls_left: int) -> float:
    """V = max_k p_k (1 + V(success)) + (1 - p_k) V(failure), with p_k = (s + 1) / (s + f + 2) for uniform priors."""
    if pulls_left == 0:
        return 0.0
    best = 0.0
    for k, (s, f) in enumerate(counts):
        if k > 0 and counts[k] == counts[k - 1]:
            continue
        p = (s + 1) / (s + f + 2)
        won = tuple(sorted((*counts[:k], (s + 1, f), *counts[k + 1 :])))
        lost = tuple(sorted((*counts[:k], (s, f + 1), *counts[k + 1 :])))
        best = max(best, p * (1 + _bandit_value(won, pulls_left - 1)) + (1 - p) * _bandit_value(lost, pulls_left - 1))
    return best


class TabularMDP(ArrayTaskDistribution):
    """Random MDPs: transitions uniform on the simplex, rewards 1 with probability r(s, a) ~ U(0, 1), else 0.

    Episodes start in state 0. Observation [S]: the state, one-hot. Action: one of A.
    """

    name = "TabularMDP"
    version = 1

    def __init__(self, num_states: int = 10, num_actions: int = 5, horizon: int = 10):
        super().__init__(horizon)
        if num_states < 2 or num_actions < 2:
            raise TaskError(f"{self.name}: needs at least 2 states and actions, got {num_states} and {num_actions}")
        self.num_states, self.num_actions = num_states, num_actions
        pairs = num_states * num_actions
        self.parameters = (
            Parameter("rewards", Uniform(0.0, 1.0, pairs)),
            Parameter("transitions", Simplex(num_states, rows=pairs)),
        )
        self.single_observation_space = gymnasium.spaces.Box(0.0, 1.0, (num_states,), np.float64)
        self.single_action_space = gymnasium.spaces.Discrete(num_actions)

    @property
    def anchors(self) -> Anchors:
        blind = 0.5 * self.horizon
        source = "closed form: E r = 1/2; expert: mean exact optimum of the 256 training tasks of seed 0"
        return Anchors(blind, blind, _mean_optimum(self.num_states, self.num_actions, self.horizon), source)

    def optimal_values(self, tasks: Sequence[Task]) -> np.ndarray:
        """Q*[n, H, S, A]: the expected return from step h on, by backward induction.

        Q_h(s, a) = r(s, a) + sum_s' P(s' | s, a) max_a' Q_{h+1}(s', a').
        """
        S, A = self.num_states, self.num_actions
        rewards = np.array([task["rewards"] for task in tasks]).reshape(-1, S, A)
        transitions = np.array([task["transitions"] for task in tasks]).reshape(-1, S, A, S)
        values = np.zeros((len(tasks), self.horizon, S, A))
        after = np.zeros((len(tasks), S))
        for h in reversed(range(self.horizon)):
            values[:, h] = rewards + np.einsum("nsat,nt->nsa", transitions, after)
            after = values[:, h].max(axis=2)
        return values

    def optimal_return(self, task: Task) -> float:
        """Expected return of the task's optimal policy, from state 0."""
        return float(self.optimal_values([task])[0, 0, 0].max())

    def initial_state(self, rng: np.random.Generator, n: int) -> np.ndarray:
        return np.zeros((n, 1))

    def transition(
        self, rng: np.random.Generator, state: np.ndarray, action: np.ndarray, params: TaskParams
    ) -> tuple[np.ndarray, np.ndarray]:
        n, S = len(state), self.num_states
        pair = state[:, 0].astype(np.int64) * self.num_actions + action.astype(np.int64)
        row = np.arange(n)
        reward = rng.random(n) < params["rewards"][row, pair]
        cumulative = np.cumsum(params["transitions"].reshape(n, -1, S)[row, pair], axis=1)
        # The last cumulative sum may fall short of 1 by rounding, hence only the first S - 1 are compared.
        next_state = (rng.random((n, 1)) >= cumulative[:, :-1]).sum(axis=1)
        return next_state[:, None].astype(np.float64), reward.astype(np.float64)

    def observe(self, state: np.ndarray) -> np.ndarray:
        return (state == np.arange(self.num_states)).astype(np.float64)


@functools.lru_cache
def _mean_optimum(num_states: int, num_actions: int, horizon: int) -> float:
    family = TabularMDP(num_states, num_actions, horizon)
    values = family.optimal_values(family.sample("train", 256, seed=0))
    return float(values[:, 0, 0].max(axis=1).mean())
