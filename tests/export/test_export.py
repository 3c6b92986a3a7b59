"""Exports act as the agent does; what cannot be exported is refused."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metarl.agent.interface import Interface
from metarl.agent.loading import deployment_plan, load_agent
from metarl.algorithms.base import EvaluationSettings
from metarl.algorithms.graphs import Graph, Rounds
from metarl.algorithms.registry import build_algorithm, load_algorithm, resolve_preset
from metarl.errors import ExportError
from metarl.export import Runner, compare, export_run, load_runner
from metarl.export.description import rounds_of
from metarl.export.units import InRobotUnits, in_robot_units
from metarl.export.writing import graphs_of
from metarl.rollout.spaces import Spaces, env_action_map
from metarl.runs.build import load_run
from metarl.tasks import load_distribution
from tests.agent.following import agent_for
from tests.run_contents import EXPERIMENTS

PRETRAINED = sorted(path.parent for path in EXPERIMENTS.glob("pretrained/*/config.yaml"))
POINT, MDP = load_distribution("PointGoal", horizon=7), load_distribution("TabularMDP", horizon=7)
MAML = {"num_streams": 3, "hidden": [8, 8]}
RL2 = {"encoded_obs_dim": 8, "head_dim": 8}
PEARL = {"hidden_dim": 8}
VARIANTS: dict[str, dict[str, Any]] = {
    **{name: {"name": name, **MAML} for name in ("promp", "anil", "meta_sgd", "reptile")},
    "cubic baseline": {"name": "promp", **MAML, "baseline": "cubic", "gae_lambda": 0.9},
    "bootstrapped": {"name": "promp", **MAML, "bootstrap_truncated": True},
    "gru": {"name": "rl2", **RL2, "core": {"name": "gru", "hidden_dim": 8}},
    "lstm": {"name": "rl2", **RL2, "core": {"name": "lstm", "hidden_dim": 8}},
    "transformer": {"name": "rl2", **RL2, "core": {"name": "transformer", "hidden_dim": 8, "num_heads": 2}},
    "memoryless": {"name": "rl2", **RL2, "memory": "none"},
    "product": {"name": "pearl", **PEARL, "encoder": {"name": "permutation_invariant", "hidden_dim": 8}},
    "in order": {"name": "pearl", **PEARL, "encoder": {"name": "recurrent", "hidden_dim": 8}, "next_observation": True},
}
DISCRETE = ("promp", "gru", "transformer")


def algorithm_of(section: dict[str, Any], spaces: Spaces) -> Any:
    resolved = resolve_preset(section)
    plugin: Any = load_algorithm(resolved["name"])
    return build_algorithm(plugin.config(**resolved), spaces, torch.device("cpu"), 0)


def in_torch(graph: Graph) -> Any:
    """A graph's module, called by name without being written."""

    def call(given: Any) -> dict[str, np.ndarray]:
        with torch.no_grad():
            values = graph.module(*(torch.from_numpy(np.ascontiguousarray(given[p.name])) for p in graph.inputs))
        return {port.name: value.numpy() for port, value in zip(graph.outputs, values, strict=True)}

    return call


@pytest.mark.parametrize("deterministic", [True, False], ids=["means", "samples"])
@pytest.mark.parametrize(
    ("variant", "kind"),
    [*((name, "continuous") for name in VARIANTS), *((name, "discrete") for name in DISCRETE)],
)
def test_the_graphs_of_every_algorithm_act_and_adapt_as_the_agent_does(variant, kind, deterministic):
    distribution = POINT if kind == "continuous" else MDP
    env = distribution.make(distribution.sample("train", 1, 0)[0])
    spaces = Interface(env.observation_space, env.action_space).spaces
    algorithm = algorithm_of(VARIANTS[variant], spaces)
    plan = deployment_plan(algorithm, 7, EvaluationSettings(1, deterministic=deterministic))
    agent = agent_for(algorithm, distribution, plan, None)
    parts = graphs_of(algorithm, agent)
    act = in_robot_units(parts.act, env.action_space)
    ports = [
        {"name": p.name, "shape": p.shape, "dtype": p.dtype, "draw": p.draw, "draw_at": p.draw_at}
        for p in act.inputs
        if p.draw
    ]
    adapt_ports = [{"name": port.name} for port in (parts.adapt.inputs if parts.adapt else ())]
    graphs = {"policy": {"inputs": ports}, "adapt": {"inputs": adapt_ports}}
    observation = {"flat_size": spaces.obs_dim}
    told = {"graphs": graphs, "rounds": rounds_of(agent), "horizon": 7, "observation": observation}
    runner = Runner(in_torch(act), in_torch(parts.adapt) if parts.adapt else None, told, parts.initial)
    found = compare(agent, runner, distribution, steps=100)
    assert found.steps >= 100
    assert found.difference < 1e-5
    assert found.robot_difference < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("run", PRETRAINED, ids=lambda path: path.name)
