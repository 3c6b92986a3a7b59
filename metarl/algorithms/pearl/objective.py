"""PEARL's losses as one function of all parameters, and their gradients. Equations: learner.py.

Letters: K task of the meta-batch, B sample, C context, F context features, O observation, A action, Z latent,
M metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.algorithms.pearl.config import PEARLConfig, PermutationInvariant
from metarl.algorithms.pearl.meta_batch import MetaBatch
from metarl.algorithms.pearl.policy import LOG_STD_RANGE
from metarl.kernels.relu_mlp import ReluMLP
from metarl.nets.context_encoder import ContextEncoder, PermutationInvariantEncoder, RecurrentEncoder
from metarl.ops.distributions import squashed_sample
from metarl.ops.functional_sgd import leaves
from metarl.ops.latents import contrastive_loss, kl_from_standard_normal, posterior
from metarl.ops.sac import actor_loss, critic_loss, soft_target, temperature_loss
from metarl.rollout.spaces import Spaces

METRICS = ("critic_loss", "actor_loss", "kl", "entropy", "contrastive_loss", "q")

Params = dict[str, Tensor]
Losses = Callable[[Params, Params, MetaBatch], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Objective:
    """The networks and what they minimise; parameters are arguments, and `targets` are those of the slow critics."""

    config: PEARLConfig
    actor: ReluMLP
    critics: ReluMLP
    encoder: ContextEncoder
    target_entropy: float

    @staticmethod
    def of(config: PEARLConfig, spaces: Spaces) -> Objective:
        """The networks of a configuration. The entropy aimed at is minus the number of action dimensions."""
        num_obs, num_actions, num_latents = spaces.obs_dim, spaces.action_dim, config.latent_dim
        hidden = (config.hidden_dim,) * 3
        features = num_obs + num_actions + 1 + (num_obs if config.next_observation else 0)
        return Objective(
            config,
            ReluMLP("actor", (num_obs + num_latents, *hidden, 2 * num_actions)),
            ReluMLP("critics", (num_obs + num_actions + num_latents, *hidden, 1), members=2),
            _encoder(config, features),
            -float(num_actions),
        )

    def init(self, generator: torch.Generator) -> Params:
        """First values of all parameters."""
        nets = (self.actor, self.critics, self.encoder)
        params = {name: value for net in nets for name, value in net.init(generator).items()}
        return params | {"log_temperature": torch.tensor(self.config.temperature).log()}

    def losses(
        self, params: Params, targets: Params, batch: MetaBatch
    ) -> tuple[Float[Tensor, ""], Float[Tensor, " M"]]:
        """The sum of all losses, whose parts reach different parameters, and the values of METRICS."""
        c, transitions = self.config, batch.transitions
        A = transitions.actions.shape[-1]
        beliefs = [self.posterior(params, context) for context in batch.contexts]
        mean, var = beliefs[0]
        z = mean[:, None] + var.sqrt()[:, None] * batch.noise[..., 2 * A :]
        z_fixed = z.detach()
        temperature = params["log_temperature"].exp().detach()

        with torch.no_grad():
            next_action, next_log_prob = self.act(params, transitions.next_observations, z_fixed, batch.noise[..., :A])
            next_q = self.q(targets, transitions.next_observations, next_action, z_fixed)
            y = soft_target(
                transitions.rewards, transitions.terminated, next_q, next_log_prob, temperature, c.reward_scale, c.gamma
            )
        q = self.q(params, transitions.observations, transitions.actions, z)
        of_critics = critic_loss(q, y)
        kl = kl_from_standard_normal(mean, var).mean()

        action, log_prob = self.act(params, transitions.observations, z_fixed, batch.noise[..., A : 2 * A])
        fixed = {name: value.detach() for name, value in params.items()}
        of_actor = actor_loss(self.q(fixed, transitions.observations, action, z_fixed), log_prob, temperature)

        loss = of_critics + c.kl_weight * kl + of_actor
        contrast = loss.new_zeros(())
        if c.contrastive:
            contrast = contrastive_loss(beliefs[0][0], beliefs[1][0], c.contrastive.temperature)
            loss = loss + c.contrastive.weight * contrast
        if c.learn_temperature:
            loss = loss + temperature_loss(params["log_temperature"], log_prob, self.target_entropy)
        metrics = torch.stack((of_critics, of_actor, kl, -log_prob.mean(), contrast, q.mean()))
        return loss, metrics.detach()

    def posterior(
        self, params: Params, context: Float[Tensor, "K C F"]
    ) -> tuple[Float[Tensor, "K Z"], Float[Tensor, "K Z"]]:
        """Mean and variance of q(z | context)."""
        evidence = self.encoder.evidence(params, self.encoder.read(params, context))
        return posterior(evidence, self.config.context_size)

    def act(
        self,
        params: Params,
        observations: Float[Tensor, "K B O"],
        z: Float[Tensor, "K B Z"],
        noise: Float[Tensor, "K B A"],
    ) -> tuple[Float[Tensor, "K B A"], Float[Tensor, "K B"]]:
        """Actions of the policy given z, and their log-probabilities."""
        output = self.actor(params, torch.cat((observations, z), dim=-1).flatten(0, 1)).float()
        mean, log_std = output.unflatten(0, observations.shape[:2]).chunk(2, dim=-1)
        return squashed_sample(mean, log_std.clamp(*LOG_STD_RANGE), noise)

    def q(
        self,
        critics: Params,
        observations: Float[Tensor, "K B O"],
        actions: Float[Tensor, "K B A"],
        z: Float[Tensor, "K B Z"],
    ) -> Float[Tensor, "2 K B"]:
        """Q(o, a, z) of both critics."""
        inputs = torch.cat((observations, actions, z), dim=-1).flatten(0, 1)
        return self.critics(critics, inputs).float()[..., 0].unflatten(1, observations.shape[:2])


def gradient(
    losses: Losses,
    params: Mapping[str, Tensor],
    targets: Params,
    batch: MetaBatch,
    *,
    weight: float = 1.0,
    half_precision: bool = False,
) -> tuple[Params, Float[Tensor, " M"]]:
    """`weight` times the gradient of `losses` by name, zero where they do not reach, and times the values of METRICS.

    `losses` is `Objective.losses`, compiled or not; with `half_precision` its matrix products are in bfloat16.
    """
    start = leaves(params)
    with torch.autocast(batch.noise.device.type, torch.bfloat16, enabled=half_precision):
        loss, metrics = losses(start, targets, batch)
    found = torch.autograd.grad(weight * loss, list(start.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(start, found, strict=True)), weight * metrics


def _encoder(config: PEARLConfig, features: int) -> ContextEncoder:
    encoder = config.encoder
    if isinstance(encoder, PermutationInvariant):
        return PermutationInvariantEncoder("encoder", (features, *(encoder.hidden_dim,) * 3, 2 * config.latent_dim))
    return RecurrentEncoder("encoder", features, encoder.hidden_dim, config.latent_dim)
