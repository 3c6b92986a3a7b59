"""From a policy's actions to a robot's, as a torch module: what `metarl.agent.interface` does."""

from __future__ import annotations

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from torch import Tensor

from metarl.algorithms.graphs import Graph, Port
from metarl.tasks.action_space import bounded_dimensions
from metarl.tasks.indexed_actions import IndexedActions


class InRobotUnits(torch.nn.Module):
    """`module`, its first output once in the robot's units and once as it is."""

    def __init__(self, module: torch.nn.Module, space: gymnasium.Space):
        super().__init__()
        self.module = module
        self.to_robot = _to_robot(space)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        action, *rest = self.module(*inputs)
        return self.to_robot(action), action, *rest


def _to_robot(space: gymnasium.Space) -> torch.nn.Module:
    if isinstance(space, MultiDiscrete):
        return _Parts(space)
    return _Shift(space) if isinstance(space, Discrete) else _Scale(space)


class _Parts(torch.nn.Module):
    """From the index of an action to its parts."""

    table: Tensor

    def __init__(self, space: MultiDiscrete):
        super().__init__()
        indexed = IndexedActions(space, "the robot")
        self.register_buffer("table", torch.tensor(np.stack([indexed.action(i) for i in range(indexed.count)])))

    def forward(self, action: Tensor) -> Tensor:
        return self.table[action]


class _Shift(torch.nn.Module):
    def __init__(self, space: Discrete):
        super().__init__()
        self.start = int(space.start)

    def forward(self, action: Tensor) -> Tensor:
        return action + self.start


class _Scale(torch.nn.Module):
    """[-1, 1] to low .. high where bounded, clipped to the bound that there is elsewhere; integers are rounded."""

    is_bounded: Tensor
    low: Tensor
    high: Tensor
    half_range: Tensor

    def __init__(self, space: gymnasium.Space):
        super().__init__()
        assert isinstance(space, Box)
        is_bounded, kind = bounded_dimensions(space), np.dtype(space.dtype)
        self.dtype = getattr(torch, kind.name)
        self.is_integer = kind.kind != "f"
        precise = np.float64 if self.is_integer else np.result_type(kind, np.float32)
        largest = 2.0**53 if self.is_integer else np.finfo(kind).max
        low, high = (
            np.asarray(end, np.float64).clip(-largest, largest).astype(precise) for end in (space.low, space.high)
        )
        self.register_buffer("is_bounded", torch.tensor(is_bounded))
        self.register_buffer("low", torch.tensor(low))
        self.register_buffer("high", torch.tensor(high))
        half_range = 0.5 * (np.where(is_bounded, high, 1) - np.where(is_bounded, low, 0))
        self.register_buffer("half_range", torch.tensor(half_range.astype(precise)))

    def forward(self, action: Tensor) -> Tensor:
        low, high, half_range, is_bounded = self.low, self.high, self.half_range, self.is_bounded
        precise = action.to(low.dtype)
        scaled = torch.where(is_bounded, low + (precise.clamp(-1, 1) + 1) * half_range, precise)
        scaled = scaled.round() if self.is_integer else scaled
        return torch.minimum(torch.maximum(scaled, low), high).to(self.dtype)


def in_robot_units(graph: Graph, space: gymnasium.Space) -> Graph:
    """An `act` graph whose outputs begin with `action`, in `space`, and `policy_action`, in the policy's units."""
    action, *rest = graph.outputs
    kind = "int64" if isinstance(space, Discrete) else str(np.dtype(space.dtype))
    shape = (*action.shape, *space.shape) if isinstance(space, MultiDiscrete) else action.shape
    robots = Port("action", shape, kind, "in the robot's units")
    own = Port("policy_action", action.shape, action.dtype, "in the policy's units: what adapt is given as actions")
    return Graph(InRobotUnits(graph.module, space), graph.inputs, (robots, own, *rest))
