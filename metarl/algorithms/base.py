"""What an algorithm is to the platform: a configuration class and a learner. Nothing is inherited between algorithms.

class MyAlgorithm:                       # `algorithm: {name: "my_module:MyAlgorithm", ...}`
    Config = MyConfig                    # an AlgorithmConfig
    def __init__(self, config, spaces, device, seed): ...
    ...                                  # the methods of `Algorithm`
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Protocol, get_args

import numpy as np
import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from metarl.errors import ConfigError
from metarl.rollout.policy import AdaptivePolicy
from metarl.rollout.spaces import Spaces
from metarl.rollout.types import Context, TrialBatch, TrialPlan
from metarl.tasks import Task, TaskDistribution


def _kinds(annotation: Any) -> set[Any]:
    """The types of a union, `Annotated` taken off; of any other annotation itself."""
    parts = [part for part in get_args(annotation) if isinstance(part, type) or get_args(part)]
    return set().union(*map(_kinds, parts)) if parts else {annotation}


class Section(BaseModel):
    """A part of a configuration: frozen, no unknown keys, no numbers that are not finite, no silent conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _whole_numbers(cls, data: Any) -> Any:
        """A whole number may be written as 1e6."""
        if not isinstance(data, dict):
            return data
        return {name: int(value) if cls._is_whole(name, value) else value for name, value in data.items()}

    @classmethod
    def _is_whole(cls, name: Any, value: Any) -> bool:
        if name not in cls.model_fields or not (isinstance(value, float) and value.is_integer()):
            return False
        kinds = _kinds(cls.model_fields[name].annotation)
        return int in kinds and float not in kinds


Sizes = Annotated[
    tuple[Annotated[int, Field(ge=1)], ...],
    BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value),
]


class AlgorithmConfig(Section):
    """Base of every algorithm's section of the configuration."""

    name: str = Field(description="a registered algorithm or preset, or module:attr")

    def task_blind(self) -> AlgorithmConfig | None:
        """The settings of the same learner for a policy that does not adapt; None where it has none."""
        return None


@dataclass(frozen=True)
class EvaluationSettings:
    """What an evaluation asks of an algorithm; None leaves the choice to the algorithm's own plan.

    episodes: judged episodes per task.
    support_episodes: episodes per task that the policy adapts to before the judged ones.
    rounds: rounds of a trial, the last one judged.
    deterministic: whether judged actions are means (or most likely actions) instead of samples.
    context: whose experience the policy adapts to; see `metarl.rollout.types.TrialPlan`.
    """

    episodes: int | None = None
    support_episodes: int | None = None
    rounds: int | None = None
    deterministic: bool = True
    context: Context = "own"


class Algorithm(Protocol):
    """The central learner."""

    @property
    def policy(self) -> AdaptivePolicy[Any]:
        """What rollout workers run; takes `weights()`."""
        ...

    @property
    def max_lag(self) -> int:
        """How many updates old the weights may be that a trial was collected with; 0 for on-policy algorithms."""
        ...

    def tasks(self, distribution: TaskDistribution, seed: int, iteration: int) -> tuple[Task, ...]:
        """An iteration's training tasks, a function of the arguments alone: fresh ones, or some of a fixed pool."""
        ...

    def plan(self, horizon: int) -> TrialPlan:
        """How the next training trials are collected, as data; asked for anew at every iteration."""
        ...

    def evaluation_plan(self, horizon: int, settings: EvaluationSettings) -> TrialPlan:
        """How an evaluation's trials are collected. ConfigError naming a setting that does not apply here.

        More rounds or support episodes never mean less adaptation.
        """
        ...

    def weights(self) -> dict[str, np.ndarray]:
        """What `AdaptivePolicy.begin_trial` needs, copied off the device."""
        ...

    def update(self, batches: Sequence[TrialBatch], progress: float) -> dict[str, float]:
        """One meta-update from the trials of all units, in unit order; the metrics of it.

        `progress` in [0, 1] is the share of the run that is done, by iterations, steps or time, whichever is furthest;
        schedules follow it.
        """
        ...

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Everything that resuming exactly needs (parameters, optimiser, normalisers), by name."""
        ...

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Continue exactly where `state` was taken; KeyError, ValueError or RuntimeError where it does not fit."""
        ...


@dataclass(frozen=True)
class AlgorithmPlugin:
    """A configuration class and what builds the learner that an instance of it describes."""

    config: type[BaseModel]
    build: Callable[[Any, Spaces, torch.device, int], Algorithm]


@dataclass(frozen=True)
class Preset:
    """A name for settings of another algorithm.

    `values` are defaults that a configuration's own keys override, but for the dotted keys in `defining`: with another
    value there the configuration would not be what its name says, and is refused.
    """

    algorithm: str
    values: Mapping[str, Any] = field(default_factory=dict)
    defining: tuple[str, ...] = ()


def judged_streams(num_streams: int, settings: EvaluationSettings) -> int:
    """Streams of an evaluation in which every stream judges one episode."""
    return num_streams if settings.episodes is None else settings.episodes


def rounds_of(settings: EvaluationSettings, default: int, what: str) -> int:
    """Rounds before the judged one, where a round is one episode per stream: of `--rounds`, of the support episodes, or
    the default. ConfigError where both are given and differ, or where fewer than `1` is left.

    `what` names the algorithm in the message.
    """
    from_rounds = None if settings.rounds is None else settings.rounds - 1
    if from_rounds is not None and settings.support_episodes not in (None, from_rounds):
        raise ConfigError(
            f"evaluation.rounds = {settings.rounds} and evaluation.support_episodes = {settings.support_episodes}: "
            f"{what} adapts to one episode per round before the judged one; give one of the two and set the other to "
            "null, as in evaluation.support_episodes=null"
        )
    if settings.support_episodes is not None:
        return settings.support_episodes
    return default if from_rounds is None else from_rounds


Schedule = Literal["constant", "linear"]
