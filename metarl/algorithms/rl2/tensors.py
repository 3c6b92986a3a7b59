"""Whole trials on the learner's device. Letters: T steps of a trial, B rows, I input, O observation, A action."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from metarl.algorithms.rl2.policy import net_of, sequence_inputs
from metarl.algorithms.rl2.sequences import Sequences
from metarl.algorithms.tensors import to_device
from metarl.nets.recurrent_policy import RecurrentPolicy
from metarl.ops.distributions import Categorical, Distribution, Gaussian
from metarl.ops.ppo import PPOBatch
from metarl.ops.returns import standardise
from metarl.rollout.types import Weights


@dataclass(frozen=True)
class TrialTensors:
    """Whole trials, time first."""

    inputs: Tensor  # [T, B, I]
    batch: PPOBatch  # advantages are standardised over all real steps; targets are in the critic's normalised units

    @staticmethod
    def of(
        net: RecurrentPolicy,
        weights: Weights,
        s: Sequences,
        advantages: Tensor,
        targets: Tensor,
        device: torch.device,
    ) -> TrialTensors:
        """The trials `s`, collected with `weights`; `advantages` and `targets` [B, T] in the rewards' own units."""
        host_mask = torch.from_numpy(s.mask).float()
        centre, std = float(weights["value.mean"][0]), float(weights["value.std"][0])
        output = torch.from_numpy(s.extras["logits" if net.discrete else "mean"])
        time_first = [
            torch.from_numpy(s.actions),
            output,
            # in the critic's units before: `standardise` adds a number to the deviation that must be small beside it
            standardise(advantages[None] / std, host_mask[None])[0],
            (targets - centre) / std,
            host_mask,
            torch.from_numpy(sequence_inputs(weights, net, s)),
        ]
        log_std = [] if net.discrete else [torch.from_numpy(net.log_std(net_of(weights)))]
        actions, mean, given, returns, mask, inputs, *log_std = to_device(
            [*(x.transpose(0, 1).clone(memory_format=torch.contiguous_format) for x in time_first), *log_std], device
        )
        behaviour: Distribution = Categorical(mean) if net.discrete else Gaussian(mean, log_std[0])
        old_log_prob = behaviour.log_prob(actions)
        return TrialTensors(inputs, PPOBatch(actions, behaviour, old_log_prob, given, returns, mask))

    def __getitem__(self, rows: Tensor) -> TrialTensors:
        """Some of the trials."""
        behaviour = type(self.batch.behaviour)(
            *(x if x.ndim == 1 else x[:, rows] for x in self.batch.behaviour)  # log-std is shared by all
        )
        arrays = {name: value[:, rows] for name, value in self.batch._asdict().items() if name != "behaviour"}
        return TrialTensors(self.inputs[:, rows], PPOBatch(behaviour=behaviour, **arrays))
