"""The nodes of the Ray cluster that this process is connected to, and the load of this machine."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass

import ray

from metarl.distributed import _ray_private
from metarl.errors import ConfigError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Nodes:
    """A node stays unless it is dead or about to be taken away (draining)."""

    staying: frozenset[str]  # ids
    free_processors: int  # on the staying nodes together


def look() -> Nodes:
    alive = frozenset(node["NodeID"] for node in ray.nodes() if node["Alive"])
    staying = alive - _ray_private.draining_nodes()
    return Nodes(staying, sum(free for node, free in _ray_private.free_processors().items() if node in staying))


def processors_of_others() -> int:
    """Processors of the cluster but for those this process holds itself (when it is an actor); at least 1."""
    context = ray.get_runtime_context()
    held = context.get_assigned_resources().get("CPU", 0) if context.get_actor_id() is not None else 0
    return max(1, int(ray.cluster_resources().get("CPU", 1) - held))


def has_gpu() -> bool:
    """Whether any node of the cluster has one."""
    return bool(ray.cluster_resources().get("GPU", 0) >= 1)


def require_room(num_cpus: int, num_gpus: int, may_grow: bool) -> None:
    """ConfigError where no node has what a run takes; a warning only where the cluster `may_grow`."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if any(node.get("CPU", 0) >= num_cpus and node.get("GPU", 0) >= num_gpus for node in nodes):
        return
    there = "; ".join(f"{node.get('CPU', 0):g} CPU, {node.get('GPU', 0):g} GPU" for node in nodes)
    problem = f"a run takes {num_cpus} CPU and {num_gpus} GPU on one node, and there is {there}"
    if not may_grow:
        advice = "set --cpus-per-run, device=cpu, or executor.num_workers (the processors of a Ray started here)"
        raise ConfigError(f"{problem}: {advice}")
    _log.warning("%s: it waits until the cluster has such a node", problem)


def load() -> str:
    """`load average 8.1 on 2 processors`, of this machine."""
    return f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors"
