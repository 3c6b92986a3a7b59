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
transitions of exploration, beginning at any of them. A run continues from the end of an episode to the stream's next
one, as in acting, which reads the episodes of a stream one after the other. The recurrent encoder learns from runs of
`context_size` alone: set it to all steps of exploration, since its certainty after fewer or more is an extrapolation.

    update    store trials -> [ meta_batch.py draws -> objective.py: losses, gradients -> Adam -> targets ] x steps
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from metarl.algorithms.base import EvaluationSettings, judged_streams, rounds_of
from metarl.algorithms.graphs import PolicyGraphs, Rounds
from metarl.algorithms.optimiser import load_moments, moments_of, set_lr
from metarl.algorithms.pearl.config import PEARLConfig
from metarl.algorithms.pearl.meta_batch import MetaBatch, draw_meta_batch
from metarl.algorithms.pearl.objective import METRICS, Objective, Params, gradient
from metarl.algorithms.pearl.policy import PEARLPolicy, prior_rounds
from metarl.algorithms.pearl.replay import Replay
from metarl.algorithms.tensors import to_host
from metarl.errors import ConfigError
from metarl.kernels.parallel import parallel_map, sum_in_order
from metarl.kernels.processor import bfloat16_pays
from metarl.rollout import seeds
from metarl.rollout.spaces import Spaces
from metarl.rollout.types import Round, RoundPlan, TrialBatch, TrialPlan
from metarl.tasks import Task, TaskDistribution

_log = logging.getLogger(__name__)
_CUDA_GRAPHS = "reduce-overhead"  # torch.compile's name for them
_SUPPORT_EPISODES = 2  # of an evaluation, before the judged one


