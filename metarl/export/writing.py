"""From a run to the files of its policy.

policy.onnx          acting, one step (policy.pt2 in the format torch)
adapt.onnx           adaptation between episodes, where the algorithm has such
policy.json          inputs, outputs, state, units, rounds, where it comes from; also inside the files above
initial_state.npz    the state at a task's start
run_policy.py        runs all that, without metarl: `metarl.export.runner`
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metarl.agent.agent import Agent
from metarl.agent.loading import load_agent
from metarl.agent.rounds import episodes_of
from metarl.algorithms.base import Algorithm
from metarl.algorithms.graphs import Graph, PolicyGraphs, Rounds
from metarl.errors import ExportError
from metarl.export import runner
from metarl.export.check import STEPS, TOLERANCE, Comparison, compare
from metarl.export.description import description
from metarl.export.formats import require_packages, write_graph
from metarl.export.runner import DESCRIPTION, INITIAL, SUFFIXES, Format, Runner
from metarl.export.units import in_robot_units
from metarl.files import write_text
from metarl.runs.build import TrainedRun

PROGRAM = "run_policy.py"


@dataclass(frozen=True)
class Export:
    """What was written, and how it compared with the agent."""

    folder: Path
    files: tuple[str, ...]
    comparison: Comparison
    notes: tuple[str, ...]


def export_run(
    trained: TrainedRun,
    folder: Path,
    form: Format = "onnx",
    steps: int = STEPS,
    tolerance: float = TOLERANCE,
    **how: Any,
) -> Export:
    """Write the policy of a run into `folder`, and compare it with the agent on held-out tasks.

    `how` goes to `metarl.load_agent`: support_episodes, rounds, horizon, action_space.

    Raises ExportError where the algorithm gives no graphs, where a package is missing, and where an action differs by
    more than `tolerance`: the files are removed then.
    """
    require_packages(form)
    agent = load_agent(trained, **how)
    parts = graphs_of(trained.algorithm, agent)
    act = in_robot_units(parts.act, agent.interface.action_spaces[0])
    graphs = {"policy": act} | ({} if parts.adapt is None else {"adapt": parts.adapt})
    told = description(trained, agent, graphs, parts.notes)
    files = _write(folder, form, graphs, parts.initial, told)
    try:
        comparison = compare(agent, load_runner(folder), trained.distribution, trained.config.seed, steps)
        if not comparison.difference <= tolerance:
            raise ExportError(
                f"the export does not act as the agent does: in {comparison}, allowed is {tolerance:.0e}. Nothing was "
                "exported"
            )
    except BaseException:
        for name in files:
            (folder / name).unlink(missing_ok=True)
        raise
    return Export(folder, files, comparison, parts.notes)


def graphs_of(algorithm: Algorithm, agent: Agent) -> PolicyGraphs:
    """The graphs of an agent of this algorithm; ExportError where it gives none, or rounds that no graph can serve."""
    make = getattr(algorithm, "export_graphs", None)
    if make is None:
        raise ExportError(
            f"{type(algorithm).__name__} cannot be exported: it has no method export_graphs, see "
            "metarl.algorithms.graphs"
        )
    numbers = range(len(agent.plan.rounds))
    sizes = {episodes for plan, episodes in (episodes_of(agent.plan, n) for n in numbers) if plan.adapt} or {1}
    if len(sizes) > 1:
        raise ExportError(f"the plan adapts to rounds of {sorted(sizes)} episodes, and a graph to those of one size")
    graphs: PolicyGraphs = make(Rounds(sizes.pop(), agent.plan.horizon))
    return graphs


def _write(
    folder: Path, form: Format, graphs: Mapping[str, Graph], initial: Mapping[str, np.ndarray], told: dict[str, Any]
) -> tuple[str, ...]:
    """The names of the files written. Files of an earlier export are replaced, and its second graph removed."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("policy", "adapt"):
        for suffix in SUFFIXES.values():
            (folder / f"{name}{suffix}").unlink(missing_ok=True)
    text = json.dumps(told, indent=1, allow_nan=False)
    for name, graph in graphs.items():
        write_graph(graph, folder / f"{name}{SUFFIXES[form]}", form, text)
    np.savez(folder / INITIAL, **{name: np.asarray(value) for name, value in initial.items()})  # type: ignore[arg-type]
    write_text(folder / DESCRIPTION, text + "\n")
    write_text(folder / PROGRAM, Path(runner.__file__).read_text(encoding="utf-8"))
    return (*(f"{name}{SUFFIXES[form]}" for name in graphs), DESCRIPTION, INITIAL, PROGRAM)


def load_runner(folder: Path) -> Runner:
    """The policy that was exported into `folder`, on one thread. ExportError where there is none."""
    try:
        return runner.load(folder)
    except FileNotFoundError as error:
        raise ExportError(str(error)) from error
    except ImportError as error:
        raise ExportError(f"{folder} needs {error.name}, which is not installed: pip install metarl[export]") from error
