"""The MAML family's section of the configuration."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from metarl.algorithms.base import AlgorithmConfig, Schedule, Section, Sizes
from metarl.ops.returns import BaselineKind
from metarl.rollout.spaces import Spaces

# Of the discrete ones: 40 iterations of the defaults on TabularMDP (20 tasks, seed 0) gain 0.02 per episode at 0.1,
# 1.04 at 10 and 1.28 at 30, where an inner step is already a KL of 2.8.
CONTINUOUS_INNER_LR, DISCRETE_INNER_LR = 0.1, 10.0


class PPO(Section):
    """ProMP's outer step: several Adam steps on the clipped surrogate of the query round."""

    name: Literal["ppo"] = Field("ppo", description="clipped surrogate (ProMP)")
    lr: float = Field(1e-3, gt=0, description="Adam's learning rate")
    lr_schedule: Schedule = Field("constant", description="linear: falls to 0 at the end of the run")
    steps: int = Field(5, ge=1, description="meta-gradient steps per iteration")
    clip: float = Field(0.3, gt=0, lt=1, description="of the probability ratio")
    inner_kl_coef: float = Field(5e-4, ge=0, description="eta, weight of the inner KL in the meta-loss")


class TRPO(Section):
    """MAML's outer step: the natural gradient through adaptation, within a trust region."""

    name: Literal["trpo"] = Field("trpo", description="trust region (MAML)")
    max_kl: float = Field(0.01, gt=0, description="size of the trust region, on the query round")
    cg_iterations: int = Field(10, ge=1, description="steps of conjugate gradient")
    cg_damping: float = Field(1e-5, ge=0, description="added to the curvature's diagonal")
    line_search_steps: int = Field(15, ge=1, description="candidates of the line search")
    line_search_backtrack: float = Field(0.8, gt=0, lt=1, description="ratio of one candidate to the one before")


class PolicyGradient(Section):
    """One Adam step on the likelihood-ratio surrogate of the query round."""

    name: Literal["pg"] = Field("pg", description="one Adam step on the likelihood-ratio surrogate")
    lr: float = Field(1e-3, gt=0, description="Adam's learning rate")
    lr_schedule: Schedule = Field("constant", description="linear: falls to 0 at the end of the run")


class Reptile(Section):
    """Reptile's outer step: Adam on (theta - theta_adapted) / alpha, without an outer objective."""

    name: Literal["reptile"] = Field("reptile", description="Adam on the direction of adaptation")
    lr: float = Field(1e-3, gt=0, description="Adam's learning rate")
    lr_schedule: Schedule = Field("constant", description="linear: falls to 0 at the end of the run")


Outer = Annotated[PPO | TRPO | PolicyGradient | Reptile, Field(discriminator="name")]


class MAMLConfig(AlgorithmConfig):
    """Defaults are ProMP's on HalfCheetah and Ant, but for the action scale (see the deviations in `learner.py`)."""

    variant: Literal["maml", "fomaml", "meta_sgd", "anil"] = Field(
        "maml",
        description="maml: exact second order; fomaml: first order; meta_sgd: learned rates for every parameter; "
        "anil: adapts the last layer alone",
    )
    inner_objective: Literal["likelihood_ratio", "dice", "plain"] = Field(
        "likelihood_ratio", description="the surrogate that the inner step descends"
    )
    outer: Outer = Field(PPO(), description="the outer step")
    tasks_per_iteration: int = Field(40, ge=1, description="fresh tasks of an iteration")
    num_streams: int = Field(20, ge=1, description="episodes per task and round")
    inner_steps: int = Field(1, ge=1, description="gradient steps, a round of support episodes each")
    inner_lr: float | None = Field(
        None, ge=0, description="alpha; the start where rates are learned; null: 0.1, and 10 where actions are discrete"
    )
    gamma: float = Field(0.99, gt=0, le=1, description="discount per step")
    gae_lambda: float = Field(1.0, ge=0, le=1, description="lambda of the advantages")
    bootstrap_truncated: bool = Field(False, description="value the state where time ran out")
    baseline: BaselineKind = Field(
        "return",
        description="time's features of the linear baseline: return follows a constant reward, cubic is rllab's; not "
        "with bootstrap_truncated, where the baseline does not see the time",
    )
    exploration_coef: float = Field(0.0, ge=0, description="c of E-MAML's term")
    hidden: Sizes = Field((64, 64), description="sizes of the policy's hidden layers")
    init_std: float = Field(0.3, gt=0, description="initial standard deviation, in halves of the action range")
    min_std: float = Field(0.05, gt=0, description="floor of the standard deviation")
    output_gain: float = Field(0.1, gt=0, description="scale of the last layer's initial weights")
    chunk_tasks: int | None = Field(None, ge=1, description="tasks per product; null fits the device's memory")

    @model_validator(mode="after")
    def _check(self) -> MAMLConfig:
        if self.outer.name == "reptile":
            if self.variant not in ("maml", "anil"):
                raise ValueError(f"variant ({self.variant}) does not apply to outer.name reptile; allowed: maml, anil")
            if self.exploration_coef:
                raise ValueError(
                    f"exploration_coef ({self.exploration_coef}) does not apply to outer.name reptile; set 0"
                )
        if self.bootstrap_truncated and self.baseline != "return":
            raise ValueError(f"baseline ({self.baseline}) does not apply to bootstrap_truncated true; leave it out")
        if self.bootstrap_truncated and self.gamma == 1:
            raise ValueError(
                "bootstrap_truncated needs gamma below 1: without a discount what follows has no finite value"
            )
        if self.init_std < self.min_std:
            raise ValueError(f"init_std ({self.init_std}) must not be below min_std ({self.min_std})")
        return self

    def for_spaces(self, spaces: Spaces) -> MAMLConfig:
        """The same with `inner_lr` a number. Logits need larger steps than means: the Fisher information of a mean is
        1 / std^2, of a logit at most 1/4."""
        if self.inner_lr is not None:
            return self
        return self.model_copy(update={"inner_lr": DISCRETE_INNER_LR if spaces.discrete else CONTINUOUS_INNER_LR})

    @property
    def alpha(self) -> float:
        """`inner_lr` of a configuration from `for_spaces`."""
        assert self.inner_lr is not None
        return self.inner_lr

    @property
    def is_second_order(self) -> bool:
        """Whether the meta-gradient holds the inner step's Hessian."""
        return self.variant != "fomaml" and self.outer.name != "reptile"
