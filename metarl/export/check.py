"""An export beside the agent that it was made of: the same observations, rewards and random numbers on held-out tasks.

The environment gets the agent's actions. The export carries its own memory and its own adapted parameters, so that a
difference anywhere shows in the actions that follow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from metarl.agent.agent import Agent
from metarl.export.runner import Runner
from metarl.rollout.policy import AdaptivePolicy
from metarl.tasks import TaskBatch, TaskDistribution

STEPS, TOLERANCE = 500, 1e-5


@dataclass(frozen=True)
class Comparison:
    """What `compare` found. difference: the largest of all actions, in the policy's units, in which a range has the
    length 2; of discrete actions 1 or more where any differs, or a part of the robot's. robot_difference: the same in
    the robot's units."""

    difference: float
    robot_difference: float
    steps: int
    adaptations: int
    tasks: int

    def __str__(self) -> str:
        return (
            f"{self.steps} steps and {self.adaptations} adaptations on {self.tasks} held-out tasks: "
            f"actions differ by at most {self.difference:.1e}"
        )


@dataclass
class _Drawn:
    """A generator that keeps what it draws."""

    rng: np.random.Generator
    drawn: list[np.ndarray] = field(default_factory=list)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self.rng, name)

        def draw(*arguments: Any, **named: Any) -> Any:
            values = method(*arguments, **named)
            self.drawn.append(np.array(values))  # the policy may go on with the array itself
            return values

        return draw


@dataclass
class _Watched:
    """A policy that keeps what its last action was and what was drawn for it."""

    policy: AdaptivePolicy[Any]
    drawn: list[np.ndarray] = field(default_factory=list)
    action: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.policy, name)

    def act(self, state: Any, observations: np.ndarray, rng: np.random.Generator, deterministic: bool) -> Any:
        kept = _Drawn(rng)
        self.action, state, logged = self.policy.act(state, observations, kept, deterministic)  # type: ignore[arg-type]
        self.drawn = kept.drawn
        return self.action, state, logged


def compare(
    agent: Agent, runner: Runner, distribution: TaskDistribution, seed: int = 0, steps: int = STEPS
) -> Comparison:
    """Both through whole tasks of the test split, one round beyond their plan, until `steps` steps were taken."""
    watched = _Watched(agent.policy)
    beside = Agent(watched, agent.weights, agent.plan, agent.interface, identity=agent.identity)
    found = Comparison(0.0, 0.0, 0, 0, 0)
    tasks = distribution.sample("test", max(1, steps), seed)
    while found.steps < steps:
        batch = distribution.make_batch(tasks[found.tasks : found.tasks + 1])
        try:
            one = _on_a_task(beside, runner, batch, watched, (seed, found.tasks))
        finally:
            batch.close()
        found = Comparison(
            max(found.difference, one.difference),
            max(found.robot_difference, one.robot_difference),
            found.steps + one.steps,
            found.adaptations + one.adaptations,
            found.tasks + 1,
        )
    return found


def _on_a_task(agent: Agent, runner: Runner, batch: TaskBatch, watched: _Watched, path: tuple[int, ...]) -> Comparison:
    agent.begin_task(path)
    runner.begin_task()
    difference, robot_difference, steps = 0.0, 0.0, 0
    while agent.status.round <= len(agent.plan.rounds) + 1:
        obs, _ = batch.reset(seed=[*path, agent.status.episode])
        is_first = True
        while not agent.episode_over:
            deterministic = agent.status.deterministic
            action = agent.act(obs[0])
            noise = {} if deterministic else _noise(runner, watched.drawn, is_first)
            others = runner.act(obs[0], noise)
            difference = max(difference, _apart(watched.action[0, 0], runner.policy_action))
            robot_difference = max(robot_difference, _apart(action, others))
            if agent.interface.spaces.discrete:
                difference = max(difference, robot_difference)
            obs, rewards, terminated, truncated, _ = batch.step(np.asarray(action)[None])
            agent.observe(float(rewards[0]), bool(terminated[0]), bool(truncated[0]), obs[0])
            runner.observe(float(rewards[0]))
            is_first, steps = False, steps + 1
        runner.end_episode(not terminated[0], obs[0])
        agent.end_episode()
    return Comparison(difference, robot_difference, steps, agent.status.adaptations, 1)


def _noise(runner: Runner, drawn: list[np.ndarray], is_first: bool) -> dict[str, np.ndarray]:
    """What the agent drew for this action, as the graph's noise inputs, which are in the order of drawing."""
    ports = [port for port in runner.noises.values() if is_first or port["draw_at"] == "step"]
    return {
        port["name"]: np.asarray(values, port["dtype"]).reshape(port["shape"])
        for port, values in zip(ports, drawn, strict=True)
    }


def _apart(one: Any, other: Any) -> float:
    """The largest difference of two actions; infinite where one is not finite."""
    difference = np.abs(np.asarray(one, np.float64) - np.asarray(other, np.float64)).max()
    return float(difference) if np.isfinite(difference) else float("inf")
