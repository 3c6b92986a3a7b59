"""An agent through the trials of a rollout: the same environments, seeds and rounds, and what both recorded."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from metarl.agent.agent import Agent
from metarl.agent.interface import Interface
from metarl.algorithms.base import Algorithm
from metarl.rollout import seeds
from metarl.rollout.collect import collect_trials
from metarl.rollout.types import Episodes, Transition, TrialPlan
from metarl.rollout.worker import single_threaded
from metarl.tasks import Task, TaskDistribution


@dataclass
class Watched:
    """A policy whose transitions, rounds and results of `end_round` are kept."""

    policy: Any
    transitions: list[Transition] = field(default_factory=list)
    rounds: list[Episodes] = field(default_factory=list)
    derived: list[dict[str, np.ndarray]] = field(default_factory=list)

    def describe(self, state: Any) -> dict[str, np.ndarray]:
        described: dict[str, np.ndarray] = self.policy.describe(state)
        return described

    def begin_trial(self, *arguments: Any) -> Any:
        return self.policy.begin_trial(*arguments)

    def act(self, *arguments: Any) -> Any:
        return self.policy.act(*arguments)

    def observe(self, state: Any, transition: Transition) -> Any:
        self.transitions.append(transition)
        return self.policy.observe(state, transition)

    def end_round(self, state: Any, episodes: Episodes, adapt: bool) -> Any:
        state, derived = self.policy.end_round(state, episodes, adapt)
        self.rounds.append(episodes)
        self.derived.append(derived)
        return state, derived


def rollout(
    algorithm: Algorithm,
    distribution: TaskDistribution,
    tasks: tuple[Task, ...],
    plan: TrialPlan,
    path: tuple[int, ...],
) -> Watched:
    """A unit's trials, as rollout workers collect them."""
    watched = Watched(algorithm.policy)
    batch = distribution.make_batch([task for task in tasks for _ in range(plan.num_streams)])
    with single_threaded():
        collect_trials(watched, algorithm.weights(), batch, plan, *seeds.generators(path))
    return watched


def agent_for(
    algorithm: Algorithm, distribution: TaskDistribution, plan: TrialPlan, robots: int | None, policy: Any = None
) -> Agent:
    """An agent on the distribution's environments."""
    env = distribution.make(distribution.sample("train", 1, 0)[0])
    interface = Interface(env.observation_space, env.action_space, robots)
    return Agent(policy or algorithm.policy, algorithm.weights(), plan, interface)


def follow(
    algorithm: Algorithm,
    distribution: TaskDistribution,
    tasks: tuple[Task, ...],
    plan: TrialPlan,
    path: tuple[int, ...],
    tells_next: bool = True,
) -> Watched:
    """The same trials by an agent: a vector of robots, or a single one where there is one task.

    `tells_next`: observe is given what follows at every step, else only where an episode ends.
    """
    single = len(tasks) == 1
    watched = Watched(algorithm.policy)
    agent = agent_for(algorithm, distribution, plan, None if single else len(tasks), watched)
    batch, (env_rng, _) = distribution.make_batch(tasks), seeds.generators(path)
    agent.begin_task(path)
    for _ in plan.rounds:
        obs, _ = batch.reset(seed=int(env_rng.integers(2**63)))
        for t in range(plan.horizon):
            action = agent.act(obs[0] if single else obs)
            obs, *given, _ = batch.step(np.asarray(action)[None] if single else action)
            ends = t == plan.horizon - 1 or any(flags.any() for flags in given[1:])
            reward, terminated, truncated = (values[0] if single else values for values in given)
            following = obs[0] if single else obs
            agent.observe(reward, terminated, truncated, following if tells_next or ends else None)
            if np.all(agent.episode_over):
                break
        agent.end_episode()
    return watched


def assert_same(mine: Watched, theirs: Watched) -> None:
    """Bit for bit: every transition of robots that ran, every round, and what `end_round` made of it."""
    for seen, expected in zip(mine.transitions, theirs.transitions, strict=True):
        for f in fields(Transition):
            one, other = getattr(seen, f.name)[seen.running], getattr(expected, f.name)[expected.running]
            np.testing.assert_array_equal(one, other, err_msg=f.name)
    for a, b in zip(mine.rounds, theirs.rounds, strict=True):
        for f in fields(Episodes):
            if f.name not in ("extras", "success"):
                np.testing.assert_array_equal(getattr(a, f.name), getattr(b, f.name), err_msg=f.name)
                assert getattr(a, f.name).dtype == getattr(b, f.name).dtype
        assert_equal(a.extras, b.extras)
    for derived, others in zip(mine.derived, theirs.derived, strict=True):
        assert_equal(derived, others)


def assert_equal(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)
