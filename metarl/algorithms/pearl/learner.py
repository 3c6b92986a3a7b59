"""PEARL: off-policy meta-learning by inferring a latent task variable.

Papers: PEARL (Rakelly et al. 2019), soft actor-critic (Haarnoja et al. 2018), FOCAL (Li et al. 2021; the metric loss).

    q(z | c)  ~  N(0, 1) prod_n N(z; mu(c_n), var(c_n))              c_n = (o, a, r) or (o, a, r, o')
              ~  N(0, 1) N(z; mu(h_C), var(h_C)), h_n = GRU(c_n, h_n-1)        where `encoder` is recurrent
    y         =  s r + gamma (1 - d) [min_i Q'_i(o', a', z) - alpha log pi(a' | o', z)],   a' ~ pi
    critics   minimise E (Q_i(o, a, z) - y)^2 + beta E_k KL(q_k || N(0, 1)) + c L_contrastive     over Q and q
    actor     minimises E [alpha log pi(a | o, z) - min_i Q_i(o, a, z)]                           z detached

Deviations, on purpose:
- no separate value network: targets come from slowly moving critics (SAC as of Haarnoja et al. 2018b), which is a
  fifth less arithmetic;
- the prior is a factor of the posterior, so that no context gives the prior, and evidence counts as that of at most
  `context_size` transitions, so that a long context at test is no sharper than any seen in training;
- losses are means over tasks and samples: the weight of the KL does not grow with the number of tasks (`kl_weight` 1
  is about the reference's 0.1 at its 16 tasks, summed);
- all gradients are taken at the same parameters, in one pass, and one Adam moves everything;
- only `terminated` stops a bootstrap, never a time limit.

Contexts are to be what evaluations give: where two episodes start at two places and tell one distance to the goal each,
transitions drawn from a hundred episodes are a context that no evaluation ever sees, and the encoder does not learn to
read fewer. `context_sampling: runs` draws consecutive transitions of exploration, begun at any of them. A run goes on
from an episode's end to the next episode, as acting does, which reads the episodes of a trial one after the other. The
recurrent encoder learns from runs of `context_size` alone: set that to all steps of exploration, since how sure it is
after fewer or more is extrapolated.

Letters: K task of the meta-batch, B sample, C context, O, A, Z latent.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from metarl.algorithms.base import refuse_to_train_with
from metarl.algorithms.optimiser import load_moments, moments_of
from metarl.algorithms.pearl.policy import LOG_STD_RANGE, PEARLPolicy
from metarl.algorithms.pearl.replay import Batch, Replay
from metarl.errors import ConfigError
from metarl.kernels.parallel import parallel_map, sum_in_order
from metarl.kernels.relu_mlp import ReluMLP
from metarl.nets.context_encoder import ContextEncoder, PermutationInvariantEncoder, RecurrentEncoder
from metarl.ops.distributions import squashed_sample
from metarl.ops.functional_sgd import leaves
from metarl.ops.latents import contrastive_loss, kl_from_standard_normal, posterior
from metarl.rollout.policy import Context, Spaces
from metarl.rollout.types import RoundPlan, Trial, TrialPlan
from metarl.tasks import Task, TaskDistribution

_log = logging.getLogger(__name__)
_CUDA_GRAPHS = "reduce-overhead"  # torch.compile's name for them


class Config(BaseModel):
    """Defaults are the paper's on MuJoCo, but for the KL's weight and the numbers of steps per iteration."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["pearl"] = "pearl"
    num_train_tasks: int = Field(100, ge=1, description="the fixed pool; a finite family has no more than its tasks")
    tasks_per_iteration: int = Field(5, ge=1, description="tasks that new trials are collected on")
    num_streams: int = Field(1, ge=1)
    initial_episodes: int = Field(10, ge=1, description="per task of the pool, before the first gradient step")
    prior_episodes: int = Field(1, ge=1, description="of a trial, with z from the prior")
    posterior_episodes: int = Field(1, ge=1, description="of a trial, with z from the posterior; the last is judged")
    exploration_episodes: int = Field(2, ge=1, description="of an evaluation, before the judged one")
    exploration: Literal["prior", "posterior"] = Field(
        "prior",
        description="z of an evaluation's exploration after its first episode: fresh from the prior, or from what the "
        "episodes before it say; contexts in training hold such episodes",
    )
    gradient_steps: int = Field(200, ge=1, description="per iteration")
    meta_batch: int = Field(16, ge=1, description="tasks per gradient step")
    batch_size: int = Field(256, ge=1, description="transitions per task")
    context_size: int = Field(100, ge=1, description="transitions that z is inferred from in training")
    context_sampling: Literal["transitions", "runs"] = Field(
        "transitions",
        description="of contexts: each transition from any episode, or consecutive ones, as few episodes hold them; "
        "always runs where the encoder is recurrent",
    )
    context_capacity: int = Field(2000, ge=1, description="newest transitions per task that contexts come from")
    replay_capacity: int = Field(10_000, ge=1, description="transitions per task")
    save_replay: bool = Field(True, description="in checkpoints: exact resume; without, it fills up anew")
    latent_dim: int = Field(5, ge=1)
    hidden_dim: int = Field(300, ge=1, description="of actor and critics, three layers")
    encoder_dim: int = Field(200, ge=1, description="of the encoder, three layers; recurrent: one and the memory")
    encoder: Literal["permutation_invariant", "recurrent"] = Field(
        "permutation_invariant", description="of the context; recurrent: reads it in the order of time"
    )
    next_observation: bool = Field(False, description="in the context: for tasks that differ in dynamics")
    lr: float = Field(3e-4, gt=0)
    gamma: float = Field(0.99, gt=0, le=1)
    target_rate: float = Field(0.005, gt=0, le=1)
    reward_scale: float = Field(5.0, gt=0)
    temperature: float = Field(1.0, gt=0, description="alpha, of scaled rewards; the start where it is learnt")
    learn_temperature: bool = Field(False, description="so that the entropy is -A")
    kl_weight: float = Field(1.0, ge=0)
    contrastive_weight: float = Field(0.0, ge=0)
    contrastive_temperature: float = Field(1.0, gt=0)
    autocast: bool = Field(False, description="matrix products in bfloat16")
    compile: bool = Field(False, description="on a GPU: losses and gradients as one compiled graph, replayed")
    context: Context = Field("own", description="what the belief is worth, in evaluations: blank, or another task's")


