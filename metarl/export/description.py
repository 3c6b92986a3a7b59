"""policy.json: what a robot's program must know of exported graphs. The same text is inside the graphs' files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from gymnasium.spaces.utils import flatdim

from metarl.agent.agent import Agent
from metarl.agent.rounds import episodes_of
from metarl.algorithms.graphs import Graph, Port
from metarl.runs.build import TrainedRun, identity_of
from metarl.runs.directory import versions
from metarl.tasks import TaskDistribution
from metarl.tasks.nested import parts_of

FORMAT = 1


def description(
    trained: TrainedRun, agent: Agent, graphs: Mapping[str, Graph], notes: tuple[str, ...]
) -> dict[str, Any]:
    """Plain JSON values."""
    return {
        "format": FORMAT,
        "metarl": versions()["metarl"],
        "algorithm": trained.config.algorithm_name,
        "iteration": trained.checkpoint.iteration,
        "weights": agent.identity["weights"],
        "graphs": {name: _graph(graph) for name, graph in graphs.items()},
        "observation": observation_of(agent.interface.observation_space),
        "action": action_of(agent.interface.action_spaces[0]),
        "control_period_s": control_period(trained.distribution, trained.config.seed),
        "horizon": agent.plan.horizon,
        "rounds": rounds_of(agent),
        "task_distribution": _distribution(trained.distribution),
        "notes": list(notes),
    }


def observation_of(space: gymnasium.Space) -> dict[str, Any]:
    """The space and the number of places of a flat observation. Of a Dict or Tuple also `order`: each part's path and
    its places, `first` to `last`, both included, from 0. Gymnasium flattens a Discrete part to one-hot."""
    described = _space(space) | {"flat_size": int(flatdim(space))}
    order = [
        {"path": part.path, "first": part.first, "last": part.last, **_space(part.space)} for part in parts_of(space)
    ]
    return described | ({"order": order} if order else {})


def action_of(space: gymnasium.Space) -> dict[str, Any]:
    """The space of the robot's actions. Of a MultiDiscrete one also `index`: what `policy_action` counts."""
    index = "policy_action is the index of the action, from 0; the last part counts fastest"
    return _space(space) | ({"index": index} if isinstance(space, MultiDiscrete) else {})


def rounds_of(agent: Agent) -> list[dict[str, Any]]:
    """The rounds of a task, the last of which is repeated: how many episodes, and what is done in and after them."""
    found = []
    for number in range(len(agent.plan.rounds)):
        round_plan, episodes = episodes_of(agent.plan, number)
        found.append({"episodes": episodes, "adapt": round_plan.adapt, "deterministic": round_plan.deterministic})
    return found


def control_period(distribution: TaskDistribution, seed: int) -> float | None:
    """Seconds from one action to the next: the environment's `dt`, or that of its metadata's `render_fps`; None where
    it states neither."""
    env = distribution.make(distribution.sample("train", 1, seed)[0])
    try:
        dt = getattr(env.unwrapped, "dt", None)
        rate = (env.metadata or {}).get("render_fps")
    finally:
        env.close()
    if isinstance(dt, int | float):
        return float(dt)
    return 1 / float(rate) if rate else None


def _graph(graph: Graph) -> dict[str, Any]:
    return {"inputs": [_port(port) for port in graph.inputs], "outputs": [_port(port) for port in graph.outputs]}


def _port(port: Port) -> dict[str, Any]:
    content: dict[str, Any] = {"name": port.name, "shape": list(port.shape), "dtype": port.dtype}
    if port.meaning:
        content["meaning"] = port.meaning
    if port.draw:
        content |= {"draw": port.draw, "draw_at": port.draw_at}
    return content


def _space(space: gymnasium.Space) -> dict[str, Any]:
    if isinstance(space, Discrete):
        return {"space": "Discrete", "n": int(space.n), "start": int(space.start)}
    if isinstance(space, MultiDiscrete):
        return {
            "space": "MultiDiscrete",
            "shape": list(space.shape),
            "dtype": str(space.dtype),
            "nvec": space.nvec.tolist(),
            "start": space.start.tolist(),
        }
    if isinstance(space, Box):
        return {
            "space": "Box",
            "shape": list(space.shape),
            "dtype": str(space.dtype),
            "low": _plain(space.low),
            "high": _plain(space.high),
        }
    return {"space": str(space)}


def _plain(bounds: np.ndarray) -> Any:
    """Numbers, None where there is no bound."""
    values = [float(b) if np.isfinite(b) else None for b in bounds.ravel()]
    return values[0] if values and all(value == values[0] for value in values) else values


def _distribution(distribution: TaskDistribution) -> dict[str, Any]:
    parameters = {p.name: {"train": str(p.prior), "unit": p.unit} for p in distribution.parameters}
    return {**identity_of(distribution), "parameters": parameters}
