"""A gated recurrent unit whose backward pass is written out: torch for learning, NumPy for acting.

    r, z = sigmoid(W_rz x + U_rz h + b_rz)      n = tanh(W_n x + b_n + r * (U_n h + c_n))      h' = n + z * (h - n)

Automatic differentiation spends most of its time on small elementwise steps and on a weight gradient at every step.
With a = dL/dh' everything that multiplies a is known once the forward pass is done, so it is computed for blocks of
time that stay in cache, the recursion is left with four operations a step, and the weights' gradient is one product:

    dr = a (1-z)(1-n^2) (U_n h + c_n) r(1-r)      dz = a (h-n) z(1-z)      dn = a (1-z)(1-n^2)      d(U_n h) = r dn
    a_{t-1} = dL/dh_{t-1} + z a + [dr, dz, d(U_n h)] U

Parameters are named and laid out as in torch.nn.GRU, gates in the order r, z, n. Source: Cho et al. 2014, with the
reset gate after the product (as in cuDNN). Letters: T time, B rows, D input, H hidden.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metarl.kernels._torch_private import gru_sequence
from metarl.kernels.initialisation import orthogonal
from metarl.kernels.products import linear, product

_BLOCK = 8  # time steps whose coefficients are computed together: they stay in cache


@dataclass(frozen=True)
class GRU:
    """A causal core: whole sequences in torch, single steps in NumPy. Its memory is h."""

    input_dim: int
    hidden_dim: int

    @property
    def output_dim(self) -> int:
        return self.hidden_dim

    def init(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Orthogonal matrices per gate, zero biases."""
        H = self.hidden_dim

        def gates(columns: int) -> Tensor:
            return torch.cat([orthogonal((H, columns), generator) for _ in range(3)])

        biases = {name: torch.zeros(3 * H) for name in ("b_ih", "b_hh")}
        return {"w_ih": gates(self.input_dim), "w_hh": gates(H), **biases}

    def sequence(
        self, params: Mapping[str, Tensor], x: Float[Tensor, "T B D"], memory: Tensor | None = None
    ) -> tuple[Float[Tensor, "T B H"], Tensor]:
        """Outputs h_1 .. h_T from `memory` [B, H] (zeros without one), and the memory after the last step."""
        h = x.new_zeros(x.shape[1], self.hidden_dim) if memory is None else memory
        w_ih, w_hh, b_ih, b_hh = (params[name] for name in ("w_ih", "w_hh", "b_ih", "b_hh"))
        if x.is_cuda:  # cuDNN keeps the whole recursion in one kernel
            return gru_sequence(x, h, [w_ih, w_hh, b_ih, b_hh])
        (W_rz, W_n), (b_rz, b_n), (c_rz, c_n) = (
            p.split([2 * self.hidden_dim, self.hidden_dim]) for p in (w_ih, b_ih, b_hh)
        )
        gates = linear(x, torch.cat((W_n, W_rz)), torch.cat((b_n, b_rz + c_rz)))
        outputs = _Recursion.apply(gates, h, w_hh, c_n)
        return outputs, outputs[-1]

    def initial(self, rows: int) -> np.ndarray:
        """The memory [B, H] at a trial's start: zeros."""
        return np.zeros((rows, self.hidden_dim), np.float32)

    def step(
        self, params: Mapping[str, np.ndarray], x: np.ndarray, memory: np.ndarray, running: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """One step on x [B, D]: output [B, H] and memory. Rows where `running` [B] is False keep theirs, and their
        output is that of their last step."""
        H = self.hidden_dim
        gates = x @ params["w_ih"].T
        gates += params["b_ih"]
        from_memory = memory @ params["w_hh"].T
        from_memory += params["b_hh"]
        rz = gates[:, : 2 * H]
        rz += from_memory[:, : 2 * H]
        rz *= 0.5
        np.tanh(rz, out=rz)  # sigmoid(x) = (1 + tanh(x / 2)) / 2
        rz += 1
        rz *= 0.5
        n = from_memory[:, 2 * H :]
        n *= rz[:, :H]
        n += gates[:, 2 * H :]
        np.tanh(n, out=n)
        h = memory - n
        h *= rz[:, H:]
        h += n
        if not running.all():
            h = np.where(running[:, None], h, memory)
        return h, h


class _Recursion(torch.autograd.Function):
    """(W x + b [T, B, 3H] in the order n, r, z; h_0; U [3H, H]; c_n) -> h_1 .. h_T."""

    @staticmethod
    def forward(ctx: Any, gates: Tensor, h_0: Tensor, U: Tensor, c_n: Tensor) -> Tensor:
        T, B, H = *gates.shape[:2], h_0.shape[1]
        U_rz, U_n = U[: 2 * H].T.contiguous(), U[2 * H :].T.contiguous()
        rz, n, Uh = gates.new_empty(T, B, 2 * H), gates.new_empty(T, B, H), gates.new_empty(T, B, H)
        h = gates.new_empty(T + 1, B, H)
        h[0] = h_0
        rows = (gates[..., :H], gates[..., H:], rz, rz[..., :H], rz[..., H:], n, Uh, h[:-1], h[1:])
        for x_n_t, x_rz_t, rz_t, r_t, z_t, n_t, Uh_t, h_tm1, h_t in zip(*(a.unbind(0) for a in rows), strict=True):
            torch.addmm(x_rz_t, h_tm1, U_rz, out=rz_t).sigmoid_()
            torch.addmm(c_n, h_tm1, U_n, out=Uh_t)
            torch.addcmul(x_n_t, r_t, Uh_t, out=n_t).tanh_()
            torch.lerp(n_t, h_tm1, z_t, out=h_t)
        ctx.save_for_backward(rz, n, Uh, h, U)
        return h[1:]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_outputs: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        rz, n, Uh, h, U = ctx.saved_tensors
        T, B, H = n.shape
        d = n.new_empty(T, B, 5 * H)  # dL/d of: W_n x, both parts of r, of z, U_n h; and z * a
        a = n.new_zeros(B, H)
        for end in range(T, 0, -_BLOCK):
            block = slice(max(0, end - _BLOCK), end)
            d_block = d[block]
            arrays = (
                d_outputs[block],
                _coefficients(rz[block], n[block], Uh[block], h[block]),
                d_block.unflatten(-1, (5, H)),
                d_block[..., H : 4 * H],
                d_block[..., 4 * H :],
            )
            steps = list(zip(*(x.unbind(0) for x in arrays), strict=True))
            for d_output_t, coefficients_t, d_t, d_Uh_t, z_a_t in reversed(steps):
                torch.mul(a.add_(d_output_t)[:, None], coefficients_t, out=d_t)
                torch.addmm(z_a_t, d_Uh_t, U, out=a)
        rows = d.view(T * B, 5 * H)
        d_U = product(rows[:, H : 4 * H].T, h[:-1].reshape(T * B, H))
        return d[..., : 3 * H].contiguous(), a, d_U, rows[:, 3 * H : 4 * H].sum(0)


def _coefficients(rz: Tensor, n: Tensor, Uh: Tensor, h_tm1: Tensor) -> Tensor:
    """What multiplies a_t in dn, dr, dz, d(U_n h) and in what is carried on: [S, B, 5, H] for a block of S steps."""
    r, z = rz.chunk(2, dim=-1)
    c = n.new_empty(*n.shape[:2], 5, n.shape[2])
    to_n = torch.mul(1 - z, 1 - n * n, out=c[:, :, 0])
    torch.mul(to_n, Uh, out=c[:, :, 1]).mul_(r - r * r)
    torch.mul(h_tm1 - n, z - z * z, out=c[:, :, 2])
    torch.mul(to_n, r, out=c[:, :, 3])
    c[:, :, 4] = z
    return c