class PEARL:
    """The Algorithm: replay, encoder, actor and critics."""

    max_lag = 1

    def __init__(self, config: Config, spaces: Spaces, device: torch.device, seed: int):
        if spaces.discrete:
            raise ConfigError("algorithm.name = 'pearl' needs continuous actions; allowed here: maml, rl2")
        if config.compile and device.type == "cpu":
            raise ConfigError("algorithm.compile = True needs a GPU; allowed on a CPU: False")
        c = self.config = config
        self.device, self.seed = device, seed
        O, A, Z = spaces.obs_dim, spaces.action_dim, c.latent_dim  # noqa: E741
        hidden, features = (c.hidden_dim,) * 3, O + A + 1 + (O if c.next_observation else 0)
        self.actor = ReluMLP("actor", (O + Z, *hidden, 2 * A))
        self.critics = ReluMLP("critics", (O + A + Z, *hidden, 1), members=2)
        self.encoder = _encoder(c, features)
        generator = torch.Generator().manual_seed(seed)
        params = {n: v for net in (self.actor, self.critics, self.encoder) for n, v in net.init(generator).items()}
        params["log_temperature"] = torch.tensor(c.temperature).log()
        self._params = {name: value.to(device) for name, value in params.items()}
        self._targets = {n: v.clone() for n, v in self._params.items() if n.startswith("critics.")}
        self._optimiser = torch.optim.Adam(list(self._params.values()), lr=c.lr, fused=True)
        self._target_entropy = -float(A)
        self._losses_of_step = torch.compile(self._losses, mode=_CUDA_GRAPHS) if c.compile else self._losses
        self.replay = Replay(c.num_train_tasks, c.replay_capacity, O, A, device)
        self.contexts = Replay(c.num_train_tasks, c.context_capacity, O, A, device)
        megabytes = (self.replay.num_bytes + self.contexts.num_bytes) / 2**20
        _log.info(
            "replay: %d tasks x %d transitions, %.0f MiB on %s", c.num_train_tasks, c.replay_capacity, megabytes, device
        )
        self._num_updates = 0
        self._pool: tuple[Task, ...] = ()

    @property
    def policy(self) -> PEARLPolicy:
        c = self.config
        return PEARLPolicy(self.actor, self.encoder, c.latent_dim, c.context_size, c.next_observation, c.context)

    def tasks(self, distribution: TaskDistribution, seed: int, iteration: int) -> tuple[Task, ...]:
        """The whole pool at first, then some of it."""
        pool = distribution.sample("train", self.config.num_train_tasks, (seed, 0))
        self._pool = tuple(dict.fromkeys(pool))
        if iteration == 0:
            return self._pool
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, 2, iteration])))
        size = min(self.config.tasks_per_iteration, len(self._pool))
        return tuple(self._pool[int(i)] for i in rng.choice(len(self._pool), size, replace=False))

    def plan(self, horizon: int, evaluation: bool = False) -> TrialPlan:
        """Prior episodes are not adapted to but for the last of them; then every episode is."""
        c = self.config
        prior, adapted = RoundPlan("support", adapt=False), RoundPlan("support", adapt=True)
        if evaluation:
            between = adapted if c.exploration == "posterior" else prior
            explore = (between,) * (c.exploration_episodes - 1) + (adapted,)
            return TrialPlan(c.num_streams, horizon, (*explore, RoundPlan("query", adapt=False, deterministic=True)))
        if self._num_updates == 0:
            return TrialPlan(c.num_streams, horizon, (prior,) * c.initial_episodes)
        explore = (prior,) * (c.prior_episodes - 1) + (adapted,) * c.posterior_episodes
        return TrialPlan(c.num_streams, horizon, (*explore, RoundPlan("query", adapt=False)))

    def weights(self) -> dict[str, np.ndarray]:
        names = [name for name in self._params if name.startswith(("actor.", "encoder."))]
        return {name: self._params[name].detach().cpu().numpy().copy() for name in names}

    def update(self, trials: Sequence[Trial]) -> dict[str, float]:
        """Store the trials, then `gradient_steps` steps."""
        refuse_to_train_with(self.config.context)
        context_rounds = self._context_rounds(len(trials[0].rounds))
        for trial in trials:
            for k, task in enumerate(trial.tasks):
                slot = self._pool.index(task)
                for i, round_ in enumerate(trial.rounds):
                    self.replay.add(slot, round_, k)
                    if i < context_rounds:
                        self.contexts.add(slot, round_, k)
        generator = torch.Generator(self.device).manual_seed((self.seed * 1_000_003 + self._num_updates) % 2**63)
        names = ("critic_loss", "actor_loss", "kl", "entropy", "contrastive_loss", "q")
        total = torch.zeros(len(names), device=self.device)
        for _ in range(self.config.gradient_steps):
            total += self.step(*self._draw(generator))
        self._num_updates += 1
        values = (total / self.config.gradient_steps).tolist()
        temperature = float(self._params["log_temperature"].exp())
        return dict(zip(names, values, strict=True)) | {"temperature": temperature, "stored": self.replay.num_stored}

    def _context_rounds(self, rounds: int) -> int:
        """How many of a trial's rounds are like those of an evaluation's exploration."""
        if self._num_updates == 0:
            return rounds
        return self.config.prior_episodes if self.config.exploration == "prior" else rounds - 1

    # --- one gradient step ---

    def _draw(self, generator: torch.Generator) -> tuple[Batch, list[Tensor], Tensor]:
        """A meta-batch: transitions, contexts [K, C, features] (two to be contrasted), noise [K, B, 2 A + Z]."""
        c, device = self.config, self.device
        filled = torch.tensor(self.replay.filled, device=device)
        size = min(c.meta_batch, len(filled))
        tasks = filled[torch.randperm(len(filled), generator=generator, device=device)[:size]]
        batch = self.replay.sample(tasks, c.batch_size, generator)
        contexts = [self._context(tasks, generator) for _ in range(2 if c.contrastive_weight else 1)]
        A = batch.actions.shape[-1]
        action_noise = torch.randn(size, c.batch_size, 2 * A, generator=generator, device=device)
        z_noise = torch.randn(size, 1, c.latent_dim, generator=generator, device=device)
        return batch, contexts, torch.cat((action_noise, z_noise.expand(-1, c.batch_size, -1)), dim=-1)

    def _context(self, tasks: Tensor, generator: torch.Generator) -> Tensor:
        in_runs = self.encoder.ordered or self.config.context_sampling == "runs"
        draw = self.contexts.sample_runs if in_runs else self.contexts.sample
        sample = draw(tasks, self.config.context_size, generator)
        parts = [sample.observations, sample.actions, sample.rewards[..., None]]
        return torch.cat([*parts, sample.next_observations] if self.config.next_observation else parts, dim=-1)

    def step(self, batch: Batch, contexts: list[Tensor], noise: Tensor) -> Tensor:
        """One Adam step of everything, and of the targets towards the critics; metrics [6] on the device."""
        num_tasks = len(batch.rewards)
        num_chunks = 1 if self.device.type != "cpu" or self.config.contrastive_weight else min(2, num_tasks)
        chunks = torch.arange(num_tasks, device=self.device).tensor_split(num_chunks)

        def gradient(rows: Tensor) -> tuple[list[Tensor], Tensor]:
            part = Batch(*(value[rows[0] : rows[-1] + 1] for value in vars(batch).values()))
            given = [context[rows[0] : rows[-1] + 1] for context in contexts]
            return self._gradient(part, given, noise[rows[0] : rows[-1] + 1], len(rows) / num_tasks)

        parts = parallel_map(gradient, chunks, self.device)
        gradients = [sum_in_order(g) for g in zip(*(g for g, _ in parts), strict=True)]
        for value, g in zip(self._params.values(), gradients, strict=True):
            value.grad = g
        self._optimiser.step()
        targets, critics = list(self._targets.values()), [self._params[name] for name in self._targets]
        torch._foreach_lerp_(targets, critics, self.config.target_rate)
        return sum_in_order([metrics for _, metrics in parts])

    def _gradient(
        self, batch: Batch, contexts: list[Tensor], noise: Tensor, share: float
    ) -> tuple[list[Tensor], Tensor]:
        """Gradients of some tasks' share of the losses, and of the metrics."""
        params = leaves(self._params)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.autocast):
            loss, metrics = self._losses_of_step(params, batch, contexts, noise)
        gradients = torch.autograd.grad(share * loss, list(params.values()), allow_unused=True, materialize_grads=True)
        return list(gradients), share * metrics

    def _losses(
        self, params: dict[str, Tensor], batch: Batch, contexts: list[Tensor], noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The sum of all losses, whose parts reach different parameters, and the metrics."""
        c = self.config
        beliefs = [self.belief(params, context) for context in contexts]
        mean, var = beliefs[0]
        A = batch.actions.shape[-1]
        z = mean[:, None] + var.sqrt()[:, None] * noise[..., 2 * A :]
        z_fixed = z.detach()
        temperature = params["log_temperature"].exp().detach()

        def flat(*parts: Tensor) -> Tensor:
            return torch.cat(parts, dim=-1).flatten(0, 1)

        with torch.no_grad():
            next_action, next_log_prob = self._sample(params, batch.next_observations, z_fixed, noise[..., :A])
            next_q = self.critics(self._targets, flat(batch.next_observations, next_action, z_fixed)).float().amin(0)
            soft = next_q[:, 0].view_as(batch.rewards) - temperature * next_log_prob
            y = c.reward_scale * batch.rewards + c.gamma * (1 - batch.terminated) * soft
        q = self.critics(params, flat(batch.observations, batch.actions, z)).float()[..., 0]
        critic_loss = ((q - y.flatten()) ** 2).mean(1).sum()
        kl = kl_from_standard_normal(mean, var).mean()

        action, log_prob = self._sample(params, batch.observations, z_fixed, noise[..., A : 2 * A])
        fixed = {name: value.detach() for name, value in params.items()}
        q_of_action = self.critics(fixed, flat(batch.observations, action, z_fixed)).float().amin(0)[:, 0]
        actor_loss = (temperature * log_prob.flatten() - q_of_action).mean()

        loss = critic_loss + c.kl_weight * kl + actor_loss
        contrast = loss.new_zeros(())
        if c.contrastive_weight:
            contrast = contrastive_loss(beliefs[0][0], beliefs[1][0], c.contrastive_temperature)
            loss = loss + c.contrastive_weight * contrast
        if c.learn_temperature:
            surplus = (log_prob.detach() + self._target_entropy).mean()
            loss = loss - params["log_temperature"] * surplus
        metrics = torch.stack((critic_loss, actor_loss, kl, -log_prob.mean(), contrast, q.mean()))
        return loss, metrics.detach()

    def belief(self, params: dict[str, Tensor], context: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance [K, Z] of the posterior given contexts [K, C, features]."""
        evidence = self.encoder.evidence(params, self.encoder.read(params, context))
        return posterior(evidence, self.config.context_size)

    def _sample(
        self, params: dict[str, Tensor], observations: Tensor, z: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Actions [K, B, A] and their log-probabilities [K, B]."""
        output = self.actor(params, torch.cat((observations, z), dim=-1).flatten(0, 1)).float()
        mean, log_std = output.unflatten(0, observations.shape[:2]).chunk(2, dim=-1)
        return squashed_sample(mean, log_std.clamp(*LOG_STD_RANGE), noise)

    # --- state ---

    def state_dict(self) -> dict[str, Tensor]:
        flat = {f"params.{name}": value for name, value in self._params.items()}
        flat |= {f"targets.{name}": value for name, value in self._targets.items()}
        flat |= moments_of(self._optimiser, self._params)
        if self.config.save_replay:
            for kind, replay in (("replay", self.replay), ("contexts", self.contexts)):
                flat |= {f"{kind}.{name}": value for name, value in replay.state_dict().items()}
        flat |= {"seed": torch.tensor(self.seed), "num_updates": torch.tensor(self._num_updates)}
        return {name: value.detach().clone() for name, value in flat.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for kind, values in (("params", self._params), ("targets", self._targets)):
                for name, value in values.items():
                    value.copy_(state[f"{kind}.{name}"])
        load_moments(self._optimiser, self._params, state)
        if self.config.save_replay:
            for kind, replay in (("replay", self.replay), ("contexts", self.contexts)):
                prefix = f"{kind}."
                replay.load_state_dict({n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)})
        self.seed, self._num_updates = int(state["seed"]), int(state["num_updates"])


def _encoder(config: Config, features: int) -> ContextEncoder:
    if config.encoder == "recurrent":
        return RecurrentEncoder("encoder", features, config.encoder_dim, config.latent_dim)
    return PermutationInvariantEncoder("encoder", (features, *(config.encoder_dim,) * 3, 2 * config.latent_dim))


def build(config: Config, spaces: Spaces, device: torch.device, seed: int) -> PEARL:
    """The learner."""
    return PEARL(config, spaces, device, seed)
