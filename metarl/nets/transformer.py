"""A causal transformer over parameter dicts: whole trials in torch for learning, single steps in NumPy for acting.

Vaswani et al., "Attention is all you need" (2017), decoder blocks with layer normalisation before each sublayer (Xiong
et al. 2020: trains without a warm-up of the step length). The context is the trial so far. Symbols: x_t input, p_t
position code, z stream of residuals, q, k, v query, key, value of one head, N layer normalisation, d head width.

    z_t = W_embed x_t + b_embed + p_t               p_t[2j] = sin(t / 10000^(2j/M)), p_t[2j+1] = cos(same)
    per layer:
      q, k, v = W_qkv N(z)                          a_ts = softmax over s <= t of q_t . k_s / sqrt(d)
      z_t <- z_t + W_mix [sum_s a_ts v_s, all heads] + b_mix
      z <- z + W_down relu(W_up N(z) + b_up) + b_down
    output N(z)

Deviations: no bias in W_qkv (a key's cancels in the softmax, a value's is part of b_mix); no dropout. The positions are
computed, not learnt, so that a trial may have any length. ReLU, as in the paper: one pass in NumPy where GELU's tanh
form takes eight, and an actor pays for every pass.

Letters: T time, B rows (streams), D input, M model width, L layers, A heads, C capacity of the cache, d head width.
Weights are [fan_in, fan_out]; names end with their layer's number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metarl.errors import ConfigError, MetarlError

EPSILON = 1e-5  # of the layer normalisation
FIRST_CAPACITY = 64
MLP_RATIO = 4


@dataclass(frozen=True)
class KeyValueCache:
    """What the steps so far left behind: row b's keys and values are [:, b, :, :length[b]], zeros after them.

    `step` appends in place: a cache is handed on, never shared. After a step only the cache that it returned may be
    stepped again; the older one still describes its own past.
    """

    keys: Float[np.ndarray, "L B A C d"]
    values: Float[np.ndarray, "L B A C d"]
    length: Int[np.ndarray, " B"]


@dataclass(frozen=True)
class Transformer:
    input_dim: int
    model_dim: int = 64
    num_layers: int = 2
    num_heads: int = 4

    def __post_init__(self) -> None:
        if self.num_heads < 1 or self.model_dim < 1 or self.model_dim % self.num_heads or self.model_dim % 2:
            raise ConfigError(
                f"model_dim is {self.model_dim} with num_heads {self.num_heads}: "
                "it must be even (positions are pairs of sine and cosine) and a multiple of num_heads"
            )

    @property
    def output_dim(self) -> int:
        return self.model_dim

    @property
    def head_dim(self) -> int:
        return self.model_dim // self.num_heads

    def init(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Fresh parameters: Glorot-uniform weights, zero biases and shifts, unit gains."""

        def weights(fan_in: int, fan_out: int) -> Tensor:
            return torch.nn.init.xavier_uniform_(torch.empty(fan_in, fan_out), generator=generator)

        M = self.model_dim
        params = {"w_embed": weights(self.input_dim, M), "b_embed": torch.zeros(M)}
        for i in range(self.num_layers):
            params[f"w_qkv{i}"] = torch.cat([weights(M, M) for _ in range(3)], 1)
            params[f"w_mix{i}"], params[f"b_mix{i}"] = weights(M, M), torch.zeros(M)
            params[f"w_up{i}"], params[f"b_up{i}"] = weights(M, MLP_RATIO * M), torch.zeros(MLP_RATIO * M)
            params[f"w_down{i}"], params[f"b_down{i}"] = weights(MLP_RATIO * M, M), torch.zeros(M)
        norms = [f"{norm}{i}" for i in range(self.num_layers) for norm in ("attention", "mlp")]
        for norm in (*norms, "output"):
            params[f"gain_{norm}"], params[f"shift_{norm}"] = torch.ones(M), torch.zeros(M)
        return params

    def sequence(
        self, params: Mapping[str, Tensor], x: Float[Tensor, "T B D"], memory: object = None
    ) -> tuple[Float[Tensor, "T B M"], None]:
        """Outputs at every step of a trial, each from the steps up to its own. Differentiable in `params` and `x`.

        A whole trial is one call: raises MetarlError if given a memory, and returns none.
        """
        if memory is not None:
            raise MetarlError("memory was given to a transformer's sequence: it takes whole trials only, so pass None")
        position = torch.from_numpy(positions(np.arange(x.shape[0]), self.model_dim)).to(x)
        z = x.transpose(0, 1) @ params["w_embed"] + params["b_embed"] + position
        for i in range(self.num_layers):
            z = z + self._attention(params, i, _normalise_torch(params, f"attention{i}", z))
            hidden = torch.relu(_normalise_torch(params, f"mlp{i}", z) @ params[f"w_up{i}"] + params[f"b_up{i}"])
            z = z + hidden @ params[f"w_down{i}"] + params[f"b_down{i}"]
        return _normalise_torch(params, "output", z).transpose(0, 1), None

    def _attention(self, params: Mapping[str, Tensor], i: int, z: Float[Tensor, "B T M"]) -> Float[Tensor, "B T M"]:
        """W_mix [softmax(q k' / sqrt(d)) v] + b_mix over the past."""
        q, k, v = (z @ params[f"w_qkv{i}"]).unflatten(-1, (3, self.num_heads, self.head_dim)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return mixed.transpose(1, 2).flatten(2) @ params[f"w_mix{i}"] + params[f"b_mix{i}"]

    def initial(self, rows: int) -> KeyValueCache:
        """The empty memory."""
        shape = (self.num_layers, rows, self.num_heads, FIRST_CAPACITY, self.head_dim)
        return KeyValueCache(np.zeros(shape, np.float32), np.zeros(shape, np.float32), np.zeros(rows, np.int64))

    def step(
        self,
        params: Mapping[str, np.ndarray],
        x: Float[np.ndarray, "B D"],
        memory: KeyValueCache,
        running: Bool[np.ndarray, " B"],
    ) -> tuple[Float[np.ndarray, "B M"], KeyValueCache]:
        """One step of `sequence` in float32, in time proportional to the longest running row's context.

        A row that is not `running` appends nothing and stays where it was; its output means nothing. The cache's arrays
        are appended to in place (see KeyValueCache).
        """
        context = int(memory.length.max(initial=0, where=running)) + 1
        cache = _with_room_for(memory, context)
        z = x @ params["w_embed"]
        z += params["b_embed"]
        z += positions(cache.length, self.model_dim).astype(z.dtype)
        # Also a row without any past sees one entry, zeros, if it does not move: a softmax over nothing would be NaN.
        unseen = np.arange(context) > cache.length[:, None]
        for i in range(self.num_layers):
            z += self._attend(params, i, _normalise(params, f"attention{i}", z), cache, running, unseen)
            hidden = _normalise(params, f"mlp{i}", z) @ params[f"w_up{i}"]
            hidden += params[f"b_up{i}"]
            np.maximum(hidden, 0, out=hidden)
            z += hidden @ params[f"w_down{i}"]
            z += params[f"b_down{i}"]
        return _normalise(params, "output", z), KeyValueCache(cache.keys, cache.values, cache.length + running)

    def _attend(
        self,
        params: Mapping[str, np.ndarray],
        i: int,
        z: Float[np.ndarray, "B M"],
        cache: KeyValueCache,
        running: Bool[np.ndarray, " B"],
        unseen: Bool[np.ndarray, "B S"],
    ) -> Float[np.ndarray, "B M"]:
        """`_attention` for the newest step of each row, after appending its key and value to layer i of the cache."""
        q, k, v = (z @ params[f"w_qkv{i}"]).reshape(-1, 3, self.num_heads, self.head_dim).swapaxes(0, 1)
        rows = np.flatnonzero(running)
        cache.keys[i][rows, :, cache.length[rows]] = k[rows]
        cache.values[i][rows, :, cache.length[rows]] = v[rows]
        keys, values = (kept[i, :, :, : unseen.shape[1]] for kept in (cache.keys, cache.values))
        scores = np.matmul(keys, (q / math.sqrt(self.head_dim))[..., None])[..., 0]
        np.copyto(scores, -np.inf, where=unseen[:, None])
        scores -= scores.max(-1, keepdims=True)
        weights = np.exp(scores, out=scores)
        weights /= weights.sum(-1, keepdims=True)
        mixed = np.matmul(weights[:, :, None], values).reshape(z.shape)
        mixed = mixed @ params[f"w_mix{i}"]
        mixed += params[f"b_mix{i}"]
        return mixed


def positions(t: Int[np.ndarray, " T"], model_dim: int) -> Float[np.ndarray, "T M"]:
    """p_t, float64: at t in the thousands float32 would lose the fastest sine's last digits (Vaswani 2017, 3.5)."""
    angle = t[:, None] * np.exp(np.arange(0, model_dim, 2) * (-math.log(10000) / model_dim))
    return np.stack([np.sin(angle), np.cos(angle)], -1).reshape(len(t), model_dim)


def _with_room_for(cache: KeyValueCache, context: int) -> KeyValueCache:
    """The same cache, its capacity doubled as often as it takes: appending costs O(1) on average."""
    capacity = cache.keys.shape[3]
    if context <= capacity:
        return cache
    while capacity < context:
        capacity *= 2
    grown = []
    for kept in (cache.keys, cache.values):
        longer = np.zeros((*kept.shape[:3], capacity, kept.shape[4]), kept.dtype)
        longer[:, :, :, : kept.shape[3]] = kept
        grown.append(longer)
    return KeyValueCache(grown[0], grown[1], cache.length)


def _normalise_torch(params: Mapping[str, Tensor], name: str, z: Float[Tensor, "B T M"]) -> Float[Tensor, "B T M"]:
    return F.layer_norm(z, z.shape[-1:], params[f"gain_{name}"], params[f"shift_{name}"], EPSILON)


def _normalise(params: Mapping[str, np.ndarray], name: str, z: Float[np.ndarray, "B M"]) -> Float[np.ndarray, "B M"]:
    """(z - mean) / sqrt(var + epsilon) * gain + shift, over the model's width."""
    centred = z - z.mean(-1, keepdims=True)
    variance = np.einsum("bm,bm->b", centred, centred) / z.shape[-1]
    centred /= np.sqrt(variance + EPSILON)[:, None]
    centred *= params[f"gain_{name}"]
    centred += params[f"shift_{name}"]
    return centred
