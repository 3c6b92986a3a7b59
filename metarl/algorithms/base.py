"""The two protocols an algorithm implements: the policy that actors run, and the learner.

Nothing is inherited between algorithms; they share by calling `metarl.ops`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import gymnasium
import numpy as np
import torch

from metarl.errors import ConfigError
from metarl.experience import Extras, Round, Transition, Trial, TrialPlan, Weights

State = TypeVar("State")


@dataclass(frozen=True)
class Spaces:
    """What a policy must know of an environment. Box actions are presented to policies as [-1, 1] per dimension."""

    obs_dim: int
    action_dim: int
    discrete: bool = False

    @staticmethod
    def of(observation: gymnasium.Space, action: gymnasium.Space) -> Spaces:
        if not isinstance(observation, gymnasium.spaces.Box) or len(observation.shape) != 1:
            raise ConfigError(f"observations must be flat Box vectors, got {observation}")
        if isinstance(action, gymnasium.spaces.Discrete):
            return Spaces(observation.shape[0], int(action.n), discrete=True)
        if isinstance(action, gymnasium.spaces.Box) and len(action.shape) == 1:
            return Spaces(observation.shape[0], action.shape[0])
        raise ConfigError(f"actions must be Discrete or a flat Box vector, got {action}")


class AdaptivePolicy(Protocol[State]):
    """A policy that adapts, run by actors, evaluation and deployment alike. Picklable; weights in, no optimiser.

    A trial on K tasks x N streams: `begin_trial`, then per round `act` / `observe` at every step and
    `end_round` once. `state` holds everything that changes and is passed on, never shared.
    """

    def begin_trial(self, weights: Weights, num_tasks: int, num_streams: int, rng: np.random.Generator) -> State:
        """The state before the first episode."""
        ...

    def act(
        self, state: State, observations: np.ndarray, rng: np.random.Generator, deterministic: bool
    ) -> tuple[np.ndarray, State, Extras]:
        """Actions for `observations` [K, N, O] float32, and what the learner needs of this step ([K, N, ...])."""
        ...

    def observe(self, state: State, transition: Transition) -> State:
        """Adaptation within an episode. Rows that are not running must not move."""
        ...

    def end_round(self, state: State, round_: Round, adapt: bool) -> tuple[State, Extras]:
        """Adaptation between rounds (where `adapt`), and what was derived on the way ([K, ...])."""
        ...


class Algorithm(Protocol):
    """The central learner."""

    @property
    def policy(self) -> AdaptivePolicy[Any]: ...

    @property
    def num_tasks(self) -> int:
        """Tasks per iteration."""
        ...

    def plan(self, horizon: int, evaluation: bool = False) -> TrialPlan:
        """How its trials are collected, as data."""
        ...

    def weights(self) -> dict[str, np.ndarray]:
        """What `AdaptivePolicy.begin_trial` needs, copied off the device."""
        ...

    def update(self, trials: Sequence[Trial]) -> dict[str, float]:
        """One meta-update from trials in unit order; the metrics of it. On-policy algorithms permit lag 0."""
        ...

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Everything that resuming exactly needs (parameters, optimiser, normalisers), by name."""
        ...

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None: ...
