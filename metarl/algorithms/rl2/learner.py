"""RL2: a recurrent policy that adapts within the trial, trained by PPO through time.

Papers: RL2 (Duan et al. 2016; Wang et al. 2016), PPO (Schulman et al. 2017), PopArt (van Hasselt et al. 2016).

    h_t = core(h_{t-1}, (o_t, a_{t-1}, r_{t-1}, boundary_t))     a_t ~ pi(. | h_t, o_t)     v_t = v(h_t, o_t)

A trial is several episodes on one task. h is cleared when a trial begins and lives through episode ends; the first
input of an episode is its first observation with the boundary flag and the last episode's last action and reward.
Returns run across episode ends, so that exploring in episode 1 is paid for by episode 2; `credit.py` has the equations
and the choices. At the trial's end, where time ran out, the critic's value of the last observation follows.

Baselines from the same code: `memory: none` clears h, the previous action and the previous reward at every step (the
non-adaptive policy); with `fine_tuning` evaluation also takes policy-gradient steps between its rounds (multi-task
pre-training and fine-tuning); `task_distribution.reveal_task: true` with `episode_credit: none` makes the oracle.

Deliberate deviations:
- The critic's values are normalised with its output layer corrected (PopArt; the papers leave them as they are). The
  first scale is that of the first trials' discounted rewards, without the untrained critic.
- Observations and rewards are normalised as inputs only. Normalisers are part of the weights, moved by the learner
  after each update, so that acting and learning see the same numbers.
- Where an action dimension has a range, means are drawn back into it by a quadratic penalty: far outside, noise is
  clipped away by the environment and exploration is over, and a tanh that keeps them inside takes the gradient away
  where it saturates. Dimensions without a range are left alone, and the memory sees their actions unclipped.

Letters: K task, N stream, B = K N rows, T steps of a trial, I input, O observation, P previous action, A action.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from metarl.algorithms.base import EvaluationSettings, judged_streams, rounds_of
from metarl.algorithms.graphs import PolicyGraphs, Rounds
from metarl.algorithms.optimiser import load_moments, moments_of, set_lr
from metarl.algorithms.rl2.config import LSTMCore, RL2Config, TransformerCore
from metarl.algorithms.rl2.credit import Credit, trial_advantages
from metarl.algorithms.rl2.policy import NET_PREFIX, RL2Policy
from metarl.algorithms.rl2.sequences import Sequences, derived_per_episode
from metarl.algorithms.rl2.tensors import TrialTensors
from metarl.algorithms.tensors import to_host
from metarl.errors import ConfigError
from metarl.kernels.gru import GRU
from metarl.kernels.lstm import LSTM
from metarl.kernels.parallel import parallel_map, sum_in_order
from metarl.nets.recurrent_policy import Core, Memoryless, RecurrentPolicy
from metarl.nets.transformer import Transformer
from metarl.ops.distributions import project_log_std_
from metarl.ops.functional_sgd import leaves
from metarl.ops.moments import Moments, rescale_output_
from metarl.ops.ppo import PPOCoefficients, PPOMetrics, explained_variance, ppo_loss
from metarl.rollout import seeds
from metarl.rollout.spaces import Spaces
from metarl.rollout.types import Adapts, RoundPlan, TrialBatch, TrialPlan
from metarl.tasks import Task, TaskDistribution

_VALUE_MEMORY = 0.97  # how much of the critic's normaliser an update keeps
_METRICS = (*PPOMetrics._fields, "gradient_norm")  # of a gradient step
_CHUNK_ROWS = 32  # trials that one thread differentiates together on a CPU: one step's gates stay in cache


def make_net(config: RL2Config, spaces: Spaces) -> RecurrentPolicy:
    """The actor-critic that `config` describes."""
    dim = RecurrentPolicy.encoded_dim(config.encoded_obs_dim)
    core: Core
    match config.core:
        case TransformerCore() as c:
            core = Transformer(dim, c.hidden_dim, c.num_layers, c.num_heads)
        case LSTMCore() as c:
            core = LSTM(dim, c.hidden_dim)
        case c:
            core = GRU(dim, c.hidden_dim)
    return RecurrentPolicy(
        spaces.obs_dim,
        spaces.action_dim,
        spaces.discrete,
        Memoryless(core) if config.memory == "none" else core,
        config.encoded_obs_dim,
        config.head_dim,
        config.init_std,
        config.min_std,
        spaces.unbounded,
    )


class RL2:
    """The Algorithm: PPO over whole trials."""

    Config = RL2Config
    max_lag = 0

    def __init__(self, config: RL2Config, spaces: Spaces, device: torch.device, seed: int):
        self.config, self.device, self.seed = config, device, seed
        self.net = make_net(config, spaces)
        params = self.net.init(torch.Generator().manual_seed(seed))
        self._params = {name: value.to(device) for name, value in params.items()}
        self._optimiser = torch.optim.Adam(list(self._params.values()), lr=config.lr)
        self._inputs = Moments.empty(spaces.obs_dim + 1, torch.device("cpu"))
        self._values = Moments.empty(1, torch.device("cpu"))
        self._num_updates = 0
        self._horizon = 0  # of the episodes: what `plan` was asked for last
        self._coefficients = PPOCoefficients(config.clip, config.value_coef, config.entropy_coef, config.bound_coef)
        self._limits = torch.ones(spaces.action_dim, device=device)
        self._limits[list(self.net.unbounded)] = math.inf

    @property
    def policy(self) -> RL2Policy:
        c = self.config
        return RL2Policy(self.net, c.fine_tuning, c.gamma, c.gae_lambda, c.bootstrap_truncated)

    def tasks(self, distribution: TaskDistribution, seed: int, iteration: int) -> tuple[Task, ...]:
        return distribution.sample("train", self.config.tasks_per_iteration, seeds.training_tasks(seed, iteration))

    def plan(self, horizon: int) -> TrialPlan:
        """Episodes of a trial. Fine-tuning is for evaluations alone."""
        c, self._horizon = self.config, horizon
        supports = (RoundPlan("support", adapt=c.fine_tuning is None),) * (c.episodes_per_trial - 1)
        return TrialPlan(c.num_streams, horizon, (*supports, RoundPlan("query", adapt=False)))

    def evaluation_plan(self, horizon: int, settings: EvaluationSettings) -> TrialPlan:
        """The last episode of a trial is judged; the ones before fill the memory, or are fine-tuned on."""
        c = self.config
        if c.memory == "none" and settings.context != "own":
            raise ConfigError(f"evaluation.context = {settings.context!r}: memory: none has no context; allowed: own")
        before = rounds_of(settings, c.episodes_per_trial - 1, "RL2")
        support = RoundPlan("support", deterministic=settings.deterministic and c.fine_tuning is None)
        query = RoundPlan("query", adapt=False, deterministic=settings.deterministic)
        streams = judged_streams(c.num_streams, settings)
        adapts: Adapts = "within" if c.memory != "none" and settings.context != "blank" else "never"
        if c.fine_tuning:
            adapts = "between"
        return TrialPlan(streams, horizon, (*[support] * before, query), settings.context, adapts)

    def weights(self) -> dict[str, np.ndarray]:
        weights = to_host({NET_PREFIX + name: value for name, value in self._params.items()})
        unused = Moments.empty(len(self._inputs.mean), torch.device("cpu"))
        inputs = self._inputs if self.config.normalise_inputs else unused
        for name, moments in (("inputs", inputs), ("value", self._values)):
            weights[f"{name}.mean"], weights[f"{name}.std"] = scale_of(moments)
        return weights

    def update(self, batches: Sequence[TrialBatch], progress: float) -> dict[str, float]:
        """`epochs` passes of PPO over the trials, then the normalisers move."""
        rounds = [batch.rounds for batch in batches]
        sequences, last_values = Sequences.of(rounds), derived_per_episode(rounds, "last_value")
        credit = self._credit(max(self._horizon, *(r.rewards.shape[2] for unit in rounds for r in unit)))
        values = sequences.extras["value"]
        if self.config.normalise_values and float(self._values.num) == 0:
            values, last_values = self._start_value_normaliser(sequences, values, last_values, credit)
        advantages, targets = trial_advantages(sequences, values, last_values, credit)
        data = TrialTensors.of(self.net, self.weights(), sequences, advantages, targets, self.device)
        lr = set_lr(self._optimiser, self.config.lr, self.config.lr_schedule, progress)
        records = self.optimise(data)
        metrics = {name: float(np.mean([record[name] for record in records])) for name in records[0]}
        metrics |= {"kl": records[-1]["kl"], "gradient_steps": float(len(records)), "lr": lr}
        mask = torch.from_numpy(sequences.mask)
        metrics["explained_variance"] = explained_variance(targets[mask], torch.from_numpy(values)[mask])
        if "log_std" in self._params:
            metrics["policy_std"] = float(self._params["log_std"].exp().mean())
        seen = np.concatenate((sequences.observations, sequences.rewards[..., None]), axis=-1)
        self._inputs = self._inputs.including(torch.from_numpy(seen[sequences.mask]))
        if self.config.normalise_values:
            self._move_value_normaliser(targets[mask])
        self._num_updates += 1
        return metrics

    def _credit(self, horizon: int) -> Credit:
        c = self.config
        return Credit(c.credit_across, c.gamma, c.episode_gamma, c.gae_lambda, horizon, c.bootstrap_truncated)

    def optimise(self, data: TrialTensors) -> list[dict[str, float]]:
        """`epochs` passes of PPO in minibatches of whole trials, in an order of this update's own; the metrics of each
        step. They end early where the policy has moved further than `max_kl`."""
        generator = torch.Generator().manual_seed(seeds.update(self.seed, self._num_updates))
        orders = [torch.randperm(data.inputs.shape[1], generator=generator) for _ in range(self.config.epochs)]
        records: list[Tensor] = []  # on the device: without `max_kl` nothing waits for it before the end
        for rows in (rows for order in orders for rows in order.chunk(self.config.minibatches)):
            records.append(self._step(data[rows.to(self.device)]))
            if self.config.max_kl is not None and float(records[-1][_METRICS.index("kl")]) > self.config.max_kl:
                break
        return [dict(zip(_METRICS, values, strict=True)) for values in torch.stack(records).tolist()]

    def _step(self, data: TrialTensors) -> Tensor:
        """One Adam step on a minibatch of whole trials; the values of _METRICS, on the device."""
        num_rows = data.inputs.shape[1]
        num_chunks = 1 if self.device.type != "cpu" else max(min(2, num_rows // 16), -(-num_rows // _CHUNK_ROWS))
        rows = torch.arange(num_rows, device=self.device).tensor_split(num_chunks)
        num_steps = data.batch.mask.sum()
        parts = parallel_map(lambda r: self._chunk_gradient(data[r], num_steps), rows, self.device)
        gradients = [sum_in_order(gradient) for gradient in zip(*(g for g, _ in parts), strict=True)]
        for value, gradient in zip(self._params.values(), gradients, strict=True):
            value.grad = gradient
        norm = torch.nn.utils.clip_grad_norm_(list(self._params.values()), self.config.max_grad_norm)
        self._optimiser.step()
        project_log_std_(self._params, self.config.min_std)
        return torch.cat((sum_in_order([m for _, m in parts]), norm[None]))

    def _chunk_gradient(self, data: TrialTensors, num_steps: Tensor) -> tuple[list[Tensor], Tensor]:
        """Gradients of some trials' part of the minibatch's loss, and their part of its metrics, in a row."""
        params = leaves(self._params)
        distribution, values = self.net.forward(params, data.inputs, self.config.bptt_steps)
        loss, metrics = ppo_loss(distribution, values, data.batch, self._coefficients, self._limits, num_steps)
        gradients = torch.autograd.grad(loss, list(params.values()), allow_unused=True, materialize_grads=True)
        return list(gradients), torch.stack(metrics)

    def _start_value_normaliser(
        self, s: Sequences, values: np.ndarray, last_values: np.ndarray, credit: Credit
    ) -> tuple[np.ndarray, np.ndarray]:
        """The first scale is that of the returns alone. The untrained critic's outputs are then read on that scale,
        here and in the trials at hand: taken for returns themselves they would set the scale of small rewards."""
        unknown = np.zeros_like(values), np.zeros_like(last_values)
        _, returns = trial_advantages(s, *unknown, replace(credit, gae_lambda=1.0))
        self._values = self._values.including(returns[torch.from_numpy(s.mask)][:, None])
        mean, std = scale_of(self._values)
        return mean + std * values, mean + std * last_values

    def _move_value_normaliser(self, targets: Tensor) -> None:
        """Take these targets in; the critic's last layer is corrected so that its values stay the same (PopArt)."""
        before = scale_of(self._values)
        self._values = self._values.forgetting(_VALUE_MEMORY).including(targets[:, None])
        old, new = ((float(mean[0]), float(std[0])) for mean, std in (before, scale_of(self._values)))
        rescale_output_(self._params["critic.w1"], self._params["critic.b1"], old, new)

    def export_graphs(self, rounds: Rounds) -> PolicyGraphs:
        """See `metarl.algorithms.graphs`."""
        from metarl.algorithms.rl2.export import rl2_graphs

        return rl2_graphs(self.policy, self.weights(), rounds)

    def state_dict(self) -> dict[str, Tensor]:
        flat = {f"params.{name}": value for name, value in self._params.items()}
        flat |= moments_of(self._optimiser, self._params)
        for name, m in (("inputs", self._inputs), ("values", self._values)):
            flat |= {f"{name}.{field}": value for field, value in m._asdict().items()}
        flat |= {"seed": torch.tensor(self.seed), "num_updates": torch.tensor(self._num_updates)}
        return {name: value.detach().clone() for name, value in flat.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, value in self._params.items():
                value.copy_(state[f"params.{name}"])
        load_moments(self._optimiser, self._params, state)
        self._inputs, self._values = (
            Moments(*(state[f"{name}.{field}"].clone() for field in Moments._fields)) for name in ("inputs", "values")
        )
        self.seed, self._num_updates = int(state["seed"]), int(state["num_updates"])


def scale_of(moments: Moments) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation as acting uses them, float32; 0 and 1 before anything was seen."""
    return moments.mean.float().numpy().copy(), moments.std().float().numpy().copy()
