"""From a run to an agent."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium

from metarl.agent.agent import Agent
from metarl.agent.interface import Interface
from metarl.algorithms.base import Algorithm, EvaluationSettings
from metarl.config import RunConfig
from metarl.errors import AgentError
from metarl.rollout.types import TrialPlan, Weights
from metarl.runs.build import TrainedRun, identity_of, load_run_from, one_built
from metarl.tasks import TaskDistribution
from metarl.tasks.indexed_actions import own_action_space
from metarl.tasks.nested import nested_space


def load_agent(
    run: str | Path | TrainedRun,
    *,
    robots: int | None = None,
    checkpoint: int | None = None,
    support_episodes: int | None = None,
    rounds: int | None = None,
    horizon: int | None = None,
    deterministic: bool = True,
    seed: int = 0,
    action_space: gymnasium.Space | Sequence[gymnasium.Space] | None = None,
    overrides: Sequence[str] = (),
) -> Agent:
    """The policy of a run, ready to act and adapt. No Ray, and nothing that learns, is loaded with it.

    run: a run directory or its URL (config.yaml and checkpoints/ are enough), or a loaded run.
    robots: None for one robot; K for a vector of them.
    checkpoint: the iteration of one of the run's checkpoints; None: the newest.
    support_episodes, rounds: how many episodes it adapts to, and in how many rounds, as in `metarl evaluate`; None: as
        the run does. ConfigError where the algorithm cannot use so many.
    horizon: steps of an episode; None: those of the task distribution.
    deterministic: whether it acts by its most likely actions once it has adapted.
    seed: of its sampled actions.
    action_space: the robot's, or each robot's, where its bounds are not those of the run's environments.
    overrides: `key=value` changes of the run's configuration for this use of it alone.
    """
    trained = run if isinstance(run, TrainedRun) else load_run_from(str(run), list(overrides), checkpoint)
    steps = trained.distribution.horizon if horizon is None else horizon
    if steps < 1:
        raise AgentError(f"horizon = {steps}: an episode has at least 1 step")
    settings = EvaluationSettings(1, support_episodes, rounds, deterministic)
    plan = deployment_plan(trained.algorithm, steps, settings)
    seen, acted_in = spaces_of_a_robot(trained.distribution, trained.config)
    interface = Interface(seen, acted_in if action_space is None else action_space, robots)
    weights = trained.algorithm.weights()
    return Agent(
        trained.algorithm.policy,
        weights,
        plan,
        interface,
        seed=seed,
        identity=_identity(trained, weights, plan, robots),
    )


def deployment_plan(algorithm: Algorithm, horizon: int, settings: EvaluationSettings) -> TrialPlan:
    """The rounds of a task on a robot, the last of which is repeated: the algorithm's own `deployment_plan` where it
    has one, else its plan of an evaluation."""
    make = getattr(algorithm, "deployment_plan", None) or algorithm.evaluation_plan
    plan: TrialPlan = make(horizon, settings)
    return plan


def spaces_of_a_robot(distribution: TaskDistribution, config: RunConfig) -> tuple[gymnasium.Space, gymnasium.Space]:
    """Observation and action space of the environments, not flattened, no index, behind effects neither; builds one
    where none are stated."""
    if distribution.spaces is not None:
        return distribution.spaces
    with one_built(distribution, config, lambda tasks: distribution.make(tasks[0])) as env:
        return nested_space(env), own_action_space(env)


def _identity(trained: TrainedRun, weights: Weights, plan: TrialPlan, robots: int | None) -> dict[str, Any]:
    """What a saved state must agree with."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(f"{name} {weights[name].dtype} {weights[name].shape}".encode())
        digest.update(weights[name].tobytes())
    return {
        "algorithm": str(trained.config.algorithm),
        "task distribution": str(identity_of(trained.distribution)),
        "iteration": trained.checkpoint.iteration,
        "weights": digest.hexdigest()[:16],
        "plan": str(plan),
        "robots": robots,
    }
