"""PEARL: off-policy meta-learning by inferring a latent task variable.

Papers: PEARL (Rakelly et al. 2019), soft actor-critic (Haarnoja et al. 2018), FOCAL (Li et al. 2021; the metric loss).

    q(z | c)  ~  N(0, 1) prod_n N(z; mu(c_n), var(c_n))              c_n = (o, a, r) or (o, a, r, o')
              ~  N(0, 1) N(z; mu(h_C), var(h_C)), h_n = GRU(c_n, h_n-1)        where the encoder is recurrent
    y         =  s r + gamma (1 - d) [min_i Q'_i(o', a', z) - alpha log pi(a' | o', z)],   a' ~ pi
    critics   minimise E (Q_i(o, a, z) - y)^2 + beta E_k KL(q_k || N(0, 1)) + c L_contrastive     over Q and q
    actor     minimises E [alpha log pi(a | o, z) - min_i Q_i(o, a, z)]                           z detached

Deliberate deviations:
- no separate value network: targets come from slowly running critics (SAC as of Haarnoja et al. 2018b), which is a
  fifth less arithmetic;
- the prior is a factor of the posterior, so that no context gives the prior, and evidence counts as that of at most
  `context_size` transitions, so that a long context at test is no sharper than any seen in training;
- losses are means over tasks and samples: the weight of the KL does not grow with the number of tasks (`kl_weight` 1
  is about the reference's 0.1 at its 16 tasks, summed);
- all gradients are taken at the same parameters, in one pass, and one Adam moves everything;
- only `terminated` stops a bootstrap, never a time limit.

Contexts in training should be like those of evaluations. Transitions drawn from a hundred episodes are a context that
no evaluation gives, and the encoder does not learn to read fewer. `encoder.context_sampling: runs` draws consecutive
transitions of exploration, beginning at any of them. A run continues from the end of an episode to the next one, as in
acting, which reads the episodes of a trial one after the other. The recurrent encoder learns from runs of
`context_size` alone: set it to all steps of exploration, since its certainty after fewer or more is an extrapolation.

Letters: K task of the meta-batch, B sample, C context, O, A, Z latent.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from metarl.algorithms.base import EvaluationSettings, judged_streams, rounds_of
from metarl.algorithms.optimiser import load_moments, moments_of, set_lr
from metarl.algorithms.pearl.config import PEARLConfig, PermutationInvariant
from metarl.algorithms.pearl.policy import LOG_STD_RANGE, PEARLPolicy
from metarl.algorithms.pearl.replay import Replay, Transitions
from metarl.errors import ConfigError
from metarl.kernels.parallel import parallel_map, sum_in_order
from metarl.kernels.relu_mlp import ReluMLP
from metarl.nets.context_encoder import ContextEncoder, PermutationInvariantEncoder, RecurrentEncoder
from metarl.ops.distributions import squashed_sample
from metarl.ops.functional_sgd import leaves
from metarl.ops.latents import contrastive_loss, kl_from_standard_normal, posterior
from metarl.ops.sac import actor_loss, critic_loss, soft_target, temperature_loss
from metarl.rollout import seeds
from metarl.rollout.policy import Spaces
from metarl.rollout.types import RoundPlan, TrialBatch, TrialPlan
from metarl.tasks import Task, TaskDistribution

_log = logging.getLogger(__name__)
_CUDA_GRAPHS = "reduce-overhead"  # torch.compile's name for them
METRICS = ("critic_loss", "actor_loss", "kl", "entropy", "contrastive_loss", "q")
_SUPPORT_EPISODES = 2  # of an evaluation, before the judged one


class PEARL:
    """The Algorithm: replay, encoder, actor and critics."""

    Config = PEARLConfig
    max_lag = 1

    def __init__(self, config: PEARLConfig, spaces: Spaces, device: torch.device, seed: int):
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
        self._losses_of_step = torch.compile(self.losses, mode=_CUDA_GRAPHS) if c.compile else self.losses
        self.replay = Replay(c.num_train_tasks, c.replay_capacity, O, A, device)
        self.contexts = Replay(c.num_train_tasks, c.context_capacity, O, A, device)
        megabytes = (self.replay.num_bytes + self.contexts.num_bytes) / 2**20
        _log.info(
            "replay: %d tasks x %d transitions, %.0f MiB on %s", c.num_train_tasks, c.replay_capacity, megabytes, device
        )
        self._num_updates = 0
        self._slots: dict[int, int] = {}  # a task's fingerprint -> its place in the replay

    @property
    def policy(self) -> PEARLPolicy:
        c = self.config
        return PEARLPolicy(self.actor, self.encoder, c.latent_dim, c.context_size, c.next_observation)

    def pool(self, distribution: TaskDistribution, seed: int) -> tuple[Task, ...]:
        """All training tasks, distinct; a function of the arguments alone."""
        return tuple(dict.fromkeys(distribution.sample("train", self.config.num_train_tasks, seeds.task_pool(seed))))

    def tasks(self, distribution: TaskDistribution, seed: int, iteration: int) -> tuple[Task, ...]:
        """The whole pool at first, then some of it."""
        pool = self.pool(distribution, seed)
        if iteration == 0:
            return pool
        size = min(self.config.tasks_per_iteration, len(pool))
        chosen = seeds.pool_draw(seed, iteration).choice(len(pool), size, replace=False)
        return tuple(pool[int(i)] for i in chosen)

    def plan(self, horizon: int) -> TrialPlan:
        """Prior episodes are not adapted to but for the last of them; then every episode is."""
        c = self.config
        prior, adapted = RoundPlan("support", adapt=False), RoundPlan("support", adapt=True)
        if self._num_updates == 0:
            return TrialPlan(c.num_streams, horizon, (prior,) * c.initial_episodes)
        explore = (prior,) * (c.prior_episodes - 1) + (adapted,) * c.posterior_episodes
        return TrialPlan(c.num_streams, horizon, (*explore, RoundPlan("query", adapt=False)))

    def evaluation_plan(self, horizon: int, settings: EvaluationSettings) -> TrialPlan:
        """Exploration episodes, all of which the judged one's posterior is given; exploring actions are samples."""
        c = self.config
        number = rounds_of(settings, _SUPPORT_EPISODES, "PEARL")
        adapted = RoundPlan("support", adapt=True)
        between = adapted if c.exploration == "posterior" else RoundPlan("support", adapt=False)
        explore = (*[between] * (number - 1), adapted) if number else ()
        query = RoundPlan("query", adapt=False, deterministic=settings.deterministic)
        return TrialPlan(judged_streams(c.num_streams, settings), horizon, (*explore, query), settings.context)

    def weights(self) -> dict[str, np.ndarray]:
        names = [name for name in self._params if name.startswith(("actor.", "encoder."))]
        return {name: self._params[name].detach().cpu().numpy().copy() for name in names}

    def update(self, batches: Sequence[TrialBatch], progress: float) -> dict[str, float]:
        """Store the trials, then `gradient_steps` steps."""
        context_rounds = self._context_rounds(len(batches[0].rounds))
        for batch in batches:
            for k, task in enumerate(batch.tasks):
                slot = self._slot(task)
                for i, round_ in enumerate(batch.rounds):
                    self.replay.add(slot, round_, k)
                    if i < context_rounds:
                        self.contexts.add(slot, round_, k)
        lr = set_lr(self._optimiser, self.config.lr, self.config.lr_schedule, progress)
        generator = torch.Generator(self.device).manual_seed(seeds.update(self.seed, self._num_updates))
        total = torch.zeros(len(METRICS), device=self.device)
        for _ in range(self.config.gradient_steps):
            total += self.step(*self._draw(generator))
        self._num_updates += 1
        metrics = dict(zip(METRICS, (total / self.config.gradient_steps).tolist(), strict=True))
        temperature = float(self._params["log_temperature"].exp())
        return metrics | {"temperature": temperature, "stored": float(self.replay.num_stored), "lr": lr}

    def _slot(self, task: Task) -> int:
        """The task's place in the replay: tasks take places in the order in which they first come."""
        return self._slots.setdefault(task.fingerprint(), len(self._slots))

    def _context_rounds(self, rounds: int) -> int:
        """How many of a trial's rounds are like those of an evaluation's exploration."""
        if self._num_updates == 0:
            return rounds
        return self.config.prior_episodes if self.config.exploration == "prior" else rounds - 1

    # --- one gradient step ---

    def _draw(self, generator: torch.Generator) -> tuple[Transitions, list[Tensor], Tensor]:
        """A meta-batch: transitions, contexts [K, C, features] (two to be contrasted), noise [K, B, 2 A + Z]."""
        c, device = self.config, self.device
        filled = torch.tensor(self.replay.filled, device=device)
        size = min(c.meta_batch, len(filled))
        tasks = filled[torch.randperm(len(filled), generator=generator, device=device)[:size]]
        batch = self.replay.sample(tasks, c.batch_size, generator)
        contexts = [self._context(tasks, generator) for _ in range(2 if c.contrastive else 1)]
        A = batch.actions.shape[-1]
        action_noise = torch.randn(size, c.batch_size, 2 * A, generator=generator, device=device)
        z_noise = torch.randn(size, 1, c.latent_dim, generator=generator, device=device)
        return batch, contexts, torch.cat((action_noise, z_noise.expand(-1, c.batch_size, -1)), dim=-1)

    def _context(self, tasks: Tensor, generator: torch.Generator) -> Tensor:
        encoder = self.config.encoder
        in_runs = not isinstance(encoder, PermutationInvariant) or encoder.context_sampling == "runs"
        draw = self.contexts.sample_runs if in_runs else self.contexts.sample
        sample = draw(tasks, self.config.context_size, generator)
        parts = [sample.observations, sample.actions, sample.rewards[..., None]]
        return torch.cat([*parts, sample.next_observations] if self.config.next_observation else parts, dim=-1)

    def step(self, batch: Transitions, contexts: list[Tensor], noise: Tensor) -> Tensor:
        """One Adam step of everything, and of the targets towards the critics; metrics [6] on the device."""
        num_tasks = len(batch.rewards)
        num_chunks = 1 if self.device.type != "cpu" or self.config.contrastive else min(2, num_tasks)
        chunks = torch.arange(num_tasks, device=self.device).tensor_split(num_chunks)

        def gradient(rows: Tensor) -> tuple[list[Tensor], Tensor]:
            part = Transitions(*(value[rows[0] : rows[-1] + 1] for value in vars(batch).values()))
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
        self, batch: Transitions, contexts: list[Tensor], noise: Tensor, share: float
    ) -> tuple[list[Tensor], Tensor]:
        """Gradients of some tasks' share of the losses, and of the metrics."""
        params = leaves(self._params)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.autocast):
            loss, metrics = self._losses_of_step(params, batch, contexts, noise)
        gradients = torch.autograd.grad(share * loss, list(params.values()), allow_unused=True, materialize_grads=True)
        return list(gradients), share * metrics

    def losses(
        self, params: dict[str, Tensor], batch: Transitions, contexts: list[Tensor], noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The sum of all losses, whose parts reach different parameters, and the metrics [6]."""
        c = self.config
        beliefs = [self.belief(params, context) for context in contexts]
        mean, var = beliefs[0]
        A = batch.actions.shape[-1]
        z = mean[:, None] + var.sqrt()[:, None] * noise[..., 2 * A :]
        z_fixed = z.detach()
        temperature = params["log_temperature"].exp().detach()

        def q_of(critics: dict[str, Tensor], observations: Tensor, actions: Tensor, z: Tensor) -> Tensor:
            inputs = torch.cat((observations, actions, z), dim=-1).flatten(0, 1)
            return self.critics(critics, inputs).float()[..., 0].unflatten(1, batch.rewards.shape)

        with torch.no_grad():
            next_action, next_log_prob = self._sample(params, batch.next_observations, z_fixed, noise[..., :A])
            next_q = q_of(self._targets, batch.next_observations, next_action, z_fixed)
            y = soft_target(
                batch.rewards, batch.terminated, next_q, next_log_prob, temperature, c.reward_scale, c.gamma
            )
        q = q_of(params, batch.observations, batch.actions, z)
        of_critics = critic_loss(q, y)
        kl = kl_from_standard_normal(mean, var).mean()

        action, log_prob = self._sample(params, batch.observations, z_fixed, noise[..., A : 2 * A])
        fixed = {name: value.detach() for name, value in params.items()}
        of_actor = actor_loss(q_of(fixed, batch.observations, action, z_fixed), log_prob, temperature)

        loss = of_critics + c.kl_weight * kl + of_actor
        contrast = loss.new_zeros(())
        if c.contrastive:
            contrast = contrastive_loss(beliefs[0][0], beliefs[1][0], c.contrastive.temperature)
            loss = loss + c.contrastive.weight * contrast
        if c.learn_temperature:
            loss = loss + temperature_loss(params["log_temperature"], log_prob, self._target_entropy)
        metrics = torch.stack((of_critics, of_actor, kl, -log_prob.mean(), contrast, q.mean()))
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
            flat["slots"] = torch.from_numpy(np.array([*self._slots], np.uint64).view(np.int64))
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
            fingerprints = state["slots"].numpy().view(np.uint64).tolist()
            self._slots = {fingerprint: slot for slot, fingerprint in enumerate(fingerprints)}
        self.seed, self._num_updates = int(state["seed"]), int(state["num_updates"])


def _encoder(config: PEARLConfig, features: int) -> ContextEncoder:
    encoder = config.encoder
    if isinstance(encoder, PermutationInvariant):
        return PermutationInvariantEncoder("encoder", (features, *(encoder.hidden_dim,) * 3, 2 * config.latent_dim))
    return RecurrentEncoder("encoder", features, encoder.hidden_dim, config.latent_dim)
