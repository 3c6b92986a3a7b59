"""What an algorithm gives to be exported: its acting and its adaptation as torch modules, for one robot.

An algorithm that can be exported has a method `export_graphs(rounds) -> PolicyGraphs`. State is explicit: what a
graph reads as `state.NAME` it, or the other graph, gives as `next.NAME`.

    act      observation and more, state.*, noise.*   ->   action, next.*          at every step
    adapt    the episodes of a round, state.*         ->   next.*                  when a round has ended

Inputs that `act` may ask for, whatever the algorithm, float32 unless stated:

    observation [1, O]     in the environment's units, flat
    reward [1, 1]          of the step before; 0 at a task's start
    first [1, 1]           1 at an episode's first step, else 0
    noise.NAME             random numbers; zeros make the action the most likely one

Inputs that `adapt` may ask for; S episodes of a round, padded with zeros to T steps:

    observations [S, T, O]   actions [S, T, A] or [S, T] int64   rewards [S, T]   last_observations [S, O]
    lengths [S] int64        truncated [S] bool
    adapts [1, 1] bool       whether the plan adapts to this round; a graph with this input is run after every round,
                             one without it after those alone that are adapted to

The first output of `act` is `action`, [1, A] in the policy's units or [1] int64: what `adapt` wants to be given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch

Draw = Literal["normal", "gumbel"]
_EXAMPLE_SIZE = 3  # of a dimension without a fixed size


@dataclass(frozen=True)
class Port:
    """An array that goes into a graph or comes out of it.

    shape: sizes; a name in place of a size that may differ from call to call.
    draw: what a noise input is drawn from; draw_at: at every step, or at an episode's first step alone.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str = "float32"
    meaning: str = ""
    draw: Draw | None = None
    draw_at: Literal["step", "first"] = "step"

    @property
    def sizes(self) -> tuple[int, ...]:
        """The shape of an example."""
        return tuple(_EXAMPLE_SIZE if isinstance(size, str) else size for size in self.shape)

    def example(self) -> torch.Tensor:
        """Ones, of the port's dtype: lengths of 0 would be unlike any input."""
        return torch.ones(self.sizes, dtype=getattr(torch, self.dtype))


ADAPTS = Port("adapts", (1, 1), "bool", "whether the plan adapts to this round; run after every round")


@dataclass(frozen=True)
class Graph:
    """A module that is called with tensors in the order of `inputs` and returns a tuple in the order of `outputs`."""

    module: torch.nn.Module
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


@dataclass(frozen=True)
class Rounds:
    """What `adapt` is given: so many episodes of at most `horizon` steps."""

    episodes: int
    horizon: int


@dataclass(frozen=True)
class PolicyGraphs:
    """`initial`: the state at a task's start, by name. `adapt`: None where `act` alone adapts, or nothing does."""

    act: Graph
    initial: Mapping[str, np.ndarray]
    adapt: Graph | None = None
    notes: tuple[str, ...] = field(default=())


def state_ports(arrays: Mapping[str, np.ndarray], prefix: str) -> tuple[Port, ...]:
    """`state.NAME` or `next.NAME` of every array of a state."""
    return tuple(Port(f"{prefix}.{name}", value.shape, str(value.dtype)) for name, value in arrays.items())


def noise_port(shape: tuple[int, ...], discrete: bool) -> Port:
    """The noise of sampled actions: added to logits, or times the standard deviations added to means."""
    if discrete:
        return Port("noise.action", shape, "float64", draw="gumbel")
    return Port("noise.action", shape, draw="normal")


def episode_ports(rounds: Rounds, obs_dim: int, action_dim: int, discrete: bool) -> dict[str, Port]:
    """The inputs of `adapt` that hold a round's episodes, by name."""
    S, T = rounds.episodes, rounds.horizon
    actions = Port("actions", (S, T), "int64") if discrete else Port("actions", (S, T, action_dim))
    ports = (
        Port("observations", (S, T, obs_dim), meaning="before each action"),
        actions,
        Port("rewards", (S, T)),
        Port("lengths", (S,), "int64", "steps of each episode; the rest is zeros"),
        Port("truncated", (S,), "bool", "whether time ran out at its end"),
        Port("last_observations", (S, obs_dim), meaning="after each episode's last step"),
    )
    return {port.name: port for port in ports}