def test_the_onnx_export_of_every_pretrained_run_equals_its_agent(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    exported = export_run(load_run(run), tmp_path)
    assert exported.comparison.steps >= 500
    assert exported.comparison.adaptations >= 1
    assert exported.comparison.difference <= 1e-5


def test_an_onnx_export_tells_inside_and_outside_what_it_needs(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    run = load_run(EXPERIMENTS / "pretrained" / "point_goal_pearl")
    exported = export_run(run, tmp_path, steps=50)
    assert set(exported.files) == {path.name for path in tmp_path.iterdir()}
    told = json.loads((tmp_path / "policy.json").read_text())
    assert told["action"]["low"] == pytest.approx(-0.1)
    assert told["control_period_s"] == pytest.approx(0.05)
    assert told["task_distribution"]["name"] == "PointGoal"
    assert [round_["adapt"] for round_ in told["rounds"]] == [True, True, True]
    for name in ("policy", "adapt"):
        model = onnx.load(tmp_path / f"{name}.onnx")
        onnx.checker.check_model(model)
        assert json.loads({p.key: p.value for p in model.metadata_props}["metarl"]) == told
        assert [value.name for value in model.graph.input] == [port["name"] for port in told["graphs"][name]["inputs"]]
        assert [value.name for value in model.graph.output] == [
            port["name"] for port in told["graphs"][name]["outputs"]
        ]


def test_a_torch_export_acts_as_the_agent_does_and_is_read_without_the_algorithm(tmp_path: Path) -> None:
    run = load_run(EXPERIMENTS / "pretrained" / "sparse_point_rl2")
    exported = export_run(run, tmp_path, "torch", steps=100)
    assert exported.files == ("policy.pt2", "policy.json", "initial_state.npz", "run_policy.py")
    assert load_runner(tmp_path).act(np.zeros(2)).shape == (2,)


def test_an_export_that_acts_otherwise_is_refused_and_removed(tmp_path: Path) -> None:
    run = load_run(EXPERIMENTS / "pretrained" / "sparse_point_rl2")
    with pytest.raises(ExportError, match=r"does not act as the agent does: in .* differ by at most .*Nothing was"):
        export_run(run, tmp_path, "torch", steps=100, tolerance=1e-12)
    assert not list(tmp_path.iterdir())


def test_a_policy_without_graphs_is_refused_by_name() -> None:
    algorithm = algorithm_of({"name": "toy_algorithm:Toy"}, Spaces(2, 2))
    agent = agent_for(algorithm, POINT, algorithm.evaluation_plan(7, EvaluationSettings(1)), None)
    with pytest.raises(ExportError, match="Toy cannot be exported: it has no method export_graphs"):
        graphs_of(algorithm, agent)


def test_fine_tuning_has_no_graph() -> None:
    algorithm = algorithm_of({"name": "rl2", **RL2, "memory": "none", "fine_tuning": {}}, Spaces(2, 2))
    with pytest.raises(ExportError, match="fine_tuning"):
        algorithm.export_graphs(Rounds(1, 7))


def test_a_plan_with_rounds_of_several_sizes_has_no_single_graph() -> None:
    trained = load_run(EXPERIMENTS / "pretrained" / "half_cheetah_dir_promp")
    agent = load_agent(trained, support_episodes=2)
    first, last = agent.plan.rounds
    agent.plan = replace(agent.plan, rounds=(first, replace(first, support_streams=3), last))
    with pytest.raises(ExportError, match=r"rounds of \[2, 3\] episodes"):
        graphs_of(trained.algorithm, agent)


def test_the_program_in_the_folder_samples_where_the_plan_does_and_repeats_with_a_seed(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    export_run(load_run(EXPERIMENTS / "pretrained" / "half_cheetah_dir_promp"), tmp_path, steps=1)
    spec = importlib.util.spec_from_file_location("run_policy", tmp_path / "run_policy.py")
    assert spec is not None
    assert spec.loader is not None
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    policy = program.load(tmp_path)
    obs = np.linspace(-1, 1, 17)

    def actions(seed: int | None) -> np.ndarray:
        policy.begin_task(seed)
        assert not policy.is_deterministic  # support episodes of a gradient step are sampled
        found = []
        for _ in range(3):
            found.append(policy.act(obs))
            policy.observe(0.0)
        return np.stack(found)

    np.testing.assert_array_equal(actions(1), actions(1))
    assert not np.array_equal(actions(1), actions(2))
    assert not np.array_equal(actions(None), actions(None))
    with pytest.raises(FileNotFoundError, match=r"it has no policy\.json"):
        program.load(tmp_path / "elsewhere")


def test_a_folder_without_an_export_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"no exported policy: it has no policy\.json"):
        load_runner(tmp_path)


def test_a_runtime_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    export_run(load_run(EXPERIMENTS / "pretrained" / "sparse_point_rl2"), tmp_path, steps=1)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ExportError, match=r"needs onnxruntime, which is not installed: pip install metarl\[export\]"):
        load_runner(tmp_path)


class _Given(torch.nn.Module):
    def forward(self, action: torch.Tensor) -> tuple[torch.Tensor]:
        return (action,)


def box(low: Any, high: Any, dtype: Any = np.float32) -> Any:
    from gymnasium.spaces import Box

    return Box(np.array(low, dtype), np.array(high, dtype), dtype=dtype)


@pytest.mark.parametrize(
    "space",
    [
        box([-1, -1], [1, 1]),
        box([-2, 0], [3, 10]),
        box([-np.inf, -5], [np.inf, np.inf]),
        box([0.1, -0.3], [0.7, 0.9], np.float64),
        box([0, -10], [255, 10], np.int32),
    ],
    ids=["unit", "scaled", "half open", "double", "integers"],
)
def test_actions_reach_the_robot_as_in_rollouts(space: Any) -> None:
    actions = np.random.default_rng(0).normal(0, 2, (200, 2)).astype(np.float32)
    scaled, given = InRobotUnits(_Given(), space)(torch.from_numpy(actions))
    expected = env_action_map(space)(actions)
    assert scaled.numpy().dtype == expected.dtype
    np.testing.assert_allclose(scaled.numpy(), expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(given.numpy(), actions)