class PEARL:
    """The Algorithm: replay, encoder, actor and critics.

    objective: the networks and their losses.
    params, targets: all parameters by name, and those of the slow critics; changed in place.
    replay, contexts: transitions that the critics learn from, and those that contexts come from.
    """

    Config = PEARLConfig
    max_lag = 1

    def __init__(self, config: PEARLConfig, spaces: Spaces, device: torch.device, seed: int):
        _check(config, spaces, device)
        c = self.config = config
        self.device, self.seed = device, seed
        self.objective = Objective.of(config, spaces)
        initial = self.objective.init(torch.Generator().manual_seed(seed))
        self.params = {name: value.to(device) for name, value in initial.items()}
        self.targets = {n: v.clone() for n, v in self.params.items() if n.startswith("critics.")}
        self._optimiser = torch.optim.Adam(list(self.params.values()), lr=c.lr, fused=True)
        self._move_targets = get_ema_multi_avg_fn(1 - c.target_rate)
        losses = self.objective.losses
        self._losses = torch.compile(losses, mode=_CUDA_GRAPHS) if c.compile else losses
        sizes = spaces.obs_dim, spaces.action_dim
        self.replay = Replay(c.num_train_tasks, c.replay_capacity, *sizes, device)
        self.contexts = Replay(c.num_train_tasks, c.context_capacity, *sizes, device)
        megabytes = (self.replay.num_bytes + self.contexts.num_bytes) / 2**20
        _log.info(
            "replay: %d tasks x %d transitions, %.0f MiB on %s", c.num_train_tasks, c.replay_capacity, megabytes, device
        )
        self._num_updates = 0
        self._slots: dict[int, int] = {}  # a task's fingerprint -> its place in the replay

    @property
    def policy(self) -> PEARLPolicy:
        c, objective = self.config, self.objective
        return PEARLPolicy(objective.actor, objective.encoder, c.latent_dim, c.context_size, c.next_observation)

    # --- tasks and plans ---

    def pool(self, distribution: TaskDistribution, seed: int) -> tuple[Task, ...]:
        """All training tasks, distinct; a function of the arguments alone."""
        return tuple(dict.fromkeys(distribution.sample("train", self.config.num_train_tasks, seeds.task_pool(seed))))

    def tasks(self, distribution: TaskDistribution, seed: int, iteration: int) -> tuple[Task, ...]:
        """The whole pool at first, then some of it; the whole pool again where a run is resumed without its replay."""
        pool = self.pool(distribution, seed)
        if self.replay.num_stored and not self._slots:  # restored from a checkpoint that did not name its tasks
            self._slots = {task.fingerprint(): slot for slot, task in enumerate(pool)}
        if iteration == 0 or (self._num_updates > 0 and self.replay.num_stored == 0):
            return pool
        size = min(self.config.tasks_per_iteration, len(pool))
        chosen = seeds.pool_draw(seed, iteration).choice(len(pool), size, replace=False)
        return tuple(pool[int(i)] for i in chosen)

    def plan(self, horizon: int) -> TrialPlan:
        """While nothing is stored, `initial_episodes` with z from the prior. Then prior episodes, the last of which is
        adapted to, as is every posterior episode but the judged one."""
        c = self.config
        prior, adapted = RoundPlan("support", adapt=False), RoundPlan("support", adapt=True)
        if self.replay.num_stored == 0:
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

    def deployment_plan(self, horizon: int, settings: EvaluationSettings) -> TrialPlan:
        """As an evaluation's, but the judged episode is believed too, however often it is repeated."""
        plan = self.evaluation_plan(horizon, settings)
        return replace(plan, rounds=(*plan.rounds[:-1], replace(plan.rounds[-1], adapt=True)))

    def weights(self) -> dict[str, np.ndarray]:
        names = [name for name in self.params if name.startswith(("actor.", "encoder."))]
        return to_host({name: self.params[name] for name in names})

    # --- learning ---

    def update(self, batches: Sequence[TrialBatch], progress: float) -> dict[str, float]:
        """Store the trials, then `gradient_steps` steps."""
        self._store(batches)
        c = self.config
        lr = set_lr(self._optimiser, c.lr, c.lr_schedule, progress)
        generator = torch.Generator(self.device).manual_seed(seeds.update(self.seed, self._num_updates))
        total = torch.zeros(len(METRICS), device=self.device)
        for _ in range(c.gradient_steps):
            total += self.step(draw_meta_batch(self.replay, self.contexts, c, generator))
        self._num_updates += 1
        metrics = dict(zip(METRICS, (total / c.gradient_steps).tolist(), strict=True))
        temperature = float(self.params["log_temperature"].exp())
        return metrics | {"temperature": temperature, "stored": float(self.replay.num_stored), "lr": lr}

    def _store(self, batches: Sequence[TrialBatch]) -> None:
        for batch in batches:
            num_context_rounds = self._num_context_rounds(batch.rounds)
            for k, task in enumerate(batch.tasks):
                slot = self._slots.setdefault(task.fingerprint(), len(self._slots))
                for i, episodes in enumerate(batch.rounds):
                    self.replay.add(slot, episodes, k)
                    if i < num_context_rounds:
                        self.contexts.add(slot, episodes, k)

    def _num_context_rounds(self, rounds: Sequence[Round]) -> int:
        """How many of a trial's first rounds are like those of an evaluation's exploration."""
        num_prior = prior_rounds(rounds)
        return num_prior if self.config.exploration == "prior" else max(num_prior, len(rounds) - 1)

    def step(self, batch: MetaBatch) -> Tensor:
        """One Adam step of everything, and of the targets towards the critics; the values of METRICS, on the device.

        The gradient stays in the parameters' `grad`.
        """
        num_chunks = 1 if self.device.type != "cpu" or self.config.contrastive else min(2, batch.num_tasks)
        chunks = torch.arange(batch.num_tasks).tensor_split(num_chunks)

        def part(rows: Tensor) -> tuple[Params, Tensor]:
            some = batch.of_tasks(slice(int(rows[0]), int(rows[-1]) + 1))
            share, half_precision = len(rows) / batch.num_tasks, self.config.autocast
            return gradient(self._losses, self.params, self.targets, some, weight=share, half_precision=half_precision)

        parts = parallel_map(part, chunks, self.device)
        for name, value in self.params.items():
            value.grad = sum_in_order([gradients[name] for gradients, _ in parts])
        self._optimiser.step()
        self._move_targets(list(self.targets.values()), [self.params[name] for name in self.targets], 0)
        return sum_in_order([metrics for _, metrics in parts])

    # --- state ---

    def export_graphs(self, rounds: Rounds) -> PolicyGraphs:
        """See `metarl.algorithms.graphs`."""
        from metarl.algorithms.pearl.export import pearl_graphs

        return pearl_graphs(self.policy, self.weights(), rounds)

    def state_dict(self) -> dict[str, Tensor]:
        flat = {f"params.{name}": value for name, value in self.params.items()}
        flat |= {f"targets.{name}": value for name, value in self.targets.items()}
        flat |= moments_of(self._optimiser, self.params)
        if self.config.save_replay:
            for kind, replay in (("replay", self.replay), ("contexts", self.contexts)):
                flat |= {f"{kind}.{name}": value for name, value in replay.state_dict().items()}
            flat["slots"] = torch.from_numpy(np.array([*self._slots], np.uint64).view(np.int64))
        flat |= {"seed": torch.tensor(self.seed), "num_updates": torch.tensor(self._num_updates)}
        return {name: value.detach().clone() for name, value in flat.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for kind, values in (("params", self.params), ("targets", self.targets)):
                for name, value in values.items():
                    value.copy_(state[f"{kind}.{name}"])
        load_moments(self._optimiser, self.params, state)
        if self.config.save_replay:
            for kind, replay in (("replay", self.replay), ("contexts", self.contexts)):
                prefix = f"{kind}."
                replay.load_state_dict({n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)})
            fingerprints = state["slots"].numpy().view(np.uint64).tolist() if "slots" in state else []
            self._slots = {fingerprint: slot for slot, fingerprint in enumerate(fingerprints)}
        self.seed, self._num_updates = int(state["seed"]), int(state["num_updates"])


def _check(config: PEARLConfig, spaces: Spaces, device: torch.device) -> None:
    """ConfigError where the configuration cannot work here; a warning where it is slower than it must be."""
    if spaces.discrete:
        raise ConfigError("algorithm.name = 'pearl' needs continuous actions; allowed here: maml, rl2")
    if spaces.unbounded:
        which = ", ".join(map(str, spaces.unbounded))
        raise ConfigError(
            f"algorithm.name = 'pearl' acts within bounds, but action dimensions {which} of the environment have none: "
            "give its action space low and high; allowed here: maml, rl2"
        )
    if config.compile and device.type == "cpu":
        raise ConfigError("algorithm.compile = True needs a GPU; allowed on a CPU: False")
    if config.autocast and device.type == "cpu" and not bfloat16_pays():
        _log.warning(
            "algorithm.autocast = True: this processor has no instructions for products in bfloat16, which are two to "
            "three times as slow as in float32 here; autocast = False is faster"
        )
