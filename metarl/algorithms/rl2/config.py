"""RL2's section of the configuration."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from metarl.algorithms.base import AlgorithmConfig, Schedule, Section


class GRUCore(Section):
    """A gated recurrent unit."""

    name: Literal["gru"] = Field("gru", description="gated recurrent unit")
    hidden_dim: int = Field(128, ge=1, description="size of the memory")
    bptt_steps: int | None = Field(None, ge=1, description="gradients reach back so far; null: the whole trial")


class LSTMCore(Section):
    """A long short-term memory."""

    name: Literal["lstm"] = Field("lstm", description="long short-term memory")
    hidden_dim: int = Field(128, ge=1, description="size of the memory")
    bptt_steps: int | None = Field(None, ge=1, description="gradients reach back so far; null: the whole trial")


class TransformerCore(Section):
    """A causal transformer over the whole trial, with cached keys and values while acting."""

    name: Literal["transformer"] = Field("transformer", description="causal transformer")
    hidden_dim: int = Field(128, ge=1, description="width of a layer")
    num_layers: int = Field(2, ge=1, description="layers")
    num_heads: int = Field(4, ge=1, description="attention heads of a layer; must divide hidden_dim")

    @model_validator(mode="after")
    def _check(self) -> TransformerCore:
        if self.hidden_dim % self.num_heads:
            raise ValueError(f"num_heads ({self.num_heads}) must divide hidden_dim ({self.hidden_dim})")
        return self


EpisodeCredit = Literal["horizon", "elapsed", "none"]

Core = Annotated[GRUCore | LSTMCore | TransformerCore, Field(discriminator="name")]


class FineTuning(Section):
    """Policy-gradient steps on a new task, between the rounds of an evaluation: the fine-tuning baseline."""

    steps: int = Field(5, ge=1, description="gradient steps after each round of an evaluation")
    lr: float = Field(0.01, gt=0, description="their learning rate")


class RL2Config(AlgorithmConfig):
    """Defaults are VariBAD's RL2 on HalfCheetah with more streams and fewer epochs per sample."""

    core: Core = Field(GRUCore(), description="the memory's network")
    memory: Literal["trial", "none"] = Field(
        "trial", description="none: cleared at every step, the non-adaptive baseline of the same network"
    )
    fine_tuning: FineTuning | None = Field(None, description="with memory none: the fine-tuning baseline")
    tasks_per_iteration: int = Field(48, ge=1, description="fresh tasks of an iteration")
    num_streams: int = Field(1, ge=1, description="independent trials per task")
    episodes_per_trial: int = Field(2, ge=1, description="episodes on one task that share a memory")
    encoded_obs_dim: int = Field(64, ge=1, description="size of the encoded observation")
    head_dim: int = Field(64, ge=1, description="hidden size of the policy's and the critic's head")
    init_std: float = Field(0.6, gt=0, description="initial standard deviation, in halves of the action range")
    min_std: float = Field(0.05, gt=0, description="floor of the standard deviation")
    bound_coef: float = Field(0.05, ge=0, description="weight of the squared excess of means over the action range")
    gamma: float = Field(0.97, gt=0, le=1, description="discount per step")
    gae_lambda: float = Field(0.9, ge=0, le=1, description="lambda of the advantages")
    bootstrap_truncated: bool = Field(
        True,
        description="value the state where time ran out; false: nothing follows a trial's last step, as where the "
        "number of steps is part of the problem",
    )
    episode_credit: EpisodeCredit | None = Field(
        None,
        description="what an episode is credited with of the later ones of its trial. horizon: their returns, "
        "discounted as if every episode lasted to its horizon, so that ending an episode early brings the next one no "
        "sooner; elapsed: discounted by the steps taken alone; none: nothing, for policies with nothing to find out "
        "(oracles). null: horizon, and none with memory none",
    )
    episode_gamma: float = Field(
        1.0, ge=0, le=1, description="further discount of every later episode of the trial, on top of gamma's"
    )
    lr: float = Field(1e-3, gt=0, description="Adam's learning rate")
    lr_schedule: Schedule = Field("constant", description="linear: falls to 0 at the end of the run")
    epochs: int = Field(2, ge=1, description="passes over an iteration's trials")
    minibatches: int = Field(4, ge=1, description="of whole trials, in each pass")
    clip: float = Field(0.2, gt=0, lt=1, description="of the probability ratio")
    entropy_coef: float = Field(0.003, ge=0, description="weight of the entropy")
    value_coef: float = Field(0.5, ge=0, description="weight of the critic's loss")
    max_grad_norm: float = Field(0.5, gt=0, description="gradients are scaled down to this norm")
    max_kl: float | None = Field(None, gt=0, description="an update ends when KL(behaviour || policy) exceeds it")
    normalise_inputs: bool = Field(True, description="observations and rewards by their running mean and deviation")
    normalise_values: bool = Field(True, description="the critic's targets (PopArt)")

    @model_validator(mode="after")
    def _check(self) -> RL2Config:
        if self.init_std < self.min_std:
            raise ValueError(f"init_std ({self.init_std}) must not be below min_std ({self.min_std})")
        if self.fine_tuning and self.memory != "none":
            raise ValueError(f"fine_tuning does not apply to memory {self.memory}; set memory: none")
        if self.memory == "none" and self.episode_credit not in (None, "none"):
            raise ValueError(
                f"episode_credit ({self.episode_credit}) does not apply to memory none: nothing is carried from one "
                "episode to the next; set none or leave it out"
            )
        if self.episodes_per_trial == 1 and (self.episode_gamma != 1 or self.episode_credit not in (None, "none")):
            raise ValueError(
                f"episode_credit ({self.episode_credit}) and episode_gamma ({self.episode_gamma}) do not apply to "
                "episodes_per_trial 1: no episode comes later; leave them out"
            )
        if self.episode_gamma != 1 and self.credit_across == "none":
            raise ValueError(
                f"episode_gamma ({self.episode_gamma}) does not apply to episode_credit none, nor to memory none; they "
                "credit an episode with nothing of later ones; leave it out"
            )
        if self.bootstrap_truncated and self.gamma == 1:
            raise ValueError(
                "bootstrap_truncated needs gamma below 1: without a discount what follows has no finite value; set "
                "bootstrap_truncated: false"
            )
        trials = self.tasks_per_iteration * self.num_streams
        if self.minibatches > trials:
            raise ValueError(f"minibatches ({self.minibatches}) must not exceed the trials of an iteration ({trials})")
        return self

    def task_blind(self) -> RL2Config:
        """The same network, its memory cleared at every step."""
        left_out = ("memory", "episode_credit", "episode_gamma", "fine_tuning")
        kept = {key: value for key, value in self.model_dump().items() if key not in left_out}
        return RL2Config(**kept, memory="none")

    @property
    def credit_across(self) -> EpisodeCredit:
        """`episode_credit` with its default filled in."""
        return self.episode_credit or ("none" if self.memory == "none" else "horizon")

    @property
    def bptt_steps(self) -> int | None:
        """Steps that gradients reach back; None: the whole trial."""
        return None if isinstance(self.core, TransformerCore) else self.core.bptt_steps
