"""PEARL's section of the configuration."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from metarl.algorithms.base import AlgorithmConfig, Schedule, Section


class PermutationInvariant(Section):
    """A product of Gaussian factors, one per transition: the order of the context does not matter."""

    name: Literal["permutation_invariant"] = Field("permutation_invariant", description="product of Gaussian factors")
    hidden_dim: int = Field(200, ge=1, description="of three layers")
    context_sampling: Literal["transitions", "runs"] = Field(
        "transitions",
        description="contexts in training: each transition from any episode, or consecutive ones, as few episodes hold",
    )


class Recurrent(Section):
    """A GRU that reads the context in the order of time; its contexts in training are consecutive transitions."""

    name: Literal["recurrent"] = Field("recurrent", description="reads the context in the order of time")
    hidden_dim: int = Field(200, ge=1, description="of its layer and its memory")


Encoder = Annotated[PermutationInvariant | Recurrent, Field(discriminator="name")]


class Contrastive(Section):
    """Pulls contexts of one task together and tasks apart."""

    weight: float = Field(1.0, gt=0, description="of the loss")
    temperature: float = Field(1.0, gt=0, description="of its distances")


class PEARLConfig(AlgorithmConfig):
    """Defaults are the paper's on MuJoCo, but for the KL's weight and the numbers of steps per iteration."""

    num_train_tasks: int = Field(100, ge=1, description="the fixed pool; a finite family has no more than its tasks")
    tasks_per_iteration: int = Field(5, ge=1, description="tasks of the pool that an iteration collects on")
    num_streams: int = Field(1, ge=1, description="independent trials per task")
    initial_episodes: int = Field(10, ge=1, description="per task of the pool, before the first gradient step")
    prior_episodes: int = Field(1, ge=1, description="of a trial, with z from the prior")
    posterior_episodes: int = Field(1, ge=1, description="of a trial, with z from the posterior; the last is judged")
    exploration: Literal["prior", "posterior"] = Field(
        "prior",
        description="z of an evaluation's exploration after its first episode: fresh from the prior, or from the "
        "posterior given the episodes so far; contexts in training hold such episodes",
    )
    gradient_steps: int = Field(200, ge=1, description="per iteration")
    meta_batch: int = Field(16, ge=1, description="tasks per gradient step")
    batch_size: int = Field(256, ge=1, description="transitions per task")
    context_size: int = Field(100, ge=1, description="transitions that z is inferred from in training")
    context_capacity: int = Field(2000, ge=1, description="newest transitions per task that contexts come from")
    replay_capacity: int = Field(10_000, ge=1, description="transitions per task")
    save_replay: bool = Field(True, description="in checkpoints, for exact resume; without, it fills up anew")
    latent_dim: int = Field(5, ge=1, description="size of z")
    hidden_dim: int = Field(300, ge=1, description="of actor and critics, three layers")
    encoder: Encoder = Field(PermutationInvariant(), description="from a context to the posterior over z")
    next_observation: bool = Field(False, description="in the context, for tasks that differ in dynamics")
    lr: float = Field(3e-4, gt=0, description="Adam's learning rate")
    lr_schedule: Schedule = Field("constant", description="linear: falls to 0 at the end of the run")
    gamma: float = Field(0.99, gt=0, lt=1, description="discount per step")
    target_rate: float = Field(0.005, gt=0, le=1, description="tau, of the target critics")
    reward_scale: float = Field(5.0, gt=0, description="s, factor of all rewards")
    temperature: float = Field(1.0, gt=0, description="alpha, of scaled rewards; the start where it is learned")
    learn_temperature: bool = Field(False, description="so that the entropy is minus the number of action dimensions")
    kl_weight: float = Field(1.0, ge=0, description="of KL(posterior || prior), per task")
    contrastive: Contrastive | None = Field(None, description="the contrastive loss of the encoder; null: none")
    autocast: bool = Field(False, description="matrix products in bfloat16")
    compile: bool = Field(False, description="on a GPU: losses and gradients as one compiled graph, replayed")
