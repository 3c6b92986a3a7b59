"""The MAML family as graphs: acting with parameters that are inputs, and the inner step, its gradient written out.

At the parameters that collected the round, every inner objective has the same gradient:

    grad L = - (1 / n) sum_t A_t grad log pi(a_t | o_t)                n real steps, A_t standardised advantages

    Gaussian       d log pi / d mean = (a - mean) / std^2,  d log pi / d log std = (a - mean)^2 / std^2 - 1
    categorical    d log pi / d logits = onehot(a) - softmax(logits)

Letters: S episodes, T steps, B = S T, O observation, A action, F features of the baseline.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from metarl.algorithms.graphs import Graph, PolicyGraphs, Port, Rounds, episode_ports, noise_port, state_ports
from metarl.algorithms.maml.policy import MAMLPolicy
from metarl.kernels._torch_private import repeat_while
from metarl.ops.returns import baseline_features

_RIDGE, _PASSES, _EPSILON = 1e-5, 2, 1e-8  # of metarl.ops.returns


def maml_graphs(policy: MAMLPolicy, weights: Mapping[str, np.ndarray], rounds: Rounds) -> PolicyGraphs:
    """The graphs of a policy with these weights."""
    start = policy.begin_trial(weights, 1, 1, np.random.default_rng(0))
    rates, net = start.rates, policy.net
    initial = {name: np.asarray(value, np.float32) for name, value in start.theta.items()}
    states, following = state_ports(initial, "state"), state_ports(initial, "next")
    shape, A = (1, net.action_dim), net.action_dim
    noise = noise_port(shape, net.discrete)
    action = Port("action", (1,), "int64") if net.discrete else Port("action", shape)
    act = Graph(_Act(policy, tuple(initial)), (Port("observation", (1, net.obs_dim)), noise, *states), (action,))
    data = tuple(episode_ports(rounds, net.obs_dim, A, net.discrete).values())
    adapt = Graph(_Adapt(policy, tuple(initial), rates, rounds.horizon), (*data, *states), following)
    return PolicyGraphs(act, initial, adapt)


class _Act(torch.nn.Module):
    def __init__(self, policy: MAMLPolicy, names: tuple[str, ...]):
        super().__init__()
        self.discrete, self.num_layers = policy.net.discrete, policy.net.num_layers
        self.names, self.lowest = names, math.log(policy.net.min_std)

    def forward(self, observation: Tensor, noise: Tensor, *state: Tensor) -> tuple[Tensor]:
        params = dict(zip(self.names, state, strict=True))
        output = _activations(params, observation, self.num_layers)[-1]
        if self.discrete:
            return ((output.double() + noise).argmax(-1),)
        return (output + params["log_std"].clamp_min(self.lowest).exp() * noise,)


class _Adapt(torch.nn.Module):
    time: Tensor

    def __init__(self, policy: MAMLPolicy, names: tuple[str, ...], rates: Mapping[str, np.ndarray], horizon: int):
        super().__init__()
        self.config, self.net, self.names = policy.config, policy.net, names
        for name in names:
            self.register_buffer(f"rate_{name}", torch.tensor(rates[name], dtype=torch.float32))
        features = baseline_features(torch.zeros(horizon, 1), policy.config.gamma, policy.config.baseline)
        self.register_buffer("time", features[:, 2:-1])  # those of time alone: behind o and o^2, before the constant

    def forward(
        self,
        observations: Tensor,
        actions: Tensor,
        rewards: Tensor,
        lengths: Tensor,
        truncated: Tensor,
        last_observations: Tensor,
        *state: Tensor,
    ) -> tuple[Tensor, ...]:
        params = dict(zip(self.names, state, strict=True))
        mask = torch.arange(rewards.shape[1])[None] < lengths[:, None]
        advantages = self._advantages(observations, rewards, mask, truncated, last_observations).float()
        weight = -(advantages / mask.sum()).flatten()[:, None]
        hidden = _activations(params, observations.flatten(0, 1), self.net.num_layers)
        gradients: dict[str, Tensor] = {}
        if self.net.discrete:
            chosen = torch.nn.functional.one_hot(actions.flatten(), self.net.action_dim)
            d = weight * (chosen - hidden[-1].softmax(-1))
        else:
            log_std, lowest = params["log_std"], math.log(self.net.min_std)
            scaled = (actions.flatten(0, 1) - hidden[-1]) * (-log_std.clamp_min(lowest)).exp()
            d = weight * scaled * (-log_std.clamp_min(lowest)).exp()
            gradients["log_std"] = (weight * (scaled * scaled - 1)).sum(0) * (log_std >= lowest)
        for i in reversed(range(self.net.num_layers)):
            gradients[f"w{i}"], gradients[f"b{i}"] = hidden[i].mT @ d, d.sum(0)
            d = (d @ params[f"w{i}"].mT) * (1 - hidden[i] * hidden[i])
        return tuple(self._stepped(name, params[name], gradients[name]) for name in self.names)

    def _stepped(self, name: str, value: Tensor, gradient: Tensor) -> Tensor:
        after = value - getattr(self, f"rate_{name}") * gradient
        return torch.maximum(after, value.clamp_max(math.log(self.net.min_std))) if name == "log_std" else after

    # --- metarl.ops.returns.linear_baseline_advantages, without its loops over time ---

    def _advantages(
        self, observations: Tensor, rewards: Tensor, mask: Tensor, truncated: Tensor, last_observations: Tensor
    ) -> Tensor:
        c, real = self.config, mask.double()
        rewards = rewards.double() * real
        returns = _discounted_sums(rewards, c.gamma)
        o = observations.double().clamp(-10, 10)
        one = torch.ones_like(o[..., :1])
        last_values = torch.zeros_like(returns[:, 0])
        if c.bootstrap_truncated:
            features = torch.cat((o, o * o, one), -1)
            last_o = last_observations.double().clamp(-10, 10)
            last_features = torch.cat((last_o, last_o * last_o, torch.ones_like(last_o[..., :1])), -1)
            left = _discounted_sums(real, 1.0)
            discount = c.gamma**left * real * truncated[:, None]
            last_values = last_values + returns.sum() / (real - discount).sum()
            for _ in range(_PASSES):
                weights = _fitted(features, returns + discount * last_values[:, None], real)
                last_values = (last_features @ weights)[:, 0]
            last_values = last_values * truncated
        else:
            time = self.time[None].expand(len(o), -1, -1)
            features = torch.cat((o, o * o, time, one), -1)
            weights = _fitted(features, returns, real)
        v_t = (features @ weights)[..., 0] * real
        later = torch.cat((real[:, 1:], torch.zeros_like(real[:, :1])), 1)
        v_tp1 = torch.cat((v_t[:, 1:], torch.zeros_like(v_t[:, :1])), 1) + (real - later) * last_values[:, None]
        advantages = _discounted_sums((rewards + c.gamma * v_tp1 - v_t) * real, c.gamma * c.gae_lambda) * real
        deviation = (advantages - advantages.sum() / real.sum()) * real
        return deviation / (((deviation * deviation).sum() / real.sum()).sqrt() + _EPSILON)


def _activations(params: Mapping[str, Tensor], x: Tensor, num_layers: int) -> list[Tensor]:
    """The inputs of all layers, and the output."""
    layers = [x]
    for i in range(num_layers):
        z = layers[-1] @ params[f"w{i}"] + params[f"b{i}"]
        layers.append(torch.tanh(z) if i < num_layers - 1 else z)
    return layers


def _discounted_sums(x: Tensor, factor: float) -> Tensor:
    """y_t = sum over s >= t of factor^(s - t) x_s, as one product [S, T] x [T, T]."""
    t = torch.arange(x.shape[1])
    after = t[:, None] - t[None]  # [s, t]
    base = torch.tensor(factor, dtype=torch.float64)  # a number would be one of float32 in the graph
    return x @ torch.where(after >= 0, base ** after.clamp_min(0), torch.zeros((), dtype=torch.float64))


def _fitted(features: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """Ridge regression over real steps, (X'X + ridge I) w = X'y; [F, 1] float64."""
    X, y = (features * mask[..., None]).flatten(0, 1), (targets * mask).flatten()[:, None]
    ridge = torch.tensor(_RIDGE, dtype=torch.float64) * torch.eye(X.shape[-1], dtype=X.dtype)
    return _solved(X.mT @ X + ridge, X.mT @ y)


def _solved(matrix: Tensor, right: Tensor) -> Tensor:
    """x [F, 1] of `matrix` x = `right` by Gauss-Jordan elimination, a loop in the graph: ONNX has no solver.

    The matrix is symmetric and positive definite, so that no row need be exchanged. Matrices have two axes everywhere:
    onnxruntime 1.32 takes the product of a transposed matrix and a vector for another one.
    """
    size = matrix.shape[0]
    index = torch.arange(size)

    def goes_on(j: Tensor, rows: Tensor) -> Tensor:
        return j < size

    def eliminate(j: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        at = (index == j).to(rows.dtype)[:, None]
        column = rows[:, :size] @ at
        row = (at * rows).sum(0, keepdim=True) / (at * column).sum()
        return j + 1, (1 - at) * rows + (at - (1 - at) * column) * row

    _, rows = repeat_while(goes_on, eliminate, (torch.tensor(0), torch.cat((matrix, right), 1)))
    return rows[:, size:]
