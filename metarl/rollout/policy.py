"""The protocol of the policies that rollout workers run, and what a policy must know of an environment."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Protocol, TypeGuard, TypeVar

import numpy as np

from metarl.errors import ConfigError
from metarl.rollout.types import Context, Episodes, Extras, Transition, Weights
from metarl.tasks import Task

State = TypeVar("State")


class AdaptivePolicy(Protocol[State]):
    """A policy that adapts, run by rollout workers, evaluation and deployment alike. Picklable; no optimiser inside.

    A trial on K tasks x N streams: `begin_trial`, then per round `act` / `observe` at every step and
    `end_round` once. `state` holds everything that changes and is passed on, never shared.
    """

    def begin_trial(self, weights: Weights, num_tasks: int, num_streams: int, rng: np.random.Generator) -> State:
        """The state before the first episode. A policy that takes one argument more is an `AblatablePolicy`."""
        ...

    def act(
        self, state: State, observations: np.ndarray, rng: np.random.Generator, deterministic: bool
    ) -> tuple[np.ndarray, State, Extras]:
        """Actions for `observations` [K, N, O] float32, and what the learner needs of this step ([K, N, ...]).

        All rows are asked, also those whose episode has ended (`observe` said so): their answer is ignored, and
        their state must not change. The first call of a round sees the new episode's first observation. What a round
        draws at its start (a latent from prior or posterior) is drawn here, where the generator is.
        """
        ...

    def observe(self, state: State, transition: Transition) -> State:
        """Adaptation within an episode. Rows that are not running must not change."""
        ...

    def end_round(self, state: State, episodes: Episodes, adapt: bool) -> tuple[State, Extras]:
        """Adaptation between rounds (where `adapt`), and what was derived on the way ([K, ...]). Every round ends
        here: the place to set an episode-boundary flag or ask for a fresh latent, whether it adapts or not."""
        ...


class AblatablePolicy(AdaptivePolicy[State], Protocol[State]):
    """An adaptive policy whose context can be taken away or exchanged, for ablations in evaluations."""

    def begin_trial(
        self,
        weights: Weights,
        num_tasks: int,
        num_streams: int,
        rng: np.random.Generator,
        context_of: np.ndarray | None = None,
    ) -> State:
        """The state before the first episode.

        `context_of` [K] int64: the index of the task whose experience each task's policy adapts to, or -1 for none.
        None, as in training and deployment: its own.
        """
        ...


def is_ablatable(policy: AdaptivePolicy[State]) -> TypeGuard[AblatablePolicy[State]]:
    """Whether `begin_trial` takes `context_of`."""
    return "context_of" in inspect.signature(policy.begin_trial).parameters


def context_sources(tasks: Sequence[Task], context: Context) -> np.ndarray | None:
    """For `AblatablePolicy.begin_trial`: whose experience each of K tasks adapts to, int64 [K]; None for its own.

    `shuffled` gives every task the next one in the unit that differs from it, so that no context is ever of an equal
    task. ConfigError where there is none.
    """
    if context == "own":
        return None
    if context == "blank":
        return np.full(len(tasks), -1)
    sources = []
    for k, task in enumerate(tasks):
        others = (i % len(tasks) for i in range(k + 1, k + len(tasks)))
        source = next((i for i in others if tasks[i] != task), None)
        if source is None:
            raise ConfigError(
                f"evaluation.context = 'shuffled': all {len(tasks)} tasks of a unit equal {task}, and none has another "
                "task's context; allowed: own, blank, or more tasks (--tasks, training.tasks_per_unit)"
            )
        sources.append(source)
    return np.array(sources)
