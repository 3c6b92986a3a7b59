"""What shows how much a run's adaptation is worth: the same tasks and environment steps, learned without adaptation."""

from __future__ import annotations

from metarl.algorithms.base import AlgorithmConfig, AlgorithmPlugin
from metarl.algorithms.registry import load_algorithm, resolve_preset
from metarl.config.schema import RunConfig
from metarl.errors import ConfigError

TASK_BLIND, ORACLE = "task_blind", "oracle"
_ROBUST = {"name": "robust"}  # of algorithms that cannot be had without their adaptation


def baselines_of(config: RunConfig, env_steps: int) -> dict[str, RunConfig]:
    """The configurations of a run's baselines, each of which ends at `env_steps` environment steps.

    task_blind: one policy for all tasks, without memory (domain randomisation). It is the run's own learner where that
    can be had without adaptation, else the preset `robust`.
    oracle: the same policy, told the task's parameters.

    ConfigError where the run is an oracle itself.
    """
    if config.task_distribution.reveal_task:
        raise ConfigError("task_distribution.reveal_task = True: baselines are of runs that are not told the task")
    own = config.algorithm.task_blind() if isinstance(config.algorithm, AlgorithmConfig) else None
    training = config.training.model_copy(
        update={
            "iterations": env_steps,  # more than will be needed
            "env_steps_limit": env_steps,
            "time_limit_minutes": None,
            "overlap": False,
        }
    )
    judged = config.evaluation.model_copy(
        update={"episodes": None, "support_episodes": None, "rounds": None, "context": "own"}
    )
    blind = config.model_copy(
        update={"algorithm": own or _robust(), "training": training, "evaluation": judged},
    )
    told = config.task_distribution.model_copy(update={"reveal_task": True})
    return {TASK_BLIND: blind, ORACLE: blind.model_copy(update={"task_distribution": told})}


def _robust() -> AlgorithmConfig:
    section = resolve_preset(_ROBUST)
    plugin = load_algorithm(section["name"])
    assert isinstance(plugin, AlgorithmPlugin)
    config = plugin.config.model_validate(section)
    assert isinstance(config, AlgorithmConfig)
    return config
