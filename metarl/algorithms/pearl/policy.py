"""What rollout workers run: a policy given a latent z, and the posterior over z given its transitions. NumPy.

Letters: K task, N stream, B = K N rows, T steps, C context features, O observation, A action, Z latent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from metarl.algorithms.tensors import to_tensor
from metarl.kernels.relu_mlp import ReluMLP
from metarl.nets.context_encoder import ContextEncoder, Memory
from metarl.ops.latents import Evidence, posterior
from metarl.rollout.types import Episodes, Extras, Round, Transition, Weights

LOG_STD_RANGE = (-20.0, 2.0)


@dataclass(frozen=True)
class Belief:
    """N(mean, var) over z for every row [B, Z], from the evidence so far."""

    mean: np.ndarray
    var: np.ndarray


@dataclass(frozen=True)
class PEARLState:
    weights: Weights
    shape: tuple[int, int]  # K, N
    memory: Memory  # the encoder's, of all rounds so far, adapted to or not
    belief: Belief
    z: np.ndarray  # [B, Z]
    is_stale: bool  # whether a fresh z is to be drawn before the next action
    context_of: np.ndarray | None = None  # [K] whose evidence each task takes; see AblatablePolicy.begin_trial


@dataclass(frozen=True)
class PEARLPolicy:
    """The AdaptivePolicy: z is drawn when a round begins, from the prior until a round was adapted to."""

    actor: ReluMLP
    encoder: ContextEncoder
    latent_dim: int
    context_size: int
    next_observation: bool  # whether the context holds it

    def begin_trial(
        self,
        weights: Weights,
        num_tasks: int,
        num_streams: int,
        rng: np.random.Generator,
        context_of: np.ndarray | None = None,
    ) -> PEARLState:
        shape = (num_tasks * num_streams, self.latent_dim)
        prior = Belief(np.zeros(shape, np.float32), np.ones(shape, np.float32))
        nothing = self.encoder.initial(shape[0])
        return PEARLState(weights, (num_tasks, num_streams), nothing, prior, prior.mean, True, context_of)

    def act(
        self, state: PEARLState, observations: np.ndarray, rng: np.random.Generator, deterministic: bool
    ) -> tuple[np.ndarray, PEARLState, Extras]:
        """Deterministic actions are the means, under the mean of z."""
        K, N = state.shape
        if state.is_stale:
            noise = rng.standard_normal(state.belief.mean.shape, dtype=np.float32)
            z = state.belief.mean + (0 if deterministic else 1) * np.sqrt(state.belief.var) * noise
            state = replace(state, z=z, is_stale=False)
        inputs = np.concatenate((observations.reshape(K * N, -1), state.z), axis=1)
        mean, log_std = np.split(self.actor.act(state.weights, inputs), 2, axis=1)
        if not deterministic:
            noise = rng.standard_normal(mean.shape, dtype=np.float32)
            mean = mean + np.exp(log_std.clip(*LOG_STD_RANGE)) * noise
        return np.tanh(mean).reshape(K, N, -1), state, {}

    def observe(self, state: PEARLState, transition: Transition) -> PEARLState:
        return state

    def end_round(self, state: PEARLState, episodes: Episodes, adapt: bool) -> tuple[PEARLState, Extras]:
        """Read the round's real transitions; where `adapt`, believe them and all before. Logs the belief that the next
        round starts from."""
        mine = f"{self.encoder.name}."
        params = {name: to_tensor(value) for name, value in state.weights.items() if name.startswith(mine)}
        features = to_tensor(context_features(episodes, self.next_observation))
        mask = to_tensor(episodes.mask.reshape(features.shape[:2])).float()
        belief = state.belief
        with torch.no_grad():
            memory = self.encoder.read(params, features, state.memory, mask)
            if adapt and not _is_blank(state.context_of):
                evidence = self.encoder.evidence(params, memory)
                if state.context_of is not None:
                    rows = np.arange(len(features)).reshape(state.shape)[state.context_of].ravel()
                    evidence = Evidence(*(part[torch.from_numpy(rows)] for part in evidence))
                mean, var = posterior(evidence, self.context_size)
                belief = Belief(mean.numpy(), var.numpy())
        shape = (*state.shape, self.latent_dim)
        derived = {"belief_mean": belief.mean.reshape(shape), "belief_var": belief.var.reshape(shape)}
        return replace(state, memory=memory, belief=belief, is_stale=True), derived

    def describe(self, state: PEARLState) -> dict[str, np.ndarray]:
        """The posterior's `mean` and `std`, and the `latent` that it acts with, [K, Z]; for one stream per task."""
        return {"mean": state.belief.mean, "std": np.sqrt(state.belief.var), "latent": state.z}


def prior_rounds(rounds: Sequence[Round]) -> int:
    """How many of a trial's rounds were collected with z from the prior: those up to the first one adapted to."""
    for number, round_ in enumerate(rounds, start=1):
        if (round_.derived["belief_var"] != 1).any():
            return number
    return len(rounds)


def _is_blank(context_of: np.ndarray | None) -> bool:
    """Whether no task takes any evidence; a unit's tasks are ablated alike."""
    return context_of is not None and bool((context_of < 0).all())


def context_features(episodes: Episodes, next_observation: bool) -> np.ndarray:
    """(o, a, r) of every step, and o' where asked for: [B, T, C] float32. What padding holds has no meaning."""
    parts = [episodes.observations, episodes.actions, episodes.rewards[..., None]]
    if next_observation:
        parts.append(episodes.next_observations)
    joined = np.concatenate(parts, axis=-1)
    return joined.reshape(-1, *joined.shape[2:])
