"""The actor-critic of recurrent meta-reinforcement learning: torch on whole trials, NumPy one step at a time.

    inputs    observation, previous action, previous reward, episode boundary  -- each its own linear map, ReLU
    core      GRU, LSTM or transformer over the encoded inputs                 -- the memory
    heads     policy and critic see the core's output and the encoded observation: one tanh layer each

The four maps are one block-diagonal product, the heads' first layers another. `Memoryless` is the same net whose
core starts anew at every step. Letters: T time, B rows, O observation, P previous action, D encoded, H core.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metarl.kernels.initialisation import orthogonal
from metarl.kernels.products import linear
from metarl.ops.distributions import Categorical, Distribution, Gaussian

Memory = Any

_ENCODED = {"action": 16, "reward": 16, "boundary": 8}
_CORE = "core."


@runtime_checkable
class Core(Protocol):
    """A causal sequence model. `sequence` and `step` compute the same."""

    @property
    def input_dim(self) -> int: ...

    @property
    def output_dim(self) -> int: ...

    def init(self, generator: torch.Generator) -> dict[str, Tensor]: ...

    def sequence(
        self, params: Mapping[str, Tensor], x: Float[Tensor, "T B D"], memory: Memory = None
    ) -> tuple[Float[Tensor, "T B H"], Memory]:
        """Outputs of a whole sequence from `memory` (None: a trial's start), and the memory after it."""
        ...

    def initial(self, rows: int) -> Memory:
        """The memory at a trial's start, in NumPy."""
        ...

    def step(
        self, params: Mapping[str, np.ndarray], x: np.ndarray, memory: Memory, running: np.ndarray
    ) -> tuple[np.ndarray, Memory]:
        """One step in NumPy; rows where `running` is False keep their memory."""
        ...


@dataclass(frozen=True)
class Memoryless:
    """A core whose memory is cleared before every step: the same parameters, no context."""

    core: Any

    @property
    def input_dim(self) -> int:
        return int(self.core.input_dim)

    @property
    def output_dim(self) -> int:
        return int(self.core.output_dim)

    def init(self, generator: torch.Generator) -> dict[str, Tensor]:
        return dict(self.core.init(generator))

    def sequence(
        self, params: Mapping[str, Tensor], x: Float[Tensor, "T B D"], memory: Memory = None
    ) -> tuple[Float[Tensor, "T B H"], Memory]:
        outputs, _ = self.core.sequence(params, x.flatten(0, 1)[None])
        return outputs[0].unflatten(0, x.shape[:2]), None

    def initial(self, rows: int) -> Memory:
        return None

    def step(
        self, params: Mapping[str, np.ndarray], x: np.ndarray, memory: Memory, running: np.ndarray
    ) -> tuple[np.ndarray, Memory]:
        output, _ = self.core.step(params, x, self.core.initial(len(x)), np.ones(len(x), bool))
        return output, None


@dataclass(frozen=True)
class RecurrentPolicy:
    """Gaussian with state-independent log-std for continuous actions, softmax for discrete ones; and a critic.

    `unbounded` lists the dimensions of a continuous action that have no range; the others are given in [-1, 1].
    The floor `min_std` has derivative 0 below it: `metarl.ops.distributions.project_log_std_` belongs after every
    optimiser step.
    """

    obs_dim: int
    action_dim: int
    discrete: bool
    core: Core
    encoded_obs_dim: int
    head_dim: int
    init_std: float
    min_std: float
    unbounded: tuple[int, ...] = ()

    @staticmethod
    def encoded_dim(encoded_obs_dim: int) -> int:
        """The core's input dimension D."""
        return encoded_obs_dim + sum(_ENCODED.values())

    @property
    def input_dim(self) -> int:
        """O + P + 2: what a row of `inputs` holds, in the order observation, action, reward, boundary."""
        return self.obs_dim + self.action_dim + 2

    def init(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Orthogonal matrices; the policy's last layer is a hundredth of that, so that first actions are near 0."""
        params = {}
        ins = {"obs": self.obs_dim, "action": self.action_dim, "reward": 1, "boundary": 1}
        for name, fan_in in ins.items():
            out = _ENCODED.get(name, self.encoded_obs_dim)
            params[f"{name}.w"], params[f"{name}.b"] = (
                orthogonal((out, fan_in), generator, math.sqrt(2)),
                torch.zeros(out),
            )
        params |= {_CORE + name: value for name, value in self.core.init(generator).items()}
        features = self.core.output_dim + self.encoded_obs_dim
        for head, outputs, gain in (("policy", self.action_dim, 0.01), ("critic", 1, 1.0)):
            params[f"{head}.w0"] = orthogonal((self.head_dim, features), generator)
            params[f"{head}.b0"] = torch.zeros(self.head_dim)
            params[f"{head}.w1"] = orthogonal((outputs, self.head_dim), generator, gain)
            params[f"{head}.b1"] = torch.zeros(outputs)
        if not self.discrete:
            params["log_std"] = torch.full((self.action_dim,), math.log(self.init_std))
        return params

    # --- torch: whole trials ---

    def forward(
        self, params: Mapping[str, Tensor], inputs: Float[Tensor, "T B I"], segment: int | None = None
    ) -> tuple[Distribution, Float[Tensor, "T B"]]:
        """Action distributions and values at every step of trials that start with an empty memory.

        With `segment`, gradients do not flow from one stretch of so many steps to the one before.
        """
        encoded = torch.relu(linear(inputs, *self._encoder(params)))
        core_params = {n.removeprefix(_CORE): value for n, value in params.items() if n.startswith(_CORE)}
        outputs, memory = [], None
        for part in encoded.split(segment or len(encoded)):
            output, memory = self.core.sequence(core_params, part, memory)
            memory = _detached(memory)
            outputs.append(output)
        features = torch.cat((torch.cat(outputs), encoded[..., : self.encoded_obs_dim]), dim=-1)
        w0 = torch.cat((params["policy.w0"], params["critic.w0"]))
        hidden = torch.tanh(linear(features, w0, torch.cat((params["policy.b0"], params["critic.b0"]))))
        policy_hidden, critic_hidden = hidden.split(self.head_dim, dim=-1)
        output = linear(policy_hidden, params["policy.w1"], params["policy.b1"])
        values = linear(critic_hidden, params["critic.w1"], params["critic.b1"])[..., 0]
        if self.discrete:
            return Categorical(output), values
        return Gaussian(output, params["log_std"].clamp_min(math.log(self.min_std))), values

    def _encoder(self, params: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        names = ("obs", *_ENCODED)
        biases = torch.cat([params[f"{name}.b"] for name in names])
        return torch.block_diag(*(params[f"{name}.w"] for name in names)), biases

    # --- NumPy: acting ---

    def prepared(self, weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The parameters as `step` wants them: joined once, not at every step."""
        tensors = {name: torch.from_numpy(np.array(weights[name])) for name in weights}
        encoder_w, encoder_b = self._encoder(tensors)
        joined = {name: value for name, value in weights.items() if name.startswith(("policy.", "critic.", "log_std"))}
        joined |= {name.removeprefix(_CORE): value for name, value in weights.items() if name.startswith(_CORE)}
        joined |= {"encoder.w": encoder_w.numpy(), "encoder.b": encoder_b.numpy()}
        joined["heads.w0"] = np.concatenate((weights["policy.w0"], weights["critic.w0"]))
        joined["heads.b0"] = np.concatenate((weights["policy.b0"], weights["critic.b0"]))
        return joined

    def step(
        self, prepared: Mapping[str, np.ndarray], inputs: np.ndarray, memory: Memory, running: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, Memory]:
        """Core outputs [B, H], encoded observations [B, E] and memory after one step on `inputs` [B, I]."""
        encoded = inputs @ prepared["encoder.w"].T
        encoded += prepared["encoder.b"]
        np.maximum(encoded, 0, out=encoded)
        output, memory = self.core.step(prepared, encoded, memory, running)
        return output, encoded[:, : self.encoded_obs_dim], memory

    def heads(
        self, prepared: Mapping[str, np.ndarray], core: np.ndarray, encoded_obs: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Means or logits [B, A] and values [B]."""
        hidden = np.concatenate((core, encoded_obs), axis=1) @ prepared["heads.w0"].T
        hidden += prepared["heads.b0"]
        np.tanh(hidden, out=hidden)
        output = hidden[:, : self.head_dim] @ prepared["policy.w1"].T + prepared["policy.b1"]
        values = hidden[:, self.head_dim :] @ prepared["critic.w1"].T + prepared["critic.b1"]
        return output, values[:, 0]

    def log_std(self, weights: Mapping[str, np.ndarray]) -> np.ndarray:
        """[A] float32, with the floor applied."""
        return np.maximum(weights["log_std"], np.float32(math.log(self.min_std)))


def _detached(memory: Memory) -> Memory:
    if isinstance(memory, tuple):
        return tuple(part.detach() for part in memory)
    return None if memory is None else memory.detach()
