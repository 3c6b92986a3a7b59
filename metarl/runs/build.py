"""The one door by which a configuration enters: configuration -> task distribution, spaces, algorithm."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import gymnasium
import torch

from metarl.algorithms.base import Algorithm
from metarl.algorithms.registry import build_algorithm
from metarl.config import RunConfig, TaskDistributionConfig, load_stored_config
from metarl.errors import CheckpointError, ConfigError, TaskError
from metarl.rollout.spaces import Spaces
from metarl.rollout.worker import environment_faults, time_limit
from metarl.runs import checkpoint
from metarl.runs.checkpoint import Checkpoint
from metarl.runs.remote import reading_copy
from metarl.tasks import RevealedTask, Task, TaskDistribution, load_distribution
from metarl.tasks.batch import TaskBatch
from metarl.tasks.distribution import without_validation
from metarl.tasks.requirements import unmet

_log = logging.getLogger(__name__)
Built = TypeVar("Built", gymnasium.Env, TaskBatch)


@dataclass(frozen=True)
class TrainedRun:
    """A checkpoint of a run, ready for use."""

    config: RunConfig
    distribution: TaskDistribution
    algorithm: Algorithm
    checkpoint: Checkpoint


def load_run(path: Path, overrides: Sequence[str] = (), iteration: int | None = None) -> TrainedRun:
    """Load a run directory, or what is left of one: config.yaml and checkpoints/ are enough.

    `overrides` change its configuration for this use of it alone. `iteration` names one of its checkpoints; None
    takes the newest intact one.

    Raises ConfigError or CheckpointError where it is no run, TaskError where its tasks cannot be found.
    """
    if not (path / "config.yaml").is_file():
        raise ConfigError(f"{path} is not a run directory: it has no config.yaml")
    config = load_stored_config(path / "config.yaml", overrides)
    folder = path / "checkpoints"
    saved = checkpoint.load_latest(folder) if iteration is None else checkpoint.load(folder, iteration)
    distribution = distribution_of(config.task_distribution)
    algorithm = build_algorithm(config.algorithm, spaces_of(distribution, config), torch.device("cpu"), config.seed)
    restore(saved, distribution, algorithm)
    if changed := changed_since(saved, distribution):
        _log.warning(
            "%s: the robot's model is not the one that the run was trained on: %s differ. What follows is of the model "
            "as it is now",
            path,
            ", ".join(changed),
        )
    return TrainedRun(config, distribution, algorithm, saved)


def load_run_from(run: str, overrides: Sequence[str] = (), iteration: int | None = None) -> TrainedRun:
    """`load_run` of a directory or a URL."""
    with reading_copy(run) as path:
        return load_run(path, overrides, iteration)


def distribution_of(section: TaskDistributionConfig) -> TaskDistribution:
    """The task distribution that a configuration names; TaskError where it cannot be found or built."""
    distribution = load_distribution(section.name, **section.options)
    if not section.hold_out_validation:
        distribution = without_validation(distribution)
    return RevealedTask(distribution) if section.reveal_task else distribution


def restore(saved: Checkpoint, distribution: TaskDistribution, algorithm: Algorithm) -> None:
    """Put a checkpoint's state into `algorithm`; CheckpointError where it belongs to something else."""
    identity = saved.meta.get("task_distribution")
    if identity != identity_of(distribution):
        raise CheckpointError(f"{saved.path}: trained on {identity}, but installed is {identity_of(distribution)}")
    try:
        algorithm.load_state_dict(saved.tensors)
    except (KeyError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{saved.path}: does not fit the configuration's algorithm: {error}") from error


def changed_since(saved: Checkpoint, distribution: TaskDistribution) -> list[str]:
    """What all tasks share and is not as it was in training; empty where the checkpoint does not say."""
    then = saved.meta.get("fingerprint")
    if not then:
        return []  # without compiling the model
    now = distribution.fingerprint()
    return [name for name in then if now.get(name) != then[name]]


def identity_of(distribution: TaskDistribution) -> dict[str, Any]:
    """What a checkpoint's tasks must agree with; `reveals_task` stands in it only where they are revealed."""
    identity: dict[str, Any] = {"name": distribution.name, "version": distribution.version}
    return {**identity, "reveals_task": True} if distribution.reveals_task else identity


def spaces_of(distribution: TaskDistribution, config: RunConfig) -> Spaces:
    """What a policy for these tasks must know; builds one environment to find out where the distribution does not say.

    EnvironmentFault naming the task where that raises or takes longer than a unit may.
    """
    if distribution.spaces is not None:
        return Spaces.of(*distribution.spaces)
    if lacking := unmet(distribution.requirements):
        raise TaskError(
            f"{distribution.name} needs {', '.join(lacking)}, which is not installed here: state its `spaces`, so that "
            "only workers have to build its environments"
        )
    with one_built(distribution, config, distribution.make_batch) as batch:
        return Spaces.of(batch.single_observation_space, batch.single_action_space)


@contextmanager
def one_built(
    distribution: TaskDistribution, config: RunConfig, make: Callable[[Sequence[Task]], Built]
) -> Iterator[Built]:
    """What `make` gives for one training task, closed at the end. EnvironmentFault naming the task where that raises,
    or where all of it takes longer than a unit may."""
    tasks, doing = distribution.sample("train", 1, config.seed), "building the environment"
    with environment_faults(tasks, doing), time_limit(config.executor.unit_deadline_s, tasks, doing):
        built = make(tasks)
        try:
            yield built
        finally:
            built.close()
