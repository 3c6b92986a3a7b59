"""RL2 as a graph: one step of the recurrent policy, its memory and the last action as explicit state.

    act    observation, reward of the step before, first, memory, last action   ->   action, memory, last action

The normalisers are inside. Letters: O observation, P encoded action, E encoded input, H memory, A action.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metarl.algorithms.graphs import Graph, PolicyGraphs, Port, Rounds, noise_port, state_ports
from metarl.algorithms.rl2.policy import INPUT_LIMIT, RL2Policy, net_of
from metarl.errors import ExportError
from metarl.kernels.gru import GRU
from metarl.kernels.lstm import LSTM
from metarl.nets.recurrent_policy import Memoryless, RecurrentPolicy
from metarl.nets.transformer import EPSILON, Transformer


def rl2_graphs(policy: RL2Policy, weights: Mapping[str, np.ndarray], rounds: Rounds) -> PolicyGraphs:
    """The graph of a policy with these weights; it adapts at every step, whatever the `rounds`."""
    prepared = policy.net.prepared(net_of(weights))
    if policy.fine_tuning is not None:
        raise ExportError(
            "algorithm.fine_tuning: gradient steps of a recurrent policy have no graph; export the run with "
            "algorithm.fine_tuning=null, which acts as before the first of them"
        )
    net = policy.net
    observation = Port("observation", (1, net.obs_dim))
    action = Port("action", (1,), "int64") if net.discrete else Port("action", (1, net.action_dim))
    noise = noise_port((1, net.action_dim), net.discrete)
    if isinstance(net.core, Memoryless):
        step: torch.nn.Module = _Memoryless(_Step(net, weights, prepared))
        return PolicyGraphs(Graph(step, (observation, noise), (action,)), {})
    module = _Step(net, weights, prepared)
    zeros = np.zeros((1, 1), np.float32)
    initial = {"last_action": np.zeros((1, net.action_dim), np.float32), "started": zeros, **module.core.initial()}
    given = (observation, Port("reward", (1, 1)), Port("first", (1, 1)), noise)
    states, following = (state_ports(initial, prefix) for prefix in ("state", "next"))
    if isinstance(net.core, Transformer):
        states, following = (
            tuple(_of_any_length(port, more) for port in ports) for ports, more in ((states, ""), (following, " + 1"))
        )
    return PolicyGraphs(Graph(module, (*given, *states), (action, *following)), initial)


def _of_any_length(port: Port, more: str) -> Port:
    """Keys and values have as many entries as steps were taken."""
    if port.name.partition(".")[2] not in ("keys", "values"):
        return port
    L, B, heads, _, d = port.shape
    return Port(port.name, (L, B, heads, f"steps{more}", d), port.dtype, "of all steps of the task so far: grows")


class _Step(torch.nn.Module):
    """RL2Policy.act and .observe: the last action and reward are inputs of the next step."""

    inputs_mean: Tensor
    inputs_std: Tensor
    encoder_w: Tensor
    encoder_b: Tensor
    heads_w0: Tensor
    heads_b0: Tensor
    policy_w1: Tensor
    policy_b1: Tensor
    std: Tensor
    bounded: Tensor

    def __init__(self, net: RecurrentPolicy, weights: Mapping[str, np.ndarray], prepared: Mapping[str, np.ndarray]):
        super().__init__()
        self.net, self.core = net, _core_of(net.core, prepared)
        for name in ("inputs.mean", "inputs.std"):
            self.register_buffer(name.replace(".", "_"), torch.tensor(weights[name]))
        for name in ("encoder.w", "encoder.b", "heads.w0", "heads.b0", "policy.w1", "policy.b1"):
            self.register_buffer(name.replace(".", "_"), torch.tensor(prepared[name]))
        std = np.zeros(0, np.float32) if net.discrete else np.exp(net.log_std(prepared))
        self.register_buffer("std", torch.tensor(std))
        bounded = [float(i not in net.unbounded) for i in range(net.action_dim)]
        self.register_buffer("bounded", torch.tensor(bounded))

    def forward(
        self,
        observation: Tensor,
        reward: Tensor,
        first: Tensor,
        noise: Tensor,
        last_action: Tensor,
        started: Tensor,
        *memory: Tensor,
    ) -> tuple[Tensor, ...]:
        given = (self._normal(observation, slice(None, -1)), last_action)
        inputs = torch.cat((*given, started * self._normal(reward, slice(-1, None)), first), 1)
        encoded = torch.relu(inputs @ self.encoder_w.mT + self.encoder_b)
        output, memory = self.core(encoded, *memory)
        features = torch.cat((output, encoded[:, : self.net.encoded_obs_dim]), 1)
        hidden = torch.tanh(features @ self.heads_w0.mT + self.heads_b0)[:, : self.net.head_dim]
        output = hidden @ self.policy_w1.mT + self.policy_b1
        if self.net.discrete:
            action = (output.double() + noise).argmax(-1)
            encoded_action = torch.nn.functional.one_hot(action, self.net.action_dim).to(output.dtype)
        else:
            action = output + self.std * noise
            encoded_action = torch.where(self.bounded > 0, action.clamp(-1, 1), action)
        return action, encoded_action, started.clamp_min(1), *memory

    def _normal(self, values: Tensor, columns: slice) -> Tensor:
        """(x - mean) / std, clipped, as metarl.algorithms.rl2.policy.normalise."""
        scaled = (values - self.inputs_mean[columns]) / self.inputs_std[columns]
        return scaled.clamp(-INPUT_LIMIT, INPUT_LIMIT).float()


class _Memoryless(torch.nn.Module):
    """The same with an empty memory at every step, which sees observations alone."""

    def __init__(self, step: _Step):
        super().__init__()
        self.step = step

    def forward(self, observation: Tensor, noise: Tensor) -> tuple[Tensor]:
        nothing = torch.zeros(1, 1)
        memory = [torch.tensor(value) for value in self.step.core.initial().values()]
        given = (observation, nothing, nothing, noise, torch.zeros(1, self.step.net.action_dim), nothing)
        return (self.step(*given, *memory)[0],)


# --- cores: encoded inputs [1, E] and memory to output [1, H] and memory -----------------------------


def _core_of(core: Any, prepared: Mapping[str, np.ndarray]) -> Any:
    inner = core.core if isinstance(core, Memoryless) else core
    modules = {GRU: _GRU, LSTM: _LSTM, Transformer: _Transformer}
    if type(inner) not in modules:
        raise ExportError(f"a core {type(inner).__name__} has no graph; there are: gru, lstm, transformer")
    return modules[type(inner)](inner, prepared)


class _Gated(torch.nn.Module):
    w_ih: Tensor
    w_hh: Tensor
    b_ih: Tensor
    b_hh: Tensor

    def __init__(self, core: GRU | LSTM, prepared: Mapping[str, np.ndarray]):
        super().__init__()
        self.hidden_dim = core.hidden_dim
        for name in ("w_ih", "w_hh", "b_ih", "b_hh"):
            self.register_buffer(name, torch.tensor(prepared[name]))

    def initial(self) -> dict[str, np.ndarray]:
        return {"memory": np.zeros((1, self.hidden_dim), np.float32)}


class _GRU(_Gated):
    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        H = self.hidden_dim
        gates, remembered = x @ self.w_ih.mT + self.b_ih, h @ self.w_hh.mT + self.b_hh
        r, z = torch.sigmoid(gates[:, : 2 * H] + remembered[:, : 2 * H]).split(H, 1)
        n = torch.tanh(gates[:, 2 * H :] + r * remembered[:, 2 * H :])
        h = n + z * (h - n)
        return h, (h,)


class _LSTM(_Gated):
    def initial(self) -> dict[str, np.ndarray]:
        return {**super().initial(), "cell": np.zeros((1, self.hidden_dim), np.float32)}

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        gates = x @ self.w_ih.mT + self.b_ih + h @ self.w_hh.mT + self.b_hh
        i, f, g, o = gates.split(self.hidden_dim, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        return h, (h, c)


class _Transformer(torch.nn.Module):
    """Keys and values of all steps so far are its memory, and how many those are."""

    rates: Tensor
    w_embed: Tensor
    b_embed: Tensor

    def __init__(self, core: Transformer, prepared: Mapping[str, np.ndarray]):
        super().__init__()
        self.core = core
        for name in core.init(torch.Generator()):
            self.register_buffer(name, torch.tensor(prepared[name]))
        rates = np.exp(np.arange(0, core.model_dim, 2) * (-math.log(10000) / core.model_dim))
        self.register_buffer("rates", torch.tensor(rates))

    def initial(self) -> dict[str, np.ndarray]:
        core = self.core
        nothing = np.zeros((core.num_layers, 1, core.num_heads, 0, core.head_dim), np.float32)
        return {"keys": nothing, "values": nothing, "steps": np.zeros(1, np.int64)}

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, steps: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        core, angle = self.core, steps[:, None] * self.rates
        position = torch.stack((angle.sin(), angle.cos()), -1).reshape(1, core.model_dim).float()
        z = x @ self.w_embed + self.b_embed + position
        new_keys, new_values = [], []
        for i in range(core.num_layers):
            qkv = self._normal(f"attention{i}", z) @ self._of("w_qkv", i)
            q, k, v = qkv.reshape(3, 1, core.num_heads, 1, core.head_dim).unbind(0)
            new_keys.append(torch.cat((keys[i], k), 2))
            new_values.append(torch.cat((values[i], v), 2))
            scores = (q / math.sqrt(core.head_dim)) @ new_keys[i].mT
            mixed = (scores.softmax(-1) @ new_values[i]).reshape(1, core.model_dim)
            z = z + mixed @ self._of("w_mix", i) + self._of("b_mix", i)
            hidden = torch.relu(self._normal(f"mlp{i}", z) @ self._of("w_up", i) + self._of("b_up", i))
            z = z + hidden @ self._of("w_down", i) + self._of("b_down", i)
        return self._normal("output", z), (torch.stack(new_keys), torch.stack(new_values), steps + 1)

    def _of(self, name: str, layer: int) -> Tensor:
        value: Tensor = getattr(self, f"{name}{layer}")
        return value

    def _normal(self, name: str, z: Tensor) -> Tensor:
        gain, shift = getattr(self, f"gain_{name}"), getattr(self, f"shift_{name}")
        return torch.nn.functional.layer_norm(z, z.shape[-1:], gain, shift, EPSILON)
