"""What rollout workers run: a recurrent policy over whole trials, in NumPy. `learner.py` has papers and equations.

Letters: K task, N stream, B = K N rows, T steps of a trial, I input, O observation, P previous action, A action.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from metarl.algorithms.rl2.config import FineTuning
from metarl.algorithms.rl2.sequences import Sequences
from metarl.algorithms.tensors import to_tensor
from metarl.nets.recurrent_policy import Memory, Memoryless, RecurrentPolicy
from metarl.nets.transformer import KeyValueCache
from metarl.ops.distributions import project_log_std_
from metarl.ops.functional_sgd import leaves, sgd
from metarl.ops.returns import generalised_advantages, standardise
from metarl.ops.surrogates import likelihood_ratio
from metarl.rollout.types import Episodes, Extras, Transition, Weights

INPUT_LIMIT = 10.0  # normalised inputs are clipped to this
NET_PREFIX = "net."


# --- inputs, the same for acting and learning --------------------------------------------------------


def encode_actions(net: RecurrentPolicy, actions: np.ndarray) -> np.ndarray:
    """What the environment did with them: clipped to [-1, 1] in dimensions that have a range, or one-hot.
    [..., P] float32."""
    if net.discrete:
        return np.eye(net.action_dim, dtype=np.float32)[actions]
    clipped = actions.clip(-1, 1)
    if net.unbounded:
        clipped[..., list(net.unbounded)] = actions[..., list(net.unbounded)]
    return clipped


def normalise(weights: Weights, columns: slice, values: np.ndarray) -> np.ndarray:
    """(x - mean) / std, clipped; `columns` picks observations or the reward (last) of the normaliser."""
    scaled = (values - weights["inputs.mean"][columns]) / weights["inputs.std"][columns]
    return scaled.clip(-INPUT_LIMIT, INPUT_LIMIT).astype(np.float32, copy=False)


_OBSERVATIONS, _REWARD = slice(None, -1), slice(-1, None)


def sequence_inputs(weights: Weights, net: RecurrentPolicy, data: Sequences) -> np.ndarray:
    """[B, T, I]: what `act` was given at every step of the trials."""
    inputs = np.zeros((*data.mask.shape, net.input_dim), np.float32)
    inputs[..., : net.obs_dim] = normalise(weights, _OBSERVATIONS, data.observations)
    if not isinstance(net.core, Memoryless):
        inputs[:, 1:, net.obs_dim : -2] = encode_actions(net, data.actions[:, :-1])
        inputs[:, 1:, -2:-1] = normalise(weights, _REWARD, data.rewards[:, :-1, None])
        inputs[..., -1] = data.is_first
    return inputs


# --- acting ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class RL2State:
    """Rows are tasks x streams. `nets` holds prepared parameters: one for all, or one per task (from `tuned`)."""

    weights: Weights
    net: RecurrentPolicy  # without memory where the context is blank
    nets: tuple[dict[str, np.ndarray], ...]
    shape: tuple[int, int]  # K, N
    memory: Memory
    previous: np.ndarray  # [B, P + 1] last action and normalised reward
    boundary: np.ndarray  # [B, 1] 1 where the next observation is an episode's first
    running: np.ndarray  # [B] whose episode has not ended
    context_of: np.ndarray | None = None  # [K] whose memory each task's policy reads; see AblatablePolicy.begin_trial
    tuned: tuple[dict[str, np.ndarray], ...] = ()  # each task's own parameters after fine-tuning


@dataclass(frozen=True)
class RL2Policy:
    """The AdaptivePolicy. `gamma`, `gae_lambda` and `bootstrap_truncated` are for fine-tuning."""

    net: RecurrentPolicy
    fine_tuning: FineTuning | None
    gamma: float
    gae_lambda: float
    bootstrap_truncated: bool

    def begin_trial(
        self,
        weights: Weights,
        num_tasks: int,
        num_streams: int,
        rng: np.random.Generator,
        context_of: np.ndarray | None = None,
    ) -> RL2State:
        net, B = self.net, num_tasks * num_streams
        if context_of is not None and (context_of < 0).any():
            assert (context_of < 0).all(), "a unit's tasks are ablated alike"
            net, context_of = replace(net, core=Memoryless(net.core)), None
        return RL2State(
            weights=weights,
            net=net,
            nets=(net.prepared(net_of(weights)),),
            shape=(num_tasks, num_streams),
            memory=net.core.initial(B),
            previous=np.zeros((B, net.action_dim + 1), np.float32),
            boundary=self._boundary(B),
            running=np.ones(B, bool),
            context_of=context_of,
        )

    def act(
        self, state: RL2State, observations: np.ndarray, rng: np.random.Generator, deterministic: bool
    ) -> tuple[np.ndarray, RL2State, Extras]:
        output, values, memory = self._forward(state, observations, state.running)
        extras = {"logits" if self.net.discrete else "mean": output, "value": values}
        state = replace(state, memory=memory)
        if self.net.discrete:
            gumbel = 0.0 if deterministic else rng.gumbel(size=output.shape)
            return np.argmax(output + gumbel, axis=-1), state, extras
        if deterministic:
            return output, state, extras
        noise = rng.standard_normal(output.shape, dtype=np.float32)
        noise *= self._log_std(state)
        noise += output
        return noise, state, extras

    def _log_std(self, state: RL2State) -> np.ndarray:
        """Standard deviations [1 or K, 1, A]."""
        return np.exp(np.stack([self.net.log_std(net) for net in state.nets]))[:, None]

    def _forward(
        self, state: RL2State, observations: np.ndarray, running: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, Memory]:
        """Means or logits [K, N, A], values [K, N] and memory."""
        (K, N), net = state.shape, state.net
        obs = normalise(state.weights, _OBSERVATIONS, observations.reshape(K * N, -1))
        inputs = np.concatenate((obs, state.previous, state.boundary), axis=1)
        if len(state.nets) == 1:
            core, encoded, memory = net.step(state.nets[0], inputs, state.memory, running)
            if state.context_of is not None:
                core = core.reshape(K, N, -1)[state.context_of].reshape(K * N, -1)
            output, values = net.heads(state.nets[0], core, encoded)
        else:  # memoryless: each task's rows with its own parameters
            rows = [slice(k * N, (k + 1) * N) for k in range(K)]
            parts = [net.step(own, inputs[r], None, running[r])[:2] for own, r in zip(state.nets, rows, strict=True)]
            heads = [net.heads(own, *part) for own, part in zip(state.nets, parts, strict=True)]
            output, values, memory = np.concatenate([h[0] for h in heads]), np.concatenate([h[1] for h in heads]), None
        values = state.weights["value.mean"] + state.weights["value.std"] * values
        return output.reshape(K, N, -1), values.reshape(K, N), memory

    def observe(self, state: RL2State, transition: Transition) -> RL2State:
        B = state.shape[0] * state.shape[1]
        running = transition.running.reshape(B)
        over = (transition.terminated | transition.truncated).reshape(B)
        if not isinstance(state.net.core, Memoryless):
            actions = transition.actions.reshape(B, *transition.actions.shape[2:])
            actions = encode_actions(self.net, actions)
            rewards = normalise(state.weights, _REWARD, transition.rewards.reshape(B, 1))
            latest = np.concatenate((actions, rewards), axis=1)
            previous = latest if running.all() else np.where(running[:, None], latest, state.previous)
            state = replace(state, previous=previous)
        return replace(state, boundary=np.zeros((B, 1), np.float32), running=running & ~over)

    def end_round(self, state: RL2State, episodes: Episodes, adapt: bool) -> tuple[RL2State, Extras]:
        """Raise the boundary flag and keep the memory; with fine-tuning, take its gradient steps."""
        B = state.shape[0] * state.shape[1]
        everyone = np.ones(B, bool)
        derived = {"last_value": self._forward(state, episodes.last_observations, everyone)[1]}
        if not self.net.discrete:
            derived["log_std"] = np.repeat(
                np.log(self._log_std(state))[:, 0], state.shape[0] // len(state.nets), axis=0
            )
        if adapt and self.fine_tuning:
            state = self._fine_tune(self.fine_tuning, state, episodes, derived["last_value"])
        return replace(state, boundary=self._boundary(B), running=everyone), derived

    def _boundary(self, rows: int) -> np.ndarray:
        """The boundary flag of an episode's first observation, [rows, 1]: what was trained without memory sees none. A
        blank context changes nothing of it, so that the first action of all is the same."""
        return np.full((rows, 1), float(self.adapts_within_episodes), np.float32)

    @property
    def adapts_within_episodes(self) -> bool:
        """Whether it has a memory."""
        return not isinstance(self.net.core, Memoryless)

    def describe(self, state: RL2State) -> dict[str, np.ndarray]:
        """The memory: `memory` [K, H] of a GRU, and `cell` beside it of an LSTM; of a transformer how many steps it
        holds, `steps` [K]. For one stream per task."""
        parts: dict[str, np.ndarray] = {}
        if isinstance(state.memory, KeyValueCache):
            parts = {"steps": state.memory.length}
        elif isinstance(state.memory, tuple):
            parts = dict(zip(("memory", "cell"), state.memory, strict=True))
        elif state.memory is not None:
            parts = {"memory": state.memory}
        return {name: value.reshape(state.shape[0], *value.shape[1:]) for name, value in parts.items()}

    def _fine_tune(
        self, settings: FineTuning, state: RL2State, episodes: Episodes, last_values: np.ndarray
    ) -> RL2State:
        """Policy-gradient steps on each task's own episodes: theta - lr * grad of the likelihood ratio's surrogate.

        Advantages are those of the critic, standardised per task. Every round starts from where the last one ended.
        """
        K, net = state.shape[0], state.net
        weights = state.tuned or tuple(net_of(state.weights) for _ in range(K))
        mask, rewards = torch.from_numpy(episodes.mask).float(), torch.from_numpy(episodes.rewards)
        bootstrap = torch.from_numpy(last_values * (episodes.truncated & self.bootstrap_truncated))
        values = torch.from_numpy(episodes.extras["value"])
        advantages = generalised_advantages(rewards, values, bootstrap, mask, self.gamma, self.gae_lambda)
        advantages = standardise(advantages, mask)
        tuned = []
        for k in range(K):
            data = Sequences.of([[episodes.of_task(k)]])
            inputs = to_tensor(sequence_inputs(state.weights, net, data)).transpose(0, 1)
            actions = torch.from_numpy(data.actions).transpose(0, 1)
            T = len(inputs)
            given = (advantages[k, :, :T].T[None], mask[k, :, :T].T[None])
            params = leaves({name: to_tensor(value) for name, value in weights[k].items()})
            rates = dict.fromkeys(params, torch.tensor(settings.lr))
            old_log_prob: Tensor | None = None
            for _ in range(settings.steps):
                distribution, _ = net.forward(params, inputs)
                log_prob = distribution.log_prob(actions)[None]
                old_log_prob = log_prob.detach() if old_log_prob is None else old_log_prob
                loss = likelihood_ratio(log_prob, old_log_prob, *given).sum()
                grads = torch.autograd.grad(loss, list(params.values()), allow_unused=True, materialize_grads=True)
                params = leaves(sgd(params, dict(zip(params, grads, strict=True)), rates))
                project_log_std_(params, net.min_std)
            tuned.append({n: p.detach().numpy() for n, p in params.items()})
        return replace(state, tuned=tuple(tuned), nets=tuple(net.prepared(weights) for weights in tuned))


def net_of(weights: Weights) -> dict[str, np.ndarray]:
    """The net's parameters among the weights, by the net's own names."""
    return {n.removeprefix(NET_PREFIX): value for n, value in weights.items() if n.startswith(NET_PREFIX)}
