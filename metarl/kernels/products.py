"""Matrix products by the fastest library at hand.

On a CPU torch multiplies float32 matrices with its BLAS, which on some processors (`processor.py`) leaves half of the
units idle; oneDNN, which torch also brings, does not. Small products go to the BLAS: it starts sooner. Which one
multiplies depends on the type of processor and on the shapes, so that results repeat.

`product` has no derivative; `linear` has.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.kernels._torch_private import multiply_onednn
from metarl.kernels.processor import onednn_float32_pays

USES_ONEDNN = torch.backends.mkldnn.is_available() and onednn_float32_pays()

_SMALL = 2**21  # multiplications


def product(
    a: Float[Tensor, "M D"], b: Float[Tensor, "D N"], bias: Float[Tensor, " N"] | None = None
) -> Float[Tensor, "M N"]:
    """a b, plus `bias` on every row. Not differentiable."""
    M, D, N = *a.shape, b.shape[1]
    if a.device.type != "cpu" or a.dtype != torch.float32 or M * D * N < _SMALL or not USES_ONEDNN:
        return a @ b if bias is None else torch.addmm(bias, a, b)
    if bias is None and N < M < D:  # long sums, as in weights' gradients, are faster with fewer rows than columns
        return product(b.T, a.T).T
    return multiply_onednn(_dense(a), _dense(b), bias)


def _dense(x: Tensor) -> Tensor:
    """Stored by rows or by columns without gaps: with gaps oneDNN can be a thousand times as slow."""
    return x if x.is_contiguous() or x.T.is_contiguous() else x.contiguous()


def linear(x: Float[Tensor, "*batch D"], w: Float[Tensor, "F D"], b: Float[Tensor, " F"]) -> Float[Tensor, "*batch F"]:
    """x w' + b, once differentiable in all three."""
    output: Tensor = _Linear.apply(x.reshape(-1, x.shape[-1]), w, b)
    return output.unflatten(0, x.shape[:-1])


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        return product(x, w.T, b)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        (x, w), (x_needs, w_needs, b_needs) = ctx.saved_tensors, ctx.needs_input_grad
        return (
            product(d, w) if x_needs else None,
            product(d.T, x) if w_needs else None,
            d.sum(0) if b_needs else None,
        )
