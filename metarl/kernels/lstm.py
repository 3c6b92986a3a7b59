"""A long short-term memory over parameter dicts: sequences in torch for learning, steps in NumPy for acting.

Hochreiter & Schmidhuber, "Long short-term memory" (1997), with the forget gate of Gers et al. (2000). Symbols: x_t
input, h_t output, c_t cell, sigma the logistic function, * elementwise.

    i_t, f_t, o_t = sigma(W x_t + U h_{t-1} + b), each with its own W, U, b
    g_t = tanh(W x_t + U h_{t-1} + b)
    c_t = f_t * c_{t-1} + i_t * g_t
    h_t = o_t * tanh(c_t)

Letters: T time, B rows (streams), D input, H hidden. Parameters are torch.nn.LSTM's: w_ih [4H, D], w_hh [4H, H],
b_ih [4H], b_hh [4H], gates in the order i, f, g, o. The memory is (h, c), each [B, H].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.kernels._torch_private import lstm_sequence
from metarl.kernels.initialisation import orthogonal

NUM_GATES = 4


@dataclass(frozen=True)
class LSTM:
    """One layer."""

    input_dim: int
    hidden_dim: int

    @property
    def output_dim(self) -> int:
        return self.hidden_dim

    def init(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Fresh parameters, gate by gate: Glorot-uniform w_ih, orthogonal w_hh (a gradient through time neither grows
        nor shrinks by U), zero biases except 1 for the forget gate (Gers et al. 2000: the cell remembers at first)."""
        w_ih = torch.empty(NUM_GATES, self.hidden_dim, self.input_dim)
        w_hh = torch.empty(NUM_GATES, self.hidden_dim, self.hidden_dim)
        for gate in range(NUM_GATES):
            torch.nn.init.xavier_uniform_(w_ih[gate], generator=generator)
            w_hh[gate] = orthogonal((self.hidden_dim, self.hidden_dim), generator)
        b_ih = torch.zeros(NUM_GATES, self.hidden_dim)
        b_ih[1] = 1  # the two biases only ever act as their sum
        return {
            "w_ih": w_ih.flatten(0, 1),
            "w_hh": w_hh.flatten(0, 1),
            "b_ih": b_ih.flatten(),
            "b_hh": torch.zeros(NUM_GATES * self.hidden_dim),
        }

    def sequence(
        self,
        params: Mapping[str, Tensor],
        x: Float[Tensor, "T B D"],
        memory: tuple[Float[Tensor, "B H"], Float[Tensor, "B H"]] | None = None,
    ) -> tuple[Float[Tensor, "T B H"], tuple[Float[Tensor, "B H"], Float[Tensor, "B H"]]]:
        """h_1 .. h_T from `memory` (None: zeros, the start of a trial), and (h_T, c_T). Differentiable in all three."""
        if memory is None:
            memory = (x.new_zeros(x.shape[1], self.hidden_dim), x.new_zeros(x.shape[1], self.hidden_dim))
        weights = [params[name] for name in ("w_ih", "w_hh", "b_ih", "b_hh")]
        output, h, c = lstm_sequence(x, *memory, weights)
        return output, (h, c)

    def initial(self, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """The empty memory, two float32 [B, H]."""
        return np.zeros((rows, self.hidden_dim), np.float32), np.zeros((rows, self.hidden_dim), np.float32)

    def step(
        self,
        params: Mapping[str, np.ndarray],
        x: Float[np.ndarray, "B D"],
        memory: tuple[Float[np.ndarray, "B H"], Float[np.ndarray, "B H"]],
        running: Bool[np.ndarray, " B"],
    ) -> tuple[Float[np.ndarray, "B H"], tuple[Float[np.ndarray, "B H"], Float[np.ndarray, "B H"]]]:
        """One step of `sequence` in float32. A row that is not `running` keeps its memory, and its output is that
        of its last step. `memory` itself is left as it was."""
        h, c = memory
        gates = x @ params["w_ih"].T
        gates += h @ params["w_hh"].T
        gates += params["b_ih"] + params["b_hh"]
        i, f, g, o = np.split(gates, NUM_GATES, axis=1)
        c_t = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
        h_t = _sigmoid(o) * np.tanh(c_t)
        if not running.all():
            h_t, c_t = np.where(running[:, None], h_t, h), np.where(running[:, None], c_t, c)
        return h_t, (h_t, c_t)


def _sigmoid(z: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-z)) as (1 + tanh(z / 2)) / 2, which cannot overflow."""
    return 0.5 + 0.5 * np.tanh(0.5 * z)
