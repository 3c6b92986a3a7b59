"""A multilayer-perceptron policy over parameter dicts: torch for learning, NumPy for acting.

Parameters carry a leading task axis K, so that K tasks with K parameter sets are one batched product.
Letters: K task, B samples, O observation, A action, H hidden.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metarl.kernels.batched_mlp import batched_mlp, linearised_mlp
from metarl.kernels.memory import free_bytes
from metarl.ops.distributions import Categorical, Distribution, Gaussian


def init_mlp(sizes: tuple[int, ...], generator: torch.Generator) -> dict[str, Tensor]:
    """Weights w0, b0, w1, ... without task axis: Glorot-uniform [in, out], zero biases."""
    params = {}
    for i, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
        bound = math.sqrt(6 / (fan_in + fan_out))
        params[f"w{i}"] = (2 * torch.rand(fan_in, fan_out, generator=generator) - 1) * bound
        params[f"b{i}"] = torch.zeros(fan_out)
    return params


@dataclass(frozen=True)
class MLPPolicy:
    """Gaussian with state-independent log-std for continuous actions, softmax for discrete ones.

    The floor `min_std` has derivative 0 below it, so steps of learners and of adaptation end above it:
    `metarl.ops.distributions.project_log_std_` after an optimiser's step, `step_above_floor` within adaptation.
    """

    obs_dim: int
    action_dim: int
    discrete: bool
    hidden: tuple[int, ...]
    init_std: float
    min_std: float
    output_gain: float = 1.0

    @property
    def num_layers(self) -> int:
        return len(self.hidden) + 1

    def init(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Fresh parameters without task axis."""
        params = init_mlp((self.obs_dim, *self.hidden, self.action_dim), generator)
        params[f"w{self.num_layers - 1}"] *= self.output_gain
        if not self.discrete:
            params["log_std"] = torch.full((self.action_dim,), math.log(self.init_std))
        return params

    def distribution(self, params: Mapping[str, Tensor], observations: Float[Tensor, "K B O"]) -> Distribution:
        """pi(. | o) for every sample, with each task's own parameters."""
        output = batched_mlp(observations, self._layers(params))
        if self.discrete:
            return Categorical(output)
        return Gaussian(output, params["log_std"].clamp_min(math.log(self.min_std))[:, None])

    def step_above_floor(self, before: Mapping[str, Tensor], after: dict[str, Tensor]) -> dict[str, Tensor]:
        """The end of an adaptation step, with log-std no lower than the floor.

        One that started below the floor (checkpoints of earlier versions) is not raised: it evaluates as it did.
        """
        if self.discrete:
            return after
        lowest = before["log_std"].clamp_max(math.log(self.min_std))
        return {**after, "log_std": torch.maximum(after["log_std"], lowest)}

    def linearised(
        self, params: Mapping[str, Tensor], observations: Float[Tensor, "K B O"]
    ) -> Callable[[Mapping[str, Tensor]], Distribution]:
        """Direction in parameter space -> how the distribution's own parameters move along it."""
        output_along = linearised_mlp(observations, self._layers(params))
        if self.discrete:
            return lambda direction: Categorical(output_along(self._layers(direction)))
        above_floor = params["log_std"].detach() >= math.log(self.min_std)

        def along(direction: Mapping[str, Tensor]) -> Distribution:
            return Gaussian(output_along(self._layers(direction)), (direction["log_std"] * above_floor)[:, None])

        return along

    def _layers(self, params: Mapping[str, Tensor]) -> list[Tensor]:
        return [params[f"{kind}{i}"] for i in range(self.num_layers) for kind in "wb"]

    def output(self, params: Mapping[str, np.ndarray], observations: np.ndarray) -> np.ndarray:
        """Means or logits [K, N, A] float32 in NumPy, for acting: small torch calls cost too much there."""
        x = observations
        for i in range(self.num_layers):
            x = np.matmul(x, params[f"w{i}"])
            x += params[f"b{i}"][:, None]
            if i < self.num_layers - 1:
                np.tanh(x, out=x)
        return x

    def log_std(self, params: Mapping[str, np.ndarray]) -> np.ndarray:
        """[K, A] float32, with the floor applied."""
        return np.maximum(params["log_std"], np.float32(math.log(self.min_std)))

    def tasks_that_fit(self, num_samples: int, device: torch.device, itemsize: int = 4) -> int:
        """How many tasks of `num_samples` one batched product should hold: on a CPU one layer's activations stay
        in cache (2 MiB), on a GPU a second-order graph of some 60 activations takes at most half of the free memory."""
        activations = itemsize * num_samples * max(self.hidden, default=1)
        if device.type == "cpu":
            return max(1, 2 * 2**20 // activations)
        return max(1, free_bytes(device) // (2 * 60 * activations))
