"""One round of episodes as tensors on the learner's device. Letters: K task, N stream, T time, B = N T, A, O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from metarl.ops.distributions import Categorical, Distribution, Gaussian, kl_divergence
from metarl.ops.returns import masked_mean
from metarl.rollout.types import Round

_ALIGNMENT = 64  # elements: tensors that share memory on a device begin where its widest loads may


def to_tensor(array: np.ndarray) -> Tensor:
    """A copy in torch's own memory: arrived arrays are read-only, and the last bits of a small matrix product depend
    on how its operands are aligned, which NumPy leaves to chance."""
    return torch.tensor(array)


def to_device(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Tensors of the host on `device`, by one copy per type from pinned memory, which the host does not wait for; on
    the CPU the tensors themselves."""
    if device.type == "cpu":
        return list(tensors)
    moved: dict[int, Tensor] = {}
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        places = [i for i, tensor in enumerate(tensors) if tensor.dtype == dtype]
        sizes = [-(-tensors[i].numel() // _ALIGNMENT) * _ALIGNMENT for i in places]
        packed = torch.empty(sum(sizes), dtype=dtype, pin_memory=device.type == "cuda")
        for i, part in zip(places, packed.split(sizes), strict=True):
            part[: tensors[i].numel()].view_as(tensors[i]).copy_(tensors[i])
        for i, part in zip(places, packed.to(device, non_blocking=True).split(sizes), strict=True):
            moved[i] = part[: tensors[i].numel()].view_as(tensors[i])
    return [moved[i] for i in range(len(tensors))]


def to_host(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Copies of tensors of one type, each in memory of its own; the host waits for the device once."""
    values = torch.cat([value.detach().reshape(-1) for value in tensors.values()]).cpu().numpy()
    parts = np.split(values, np.cumsum([value.numel() for value in tensors.values()])[:-1])
    return {name: part.reshape(value.shape).copy() for (name, value), part in zip(tensors.items(), parts, strict=True)}


@dataclass(frozen=True)
class RoundTensors:
    """One round on the learner's device, tasks first."""

    observations: Tensor  # [K, B, O]
    actions: Tensor  # [K, B, A], or [K, B] int64
    advantages: Tensor  # [K, N, T]
    mask: Tensor  # [K, N, T] 1 on real steps
    behaviour: Distribution  # over [K, B]
    old_log_prob: Tensor  # [K, N, T]
    returns: Tensor  # [K] mean undiscounted return

    @staticmethod
    def of(rounds: Sequence[Round], device: torch.device) -> RoundTensors:
        """Join the same round of several units along the task axis."""

        def join(arrays: list[np.ndarray]) -> Tensor:
            return to_tensor(np.concatenate(arrays))

        is_discrete = "logits" in rounds[0].extras
        output = "logits" if is_discrete else "mean"
        mask, observations, actions, advantages, returns, mean, *log_std = to_device(
            [
                join([r.mask for r in rounds]).float(),
                join([r.observations for r in rounds]).flatten(1, 2),
                join([r.actions for r in rounds]).flatten(1, 2),
                join([r.derived["advantages"] for r in rounds]),
                join([r.returns.mean(1) for r in rounds]).float(),
                join([r.extras[output] for r in rounds]).flatten(1, 2),
                *([] if is_discrete else [join([r.derived["log_std"] for r in rounds])]),
            ],
            device,
        )
        behaviour: Distribution = Categorical(mean) if is_discrete else Gaussian(mean, log_std[0][:, None])
        old_log_prob = behaviour.log_prob(actions).view_as(mask)
        return RoundTensors(observations, actions, advantages, mask, behaviour, old_log_prob, returns)

    def __getitem__(self, tasks: slice | Int[Tensor, " K"]) -> RoundTensors:
        """The same round of some of the tasks, by a slice or by their indices."""
        return RoundTensors(
            self.observations[tasks],
            self.actions[tasks],
            self.advantages[tasks],
            self.mask[tasks],
            type(self.behaviour)(*(x[tasks] for x in self.behaviour)),
            self.old_log_prob[tasks],
            self.returns[tasks],
        )

    def log_prob(self, distribution: Distribution) -> Tensor:
        return distribution.log_prob(self.actions).view_as(self.mask)

    def kl_from_behaviour(self, distribution: Distribution) -> Tensor:
        """KL(behaviour || distribution), mean per task [K]."""
        return masked_mean(kl_divergence(self.behaviour, distribution).view_as(self.mask), self.mask)

    def kl_to_behaviour(self, distribution: Distribution) -> Tensor:
        """KL(distribution || behaviour), mean per task [K]."""
        return masked_mean(kl_divergence(distribution, self.behaviour).view_as(self.mask), self.mask)
