"""How long a robot waits for its policy: acting and adapting, by the agent and by its ONNX export, on one core.

For each pretrained run, its own observations and rewards: `act` and `observe` of the agent, `act` of the export, and
the adaptation of an episode or a round, in turn with one another. Beside them a plain torch module of the actor's size,
called as usual (a tensor of the observation, no gradient, back to NumPy). The last line is one JSON object.

    python experiments/benchmarks/latency.py [--steps 2000] [--runs half_cheetah_dir_promp ...]
"""

from __future__ import annotations

import os

os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

import argparse
import itertools
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metarl.agent import Agent, load_agent
from metarl.export import Runner, export_run, load_runner
from metarl.kernels.processor import processor_description
from metarl.runs.build import load_run

PRETRAINED = Path(__file__).parents[1] / "pretrained"
PERIOD_US = 10_000.0  # of a control loop at 100 Hz
TRANSITIONS = 2000  # that one adaptation is timed with
_clock = time.perf_counter


class Times:
    """Microseconds by name."""

    def __init__(self) -> None:
        self.found: dict[str, list[float]] = {}

    def __call__(self, name: str, start: float) -> None:
        self.found.setdefault(name, []).append(1e6 * (_clock() - start))

    def percentile(self, name: str, q: float) -> float:
        return float(np.percentile(self.found[name], q))


def plain_module(run: str, agent: Agent) -> torch.nn.Module:
    """A perceptron as wide as the run's actor, or a GRU with its heads."""
    spaces = agent.interface.spaces
    if "memory" in agent.belief:
        return torch.nn.ModuleList(
            [torch.nn.Linear(spaces.obs_dim, 64), torch.nn.GRUCell(64, 128), torch.nn.Linear(128, spaces.action_dim)]
        )
    width, layers = (64, 2) if run.endswith("promp") else (int(agent.weights["actor.w0"].shape[1]), 3)
    sizes = [spaces.obs_dim, *[width] * layers, spaces.action_dim]
    parts: list[torch.nn.Module] = []
    for fan_in, fan_out in itertools.pairwise(sizes):
        parts += [torch.nn.Linear(fan_in, fan_out), torch.nn.Tanh()]
    return torch.nn.Sequential(*parts[:-1])


def call_plain(module: torch.nn.Module, observation: np.ndarray, memory: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        x = torch.as_tensor(observation, dtype=torch.float32)[None]
        if isinstance(module, torch.nn.ModuleList):
            memory = module[1](torch.relu(module[0](x)), memory)
            module[2](memory).numpy()
        else:
            module(x).numpy()
    return memory


def measure_acting(agent: Agent, runner: Runner, module: torch.nn.Module, steps: int, times: Times) -> None:
    """All three in turn, step by step, on the same observations."""
    rng = np.random.default_rng(0)
    memory, obs_dim = torch.zeros(1, 128), agent.interface.obs_dim
    agent.begin_task()
    runner.begin_task()
    for step in range(steps + 50):
        obs, following, reward = (
            rng.standard_normal(obs_dim),
            rng.standard_normal(obs_dim),
            float(rng.standard_normal()),
        )
        record = times if step >= 50 else Times()
        start = _clock()
        agent.act(obs)
        record("act", start)
        start = _clock()
        agent.observe(reward, False, False, following)
        record("observe", start)
        start = _clock()
        runner.act(obs)
        record("export act", start)
        runner.observe(reward)
        start = _clock()
        memory = call_plain(module, obs, memory)
        record("plain torch", start)
        if agent.episode_over:
            agent.end_episode()
            runner.end_episode(True, following)


def measure_adaptation(run: Path, folder: Path, repeats: int, times: Times) -> None:
    """The end of the round, or the episode, that makes TRANSITIONS transitions."""
    trained = load_run(run)
    is_family = "promp" in run.name
    horizon = 100 if is_family else TRANSITIONS
    how: dict[str, Any] = {"horizon": horizon, **({"support_episodes": TRANSITIONS // horizon} if is_family else {})}
    export_run(trained, folder, steps=1, **how)
    agent, runner, rng = load_agent(trained, **how), load_runner(folder), np.random.default_rng(0)
    for repeat in range(repeats + 1):
        agent.begin_task(repeat)
        runner.begin_task()
        while agent.status.round == 1:
            for _ in range(horizon):
                obs, reward = rng.standard_normal(agent.interface.obs_dim), float(rng.standard_normal())
                for one in (agent, runner):
                    one.act(obs)
                agent.observe(reward, False, False, obs)
                runner.observe(reward)
            adapts = agent.status.episodes_until_adaptation == 1
            record = times if adapts and repeat else Times()
            start = _clock()
            agent.end_episode()
            record("adapt", start)
            start = _clock()
            runner.end_episode(True, obs)
            record("export adapt", start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=5, help="of an adaptation")
    parser.add_argument(
        "--runs", nargs="*", default=sorted(path.name for path in PRETRAINED.iterdir() if path.is_dir())
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    print(f"processor: {processor_description()}; one core; control period {PERIOD_US:,.0f} us")
    result = {}
    for name in arguments.runs:
        times = Times()
        with tempfile.TemporaryDirectory() as folder:
            export_run(load_run(PRETRAINED / name), Path(folder))
            agent = load_agent(PRETRAINED / name)
            agent.begin_task()
            measure_acting(agent, load_runner(Path(folder)), plain_module(name, agent), arguments.steps, times)
            measure_adaptation(PRETRAINED / name, Path(folder), arguments.repeats, times)
        print(f"\n{name}")
        for what in times.found:
            p50, p99 = times.percentile(what, 50), times.percentile(what, 99)
            print(f"  {what:14} p50 {p50:9,.1f} us   p99 {p99:9,.1f} us   {100 * p99 / PERIOD_US:6.1f} % of the period")
        result[name] = {
            "act_p50_us": round(times.percentile("act", 50), 1),
            "act_p99_us": round(times.percentile("act", 99), 1),
            "adapt_ms": round(times.percentile("adapt", 50) / 1000, 2),
            "export_act_p50_us": round(times.percentile("export act", 50), 1),
            "plain_torch_p50_us": round(times.percentile("plain torch", 50), 1),
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
