"""The protocol of the policies that rollout workers run, and what a policy must know of an environment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

import gymnasium
import numpy as np

from metarl.errors import ConfigError
from metarl.rollout.types import Extras, Round, Transition, Weights

State = TypeVar("State")
Context = Literal["own", "blank", "shuffled"]


def check_context(context: Context, num_tasks: int) -> None:
    """For ablations at test (no context, or another task's): ConfigError where there is no other task."""
    if context == "shuffled" and num_tasks < 2:
        raise ConfigError("algorithm.context = 'shuffled' needs two tasks or more in every unit: choose other --tasks")


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
        """Actions for `observations` [K, N, O] float32, and what the learner needs of this step ([K, N, ...]).

        All rows are asked, also those whose episode has ended (`observe` said so): what they answer is ignored, and
        their state must stay. The first call of a round sees the new episode's first observation; what a round
        draws at its start (a latent from prior or posterior) is drawn here, where the generator is.
        """
        ...

    def observe(self, state: State, transition: Transition) -> State:
        """Adaptation within an episode. Rows that are not running must not move."""
        ...

    def end_round(self, state: State, round_: Round, adapt: bool) -> tuple[State, Extras]:
        """Adaptation between rounds (where `adapt`), and what was derived on the way ([K, ...]). Every round ends
        here: the place to set an episode-boundary flag or ask for a fresh latent, whether it adapts or not."""
        ...
