"""ReLU multilayer perceptrons over parameter dicts, one or several of the same shape side by side.

On a CPU the passes are written out: some rows go through all layers while they are in cache, the rectifier works in
place, and gradients that nobody asked for are not computed.

Letters: E members, B samples, D input, F output.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metarl.kernels._torch_private import relu_slope_
from metarl.kernels.products import product

_BLOCK = 512  # rows that go through all layers together


@dataclass(frozen=True)
class ReluMLP:
    """`sizes` from input to output; parameters `{name}.w0` [E, D, F] or, without `members`, [D, F], and so on."""

    name: str
    sizes: tuple[int, ...]
    members: int | None = None

    def init(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Uniform by fan-in, biases 0.1 as in the reference; the last layer within 3e-3, so outputs start near 0."""
        params = {}
        lead = () if self.members is None else (self.members,)
        layers = list(itertools.pairwise(self.sizes))
        for i, (fan_in, fan_out) in enumerate(layers):
            is_last = i == len(layers) - 1
            bound = 3e-3 if is_last else 1 / math.sqrt(fan_in)
            weights = (2 * torch.rand(*lead, fan_in, fan_out, generator=generator) - 1) * bound
            params[f"{self.name}.w{i}"] = weights
            params[f"{self.name}.b{i}"] = torch.full((*lead, fan_out), 0.0 if is_last else 0.1)
        return params

    def __call__(self, params: Mapping[str, Tensor], x: Float[Tensor, "*batch B D"]) -> Float[Tensor, "*out B F"]:
        """The output; every member sees the same `x` [B, D] and answers in [E, B, F]."""
        names = [f"{self.name}.{kind}{i}" for i in range(len(self.sizes) - 1) for kind in "wb"]
        if x.device.type == "cpu" and not torch.is_autocast_enabled("cpu"):
            rows = x.reshape(-1, x.shape[-1])
            if self.members is None:
                return _Passes.apply(rows, *(params[name] for name in names)).unflatten(0, x.shape[:-1])
            members = zip(*(params[name].unbind() for name in names), strict=True)
            return torch.stack([_Passes.apply(rows, *member) for member in members])
        for i in range(len(self.sizes) - 1):
            w, b = params[f"{self.name}.w{i}"], params[f"{self.name}.b{i}"]
            if self.members is None:
                x = torch.nn.functional.linear(x, w.mT, b)
            else:
                x = torch.baddbmm(b[:, None], x if x.ndim == 3 else x.expand(self.members, *x.shape), w)
            if i < len(self.sizes) - 2:
                x = torch.relu(x)
        return x

    def act(self, params: Mapping[str, np.ndarray], x: np.ndarray) -> np.ndarray:
        """The same in NumPy for one member: [B, D] to [B, F]."""
        for i in range(len(self.sizes) - 1):
            x = x @ params[f"{self.name}.w{i}"]
            x += params[f"{self.name}.b{i}"]
            if i < len(self.sizes) - 2:
                np.maximum(x, 0, out=x)
        return x


class _Passes(torch.autograd.Function):
    """(x [B, D], w_0, b_0, w_1, b_1, ...) -> output [B, F] of one member, once differentiable in all."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *params: Tensor) -> Tensor:
        layers = list(zip(params[::2], params[1::2], strict=True))
        inputs: list[Tensor] = []  # of all layers, block by block
        outputs: list[Tensor] = []
        for h in x.split(_BLOCK):
            for i, (w, b) in enumerate(layers):
                inputs.append(h)
                h = product(h, w, b)
                if i < len(layers) - 1:
                    h.relu_()
            outputs.append(h)
        ctx.save_for_backward(*inputs, *params)
        ctx.num_inputs = len(inputs)
        return torch.cat(outputs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor | None, ...]:
        inputs, params = ctx.saved_tensors[: ctx.num_inputs], ctx.saved_tensors[ctx.num_inputs :]
        x_needs, *needs = ctx.needs_input_grad
        gradients = [torch.zeros_like(p) if need else None for p, need in zip(params, needs, strict=True)]
        num_layers = len(params) // 2
        d_x: list[Tensor] = []
        for block, d_block in enumerate(d.split(_BLOCK)):
            for i in reversed(range(num_layers)):
                h = inputs[block * num_layers + i]
                d_w, d_b = gradients[2 * i : 2 * i + 2]
                if d_w is not None:
                    d_w += product(h.T, d_block)
                if d_b is not None:
                    d_b += d_block.sum(0)
                if i > 0:
                    d_block = product(d_block, params[2 * i].T)
                    relu_slope_(d_block, h)
                elif x_needs:
                    d_x.append(product(d_block, params[0].T))
        return (torch.cat(d_x) if x_needs else None, *gradients)
