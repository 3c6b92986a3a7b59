"""ReLU multilayer perceptrons over parameter dicts, one or several of the same shape side by side.

Letters: E members, B samples, D input, F output.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


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
