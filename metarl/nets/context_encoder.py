"""Encoders of a context: what rows of data say about a latent z, as Gaussian evidence that a posterior is formed from.

    permutation invariant    every row is a factor N(z; mu(c_n), var(c_n)), in whatever order      Rakelly et al. 2019
    recurrent                a GRU reads the rows in order; what it holds after the last one       Duan et al. 2016
                             is a single factor N(z; mu(h_n), var(h_n))

Both read on from where they stopped, so that a further row costs the same however many came before, and an empty
context is no evidence: the posterior is then the prior itself. Letters: B contexts, C rows, D features, E encoded and
hidden units, Z latent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import linear, softplus

from metarl.kernels.gru import GRU
from metarl.kernels.initialisation import orthogonal
from metarl.kernels.relu_mlp import ReluMLP
from metarl.ops.latents import Evidence, gather_evidence

MIN_VAR = 1e-7

Memory = Any


class ContextEncoder(Protocol):
    """`read` takes in rows, `evidence` says what all of them amount to. Reading in parts equals reading at once."""

    @property
    def name(self) -> str:
        """All its parameters' names begin with `{name}.`."""
        ...

    @property
    def ordered(self) -> bool:
        """Whether the order of the rows matters."""
        ...

    def init(self, generator: torch.Generator) -> dict[str, Tensor]: ...

    def initial(self, rows: int) -> Memory:
        """What `rows` empty contexts are remembered by, on the host."""
        ...

    def read(
        self,
        params: Mapping[str, Tensor],
        x: Float[Tensor, "B C D"],
        memory: Memory = None,
        mask: Float[Tensor, "B C"] | None = None,
    ) -> Memory:
        """The memory after the rows `x` [B, C, D] of B contexts, read after those in `memory` (None: the first ones).

        `mask` is 1 on the rows that count and 0 on padding, which comes after them.
        """
        ...

    def evidence(self, params: Mapping[str, Tensor], memory: Memory) -> Evidence:
        """Evidence about z of all rows read, [B, Z]; none where none were."""
        ...


@dataclass(frozen=True)
class PermutationInvariantEncoder:
    """Rakelly et al. (2019): the evidence of single rows, added up; so its memory is the evidence itself."""

    name: str
    sizes: tuple[int, ...]  # of the perceptron: from D to 2 Z
    ordered = False

    @property
    def _net(self) -> ReluMLP:
        return ReluMLP(self.name, self.sizes)

    def init(self, generator: torch.Generator) -> dict[str, Tensor]:
        """As ReluMLP."""
        return self._net.init(generator)

    def initial(self, rows: int) -> Evidence:
        """Zeros."""
        shape = (rows, self.sizes[-1] // 2)
        return Evidence(torch.zeros(shape), torch.zeros(shape), torch.zeros(rows, 1))

    def read(
        self,
        params: Mapping[str, Tensor],
        x: Float[Tensor, "B C D"],
        memory: Evidence | None = None,
        mask: Float[Tensor, "B C"] | None = None,
    ) -> Evidence:
        """The evidence of `x` added to that in `memory`."""
        found = gather_evidence(*_gaussian(self._net(params, x)), mask)
        return found if memory is None else Evidence(*(a + b for a, b in zip(memory, found, strict=True)))

    def evidence(self, params: Mapping[str, Tensor], memory: Evidence) -> Evidence:
        """The memory."""
        return memory


class RecurrentMemory(NamedTuple):
    hidden: Float[Tensor, "B E"]
    number: Float[Tensor, "B 1"]  # of rows read


@dataclass(frozen=True)
class RecurrentEncoder:
    """relu(W c_n + b) -> GRU -> linear map to mu and softplus^-1(var). The recursion never runs in half precision.

    However many rows were read, the evidence is that of one factor: how sure it makes is for the net to learn.
    """

    name: str
    input_dim: int
    hidden_dim: int
    latent_dim: int
    ordered = True

    @property
    def _core(self) -> GRU:
        return GRU(self.hidden_dim, self.hidden_dim)

    @property
    def _head(self) -> ReluMLP:
        return ReluMLP(f"{self.name}.head", (self.hidden_dim, 2 * self.latent_dim))

    def init(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Orthogonal matrices, zero biases; the last layer as ReluMLP's, so that means start near 0."""
        embed = orthogonal((self.hidden_dim, self.input_dim), generator, math.sqrt(2))
        params = {"embed.w": embed, "embed.b": torch.zeros(self.hidden_dim)}
        params |= {f"core.{name}": value for name, value in self._core.init(generator).items()}
        return {f"{self.name}.{name}": value for name, value in params.items()} | self._head.init(generator)

    def initial(self, rows: int) -> RecurrentMemory:
        """Zeros."""
        return RecurrentMemory(torch.zeros(rows, self.hidden_dim), torch.zeros(rows, 1))

    def read(
        self,
        params: Mapping[str, Tensor],
        x: Float[Tensor, "B C D"],
        memory: RecurrentMemory | None = None,
        mask: Float[Tensor, "B C"] | None = None,
    ) -> RecurrentMemory:
        """The hidden state after each context's last row of `x`; a context without any keeps its own."""
        encoded = torch.relu(linear(x, params[f"{self.name}.embed.w"], params[f"{self.name}.embed.b"]))
        prefix = f"{self.name}.core."
        core = {name.removeprefix(prefix): value for name, value in params.items() if name.startswith(prefix)}
        with torch.autocast(x.device.type, enabled=False):
            steps = encoded.transpose(0, 1).to(core["w_hh"].dtype)
            before = steps.new_zeros(len(x), self.hidden_dim) if memory is None else memory.hidden
            outputs, last = self._core.sequence(core, steps, before)
        number = x.new_full((len(x), 1), x.shape[1]) if mask is None else mask.sum(1, keepdim=True)
        if mask is not None:
            rows = torch.arange(len(x), device=x.device)
            last = outputs[(number[:, 0].long() - 1).clamp_min(0), rows]
            last = torch.where(number > 0, last, before)
        return RecurrentMemory(last.clone(), number if memory is None else memory.number + number)

    def evidence(self, params: Mapping[str, Tensor], memory: RecurrentMemory) -> Evidence:
        """Of the one factor, where anything was read."""
        mu, var = _gaussian(self._head(params, memory.hidden))
        return gather_evidence(mu[:, None], var[:, None], (memory.number > 0).to(mu.dtype))


def _gaussian(output: Float[Tensor, "*batch G"]) -> tuple[Float[Tensor, "*batch Z"], Float[Tensor, "*batch Z"]]:
    """mu and var = softplus(.) + 1e-7 from a net's output, G = 2 Z; in single precision at least."""
    mu, raw = output.chunk(2, dim=-1)
    dtype = torch.promote_types(mu.dtype, torch.float32)
    return mu.to(dtype), (softplus(raw) + MIN_VAR).to(dtype)
