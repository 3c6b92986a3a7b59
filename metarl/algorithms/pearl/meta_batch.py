"""What one gradient step learns from: transitions, contexts and noise of some of the tasks.

Letters: K task of the meta-batch, B sample, C context, F context features, A action, Z latent.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarl.algorithms.pearl.config import PEARLConfig, PermutationInvariant
from metarl.algorithms.pearl.replay import Replay, Transitions


@dataclass(frozen=True)
class MetaBatch:
    """`contexts` holds one context per task, or two that the contrastive loss compares.

    `noise` is standard normal: A numbers for the next action, A for the action, Z for the latent.
    """

    transitions: Transitions
    contexts: tuple[Float[Tensor, "K C F"], ...]
    noise: Float[Tensor, "K B N"]  # N = 2 A + Z

    @property
    def num_tasks(self) -> int:
        return len(self.noise)

    def of_tasks(self, rows: slice) -> MetaBatch:
        """The part of some of the tasks."""
        transitions = Transitions(*(value[rows] for value in vars(self.transitions).values()))
        return MetaBatch(transitions, tuple(context[rows] for context in self.contexts), self.noise[rows])


def draw_meta_batch(replay: Replay, contexts: Replay, config: PEARLConfig, generator: torch.Generator) -> MetaBatch:
    """`meta_batch` of the tasks that have transitions, drawn without replacement, or all of them where they are fewer.

    `contexts` is the replay that contexts come from. `generator` is that of the replays' device.
    """
    filled = torch.tensor(replay.filled, device=generator.device)
    size = min(config.meta_batch, len(filled))
    tasks = filled[torch.randperm(len(filled), generator=generator, device=generator.device)[:size]]
    transitions = replay.sample(tasks, config.batch_size, generator)
    drawn = tuple(draw_context(contexts, tasks, config, generator) for _ in range(2 if config.contrastive else 1))
    num_actions = transitions.actions.shape[-1]
    action_noise = torch.randn(size, config.batch_size, 2 * num_actions, generator=generator, device=generator.device)
    z_noise = torch.randn(size, 1, config.latent_dim, generator=generator, device=generator.device)
    noise = torch.cat((action_noise, z_noise.expand(-1, config.batch_size, -1)), dim=-1)
    return MetaBatch(transitions, drawn, noise)


def draw_context(
    contexts: Replay, tasks: Int[Tensor, " K"], config: PEARLConfig, generator: torch.Generator
) -> Float[Tensor, "K C F"]:
    """(o, a, r), and o' where asked for, of `context_size` transitions of each task, in the encoder's order."""
    encoder = config.encoder
    in_runs = not isinstance(encoder, PermutationInvariant) or encoder.context_sampling == "runs"
    draw = contexts.sample_runs if in_runs else contexts.sample
    sample = draw(tasks, config.context_size, generator)
    parts = [sample.observations, sample.actions, sample.rewards[..., None]]
    return torch.cat([*parts, sample.next_observations] if config.next_observation else parts, dim=-1)
