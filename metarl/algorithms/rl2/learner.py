"""RL2: a recurrent policy that adapts within the trial, trained by PPO through time.

Papers: RL2 (Duan et al. 2016; Wang et al. 2016), PPO (Schulman et al. 2017), PopArt (van Hasselt et al. 2016).

    h_t = core(h_{t-1}, (o_t, a_{t-1}, r_{t-1}, boundary_t))     a_t ~ pi(. | h_t, o_t)     v_t = v(h_t, o_t)

A trial is several episodes on one task. h is cleared when a trial begins and lives through episode ends; the first
input of an episode is its first observation with the boundary flag and the last episode's last action and reward.
The trial is the unit of credit: returns run across episode ends (terminal ones too), so that exploring in episode 1
is paid for by episode 2. Only the trial's end ends credit, and where time ran out there the value bootstraps.

Baselines from the same code: `memory: none` clears h, the previous action and the previous reward at every step (the
task-blind policy); with `fine_tune_steps` evaluation also takes policy-gradient steps between its rounds (multi-task
pre-training and fine-tuning); `task_distribution.reveal_task: true` makes the oracle.

Deliberate deviations: the critic's values are normalised with its output layer corrected (PopArt; the papers leave
them as they are); observations and rewards are normalised as inputs only; normalisers are part of the weights, moved
by the learner after each update, so that acting and learning see the same numbers; and means are drawn back into the
action range by a quadratic penalty: far outside, noise is clipped away by the environment and exploration is over, and
a tanh that keeps them inside takes the gradient away where it saturates.

Letters: K task, N stream, B = K N rows, T steps of a trial, I input, O observation, P previous action, A action.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from metarl.algorithms.base import EvaluationSettings, judged_streams, rounds_of
from metarl.algorithms.optimiser import load_moments, moments_of, set_lr
from metarl.algorithms.rl2.config import LSTMCore, RL2Config, TransformerCore
from metarl.algorithms.rl2.policy import NET_PREFIX, RL2Policy, net_of, sequence_inputs
from metarl.algorithms.rl2.sequences import Sequences, last_derived
from metarl.errors import ConfigError
from metarl.kernels.gru import GRU
from metarl.kernels.lstm import LSTM
from metarl.kernels.parallel import parallel_map, sum_in_order
from metarl.nets.recurrent_policy import Core, Memoryless, RecurrentPolicy
from metarl.nets.transformer import Transformer
from metarl.ops.distributions import Categorical, Distribution, Gaussian
from metarl.ops.functional_sgd import leaves
from metarl.ops.moments import Moments
from metarl.ops.returns import generalised_advantages, standardise
from metarl.ops.surrogates import clipped_ratio
from metarl.rollout import seeds
from metarl.rollout.policy import Spaces
from metarl.rollout.types import RoundPlan, TrialBatch, TrialPlan
from metarl.tasks import Task, TaskDistribution

_VALUE_MEMORY = 0.97  # how much of the critic's normaliser an update keeps
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
    )


def trial_advantages(s: Sequences, last_values: np.ndarray, gamma: float, gae_lambda: float) -> tuple[Tensor, Tensor]:
    """GAE over the whole trial, episode ends being steps like any other, and the critic's targets A + v; [B, T].

    `last_values` [B] are those after the trial's last step; they count where time ran out there, and not where the
    last episode reached a terminal state.
    """
    rewards, values = torch.from_numpy(s.rewards), torch.from_numpy(s.extras["value"])
    mask, bootstrap = torch.from_numpy(s.mask).float(), torch.from_numpy(last_values * s.ended_by_time)
    advantages = generalised_advantages(rewards, values, bootstrap, mask, gamma, gae_lambda)
    return advantages, (advantages + values) * mask


# --- the learner -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrialTensors:
    """Whole trials on the learner's device, time first."""

    inputs: Tensor  # [T, B, I]
    actions: Tensor  # [T, B, A], or [T, B] int64
    behaviour: Distribution  # over [T, B]
    old_log_prob: Tensor  # [T, B]
    advantages: Tensor  # [T, B] standardised over all real steps
    targets: Tensor  # [T, B] of the critic, in its normalised units
    mask: Tensor  # [T, B] 1 on real steps

    def __getitem__(self, rows: Tensor) -> TrialTensors:
        """Some of the trials."""
        behaviour = type(self.behaviour)(
            *(x if x.ndim == 1 else x[:, rows] for x in self.behaviour)  # log-std is shared by all
        )
        arrays = {name: value[:, rows] for name, value in vars(self).items() if name != "behaviour"}
        return TrialTensors(behaviour=behaviour, **arrays)


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

    @property
    def policy(self) -> RL2Policy:
        c = self.config
        return RL2Policy(self.net, c.fine_tuning, c.gamma, c.gae_lambda)

    def tasks(self, distribution: TaskDistribution, seed: int, iteration: int) -> tuple[Task, ...]:
        return distribution.sample("train", self.config.tasks_per_iteration, seeds.training_tasks(seed, iteration))

    def plan(self, horizon: int) -> TrialPlan:
        """Episodes of a trial. Fine-tuning is for evaluations alone."""
        c = self.config
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
        return TrialPlan(streams, horizon, (*[support] * before, query), settings.context)

    def weights(self) -> dict[str, np.ndarray]:
        weights = {NET_PREFIX + name: value.detach().cpu().numpy().copy() for name, value in self._params.items()}
        unused = Moments.empty(len(self._inputs.mean), torch.device("cpu"))
        inputs = self._inputs if self.config.normalise_inputs else unused
        for name, moments in (("inputs", inputs), ("value", self._values)):
            weights[f"{name}.mean"], weights[f"{name}.std"] = scale_of(moments)
        return weights

    def update(self, batches: Sequence[TrialBatch], progress: float) -> dict[str, float]:
        """`epochs` passes of PPO over the trials, then the normalisers move."""
        sequences = Sequences.of([batch.rounds for batch in batches])
        if self._num_updates == 0:  # the critic's first errors would be of the size of the returns
            self._move_value_normaliser(self._tensors(sequences, batches)[1])
        data, returns = self._tensors(sequences, batches)
        lr = set_lr(self._optimiser, self.config.lr, self.config.lr_schedule, progress)
        generator = torch.Generator().manual_seed(seeds.update(self.seed, self._num_updates))
        records: list[dict[str, float]] = []
        for rows in self._minibatches(len(sequences.mask), generator):
            records.append(self._step(data[rows.to(self.device)]))
            if self.config.max_kl is not None and records[-1]["kl"] > self.config.max_kl:
                break
        metrics = {name: float(np.mean([record[name] for record in records])) for name in records[0]}
        metrics |= {"kl": records[-1]["kl"], "gradient_steps": float(len(records)), "lr": lr}
        values = torch.from_numpy(sequences.extras["value"])[torch.from_numpy(sequences.mask)]
        metrics["explained_variance"] = float(1 - (returns - values).var() / returns.var().clamp_min(1e-12))
        if "log_std" in self._params:
            metrics["policy_std"] = float(self._params["log_std"].exp().clamp_min(self.config.min_std).mean())
        self._move_input_normaliser(sequences)
        self._move_value_normaliser(returns)
        self._num_updates += 1
        return metrics

    def _minibatches(self, num_trials: int, generator: torch.Generator) -> Iterator[Tensor]:
        for _ in range(self.config.epochs):
            yield from torch.randperm(num_trials, generator=generator).chunk(self.config.minibatches)

    def _tensors(self, s: Sequences, batches: Sequence[TrialBatch]) -> tuple[TrialTensors, Tensor]:
        """The learner's data, and the critic's targets on all real steps in the rewards' own units."""
        weights, mask = self.weights(), torch.from_numpy(s.mask).float()
        last_values = last_derived([batch.rounds for batch in batches], "last_value")
        advantages, returns = trial_advantages(s, last_values, self.config.gamma, self.config.gae_lambda)
        targets = (returns - float(weights["value.mean"][0])) / float(weights["value.std"][0])

        def to(x: Tensor) -> Tensor:
            return x.transpose(0, 1).clone(memory_format=torch.contiguous_format).to(self.device)

        actions = to(torch.from_numpy(s.actions))
        behaviour: Distribution
        if self.net.discrete:
            behaviour = Categorical(to(torch.from_numpy(s.extras["logits"])))
        else:
            log_std = torch.from_numpy(self.net.log_std(net_of(weights))).to(self.device)
            behaviour = Gaussian(to(torch.from_numpy(s.extras["mean"])), log_std)
        tensors = TrialTensors(
            inputs=to(torch.from_numpy(sequence_inputs(weights, self.net, s))),
            actions=actions,
            behaviour=behaviour,
            old_log_prob=behaviour.log_prob(actions),
            advantages=to(standardise(advantages[None], mask[None])[0]),
            targets=to(targets),
            mask=to(mask),
        )
        return tensors, returns[torch.from_numpy(s.mask)]

    def _step(self, data: TrialTensors) -> dict[str, float]:
        """One Adam step on a minibatch of whole trials."""
        num_rows = data.mask.shape[1]
        num_chunks = 1 if self.device.type != "cpu" else max(min(2, num_rows // 16), -(-num_rows // _CHUNK_ROWS))
        rows = torch.arange(num_rows, device=self.device).tensor_split(num_chunks)
        total = data.mask.sum()
        parts = parallel_map(lambda r: self._chunk_gradient(data[r], total), rows, self.device)
        gradients = [sum_in_order(gradient) for gradient in zip(*(g for g, _ in parts), strict=True)]
        for value, gradient in zip(self._params.values(), gradients, strict=True):
            value.grad = gradient
        norm = torch.nn.utils.clip_grad_norm_(list(self._params.values()), self.config.max_grad_norm)
        self._optimiser.step()
        metrics = sum_in_order([m for _, m in parts])
        names = ("policy_loss", "value_loss", "entropy", "kl", "clip_fraction")
        return dict(zip(names, metrics.tolist(), strict=True)) | {"gradient_norm": float(norm)}

    def _chunk_gradient(self, data: TrialTensors, total: Tensor) -> tuple[list[Tensor], Tensor]:
        """Gradients of some trials' share of the minibatch's loss, and the share's metrics [5]."""
        c = self.config
        share = data.mask.sum() / total
        params = leaves(self._params)
        distribution, values = self.net.forward(params, data.inputs, getattr(c.core, "bptt_steps", None))
        log_prob = distribution.log_prob(data.actions)
        batch = (log_prob[None], data.old_log_prob[None], data.advantages[None], data.mask[None])
        policy_loss = clipped_ratio(*batch, c.clip).sum() * share
        value_loss = ((values - data.targets) ** 2 * data.mask).sum() / total
        entropy = (distribution.entropy() * data.mask).sum() / total
        loss = policy_loss + 0.5 * c.value_coef * value_loss - c.entropy_coef * entropy
        if isinstance(distribution, Gaussian):
            excess = (distribution.mean.abs() - 1).clamp_min(0).square().sum(-1)
            loss = loss + c.bound_coef * (excess * data.mask).sum() / total
        gradients = torch.autograd.grad(loss, list(params.values()), allow_unused=True, materialize_grads=True)
        with torch.no_grad():
            kl = (data.behaviour.kl(distribution) * data.mask).sum() / total  # type: ignore[arg-type]
            is_clipped = ((log_prob - data.old_log_prob).exp() - 1).abs() > c.clip
            clipped = (is_clipped * data.mask).sum() / total
            return list(gradients), torch.stack((policy_loss, value_loss, entropy, kl, clipped)).detach()

    def _move_input_normaliser(self, s: Sequences) -> None:
        seen = np.concatenate((s.observations, s.rewards[..., None]), axis=-1)
        self._inputs = self._inputs.including(torch.from_numpy(seen[s.mask]))

    def _move_value_normaliser(self, returns: Tensor) -> None:
        """Take these targets in; the critic's last layer is corrected so that its values stay the same (PopArt)."""
        if not self.config.normalise_values:
            return
        before = scale_of(self._values)
        self._values = self._values.forgetting(_VALUE_MEMORY).including(returns[:, None])
        old_mean, old_std, mean, std = (float(x[0]) for x in (*before, *scale_of(self._values)))
        with torch.no_grad():
            self._params["critic.w1"].mul_(old_std / std)
            self._params["critic.b1"].mul_(old_std / std).add_((old_mean - mean) / std)

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
