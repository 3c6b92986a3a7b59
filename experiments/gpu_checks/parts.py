"""The checks. A part yields (name, check); a check returns what it found, with `ok` where it can be wrong.

Every check stands alone: what one raises is recorded, and the next one runs.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock
from xml.etree import ElementTree

import numpy as np
import torch
import torch._dynamo  # optimisers import it at their first step: better once, before processes fork
from torch import Tensor

import metarl.algorithms.maml
import metarl.algorithms.pearl
import metarl.algorithms.rl2  # noqa: F401
from gpu_checks import host_syncs
from gpu_checks.benchmark import benchmark
from gpu_checks.learners import Learner
from metarl.algorithms.base import Algorithm
from metarl.config import load_config
from metarl.rollout.local import LocalExecutor
from metarl.rollout.types import TrialBatch
from metarl.runs import checkpoint
from metarl.training.loop import train

ROOT = Path(__file__).resolve().parents[2]
Check = Callable[[], dict[str, Any]]


@dataclass(frozen=True)
class Setting:
    """What is checked where. `is_rehearsal`: on the CPU, with small sizes."""

    device: torch.device
    learners: Mapping[str, Learner]
    is_rehearsal: bool


# --- the tests marked gpu ----------------------------------------------------------------------------


def gpu_tests(setting: Setting) -> Iterator[tuple[str, Check]]:
    yield "pytest -m gpu", lambda: run_gpu_tests(setting.is_rehearsal)


def run_gpu_tests(may_skip: bool) -> dict[str, Any]:
    """Runs the test files that hold tests marked `gpu`; without a GPU these are skipped."""
    files = [str(path) for path in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.gpu" in path.read_text()]
    assert files, "no test file holds mark.gpu"
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", f"--junitxml={report}", *files]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        suite = next(ElementTree.parse(report).getroot().iter("testsuite"))
    number = {f"num_{name}": int(suite.attrib[name]) for name in ("tests", "skipped", "failures", "errors")}
    ok = done.returncode == 0 and number["num_tests"] > 0 and (may_skip or number["num_skipped"] == 0)
    return {"ok": ok, **number, "output": done.stdout[-4000:]}


# --- equality ----------------------------------------------------------------------------------------

# Relative error of an update's step, |GPU's - CPU's| / |CPU's|. On a CPU, float32 differs from float64 by 6e-6 at most
# (MAML 3e-6, PEARL 6e-6); TF32 would differ by more than 1e-3.
TOLERANCE = {"float32": 1e-3, "float64": 1e-9}


def equality(setting: Setting) -> Iterator[tuple[str, Check]]:
    for name, learner in setting.learners.items():
        yield f"{name}, float32", partial(compare_devices, learner, setting.device, torch.float32)
        if learner.has_float64:
            yield f"{name}, float64", partial(compare_devices, learner, setting.device, torch.float64)
        else:
            yield f"{name}, float64", lambda: {"skipped": "the algorithm computes in float32"}


def compare_devices(learner: Learner, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """One update on the CPU and on the device, of the same weights and trials, without TF32."""
    trials = learner.trials
    torch.backends.cudnn.allow_tf32 = False
    changes = {"gradient_steps": 3} if learner.has_key("gradient_steps") else {}
    weights = learner.build(torch.device("cpu"), **changes).state_dict()  # those that the trials were collected with
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        on_cpu, on_device = (learner.build(place, **changes) for place in (torch.device("cpu"), device))
        for algorithm in (on_cpu, on_device):
            own = algorithm.state_dict()
            algorithm.load_state_dict({name: value.to(own[name].dtype) for name, value in weights.items()})
        if dtype == torch.float64:
            trials = [_double(batch) for batch in trials]
        start = parameters(on_cpu)
        with _same_draws(on_cpu, device):
            metrics = [algorithm.update(trials, 0.0) for algorithm in (on_cpu, on_device)]
    finally:
        torch.set_default_dtype(before)
    expected, found = (parameters(algorithm) - start for algorithm in (on_cpu, on_device))
    error = float((found - expected).norm() / expected.norm())
    tolerance = TOLERANCE[_name(dtype)]
    differences = {key: abs(metrics[0][key] - metrics[1][key]) for key in metrics[0]}
    return {
        "ok": error <= tolerance,
        "relative_error": error,
        "tolerance": tolerance,
        "is_float64": all(value.dtype == torch.float64 for value in _parameters(on_device).values()),
        "largest_metric_difference": max(differences.values()),
    }


def _parameters(algorithm: Algorithm) -> dict[str, Tensor]:
    return {n: v for n, v in algorithm.state_dict().items() if n.startswith(("params.", "weights."))}


def parameters(algorithm: Algorithm) -> Tensor:
    """All parameters as one float64 vector on the CPU."""
    return torch.cat([value.double().cpu().flatten() for value in _parameters(algorithm).values()])


@contextmanager
def _same_draws(algorithm: Algorithm, device: torch.device) -> Iterator[None]:
    """A learner on the CPU and then one on `device` are given the same meta-batches, where they draw them (PEARL): a
    GPU's generator gives other numbers than a CPU's."""
    module = sys.modules[type(algorithm).__module__]
    if not hasattr(module, "draw_meta_batch"):
        yield
        return
    draw = module.draw_meta_batch
    drawn: list[Any] = []

    def share(replay: Any, contexts: Any, config: Any, generator: torch.Generator) -> Any:
        if len(drawn) < config.gradient_steps:
            batch = draw(replay, contexts, config, generator)
            drawn.append(batch)
            return batch
        replayed.append(drawn[len(replayed)])
        return _to(device, replayed[-1])

    replayed: list[Any] = []
    with mock.patch.object(module, "draw_meta_batch", share):
        yield
    assert len(replayed) == len(drawn)


def _to(device: torch.device, value: Any) -> Any:
    """Tensors in tuples, lists and dataclasses, on `device`."""
    if isinstance(value, Tensor):
        return value.to(device)
    if is_dataclass(value) and not isinstance(value, type):
        return type(value)(**{f.name: _to(device, getattr(value, f.name)) for f in fields(value)})
    return type(value)(_to(device, part) for part in value)


def _double(value: Any) -> Any:
    """float32 arrays in dicts, tuples and dataclasses as float64."""
    if isinstance(value, np.ndarray):
        return value.astype(np.float64) if value.dtype == np.float32 else value
    if isinstance(value, dict):
        return {name: _double(part) for name, part in value.items()}
    if is_dataclass(value) and not isinstance(value, type) and type(value).__module__.startswith("metarl.rollout"):
        return type(value)(**{f.name: _double(getattr(value, f.name)) for f in fields(value)})
    return tuple(map(_double, value)) if type(value) is tuple else value


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


# --- resume ------------------------------------------------------------------------------------------


def resume(setting: Setting) -> Iterator[tuple[str, Check]]:
    for name, learner in setting.learners.items():
        yield name, partial(compare_resumed, learner, setting.device)


def compare_resumed(learner: Learner, device: torch.device) -> dict[str, Any]:
    """Two updates in a row against two with a checkpoint between them, bit by bit, in deterministic mode.

    `repeats_by_default`: whether two equal updates give equal bits without deterministic mode, too.
    """
    trials = learner.trials
    repeated = [learner.build(device) for _ in range(2)]
    for algorithm in repeated:
        algorithm.update(trials, 0.0)
    torch.use_deterministic_algorithms(True)
    try:
        straight, interrupted, resumed = learner.build(device), learner.build(device), learner.build(device, seed=99)
        for _ in range(2):
            straight.update(trials, 0.0)
        interrupted.update(trials, 0.0)
        with tempfile.TemporaryDirectory() as folder:
            checkpoint.save(Path(folder), 1, interrupted.state_dict(), {})
            resumed.load_state_dict(checkpoint.load_latest(Path(folder)).tensors)
        resumed.update(trials, 0.0)
    finally:
        torch.use_deterministic_algorithms(False)
    return {
        "ok": not (different := unequal(straight, resumed)),
        "different": different,
        "repeats_by_default": not unequal(*repeated),
    }


def unequal(a: Algorithm, b: Algorithm) -> list[str]:
    """The names of the tensors in which two learners' states differ."""
    theirs = b.state_dict()
    return [name for name, value in a.state_dict().items() if not torch.equal(value, theirs[name])]


# --- speed, training ---------------------------------------------------------------------------------


def speed(setting: Setting) -> Iterator[tuple[str, Check]]:
    """Updates per second of every learner, on the CPU and in every mode of the device."""
    for name, learner in setting.learners.items():
        yield from benchmark(name, learner, setting.device, setting.is_rehearsal)


RUNS = {
    "ProMP": ("half_cheetah_dir_promp.yaml", "point_goal.yaml", ["algorithm.num_streams=4"]),
    "RL2": ("half_cheetah_vel_rl2.yaml", "point_goal_rl2.yaml", []),
    "PEARL": (
        "half_cheetah_vel_pearl.yaml",
        "point_goal_pearl.yaml",
        ["algorithm.num_train_tasks=8", "algorithm.initial_episodes=1", "algorithm.gradient_steps=4"],
    ),
}


def training(setting: Setting) -> Iterator[tuple[str, Check]]:
    for name, (full, small, overrides) in RUNS.items():
        if setting.is_rehearsal:
            overrides = [*overrides, "algorithm.tasks_per_iteration=8", "training.iterations=2"]
            yield name, partial(train_shortly, small, overrides, setting.device)
        else:
            limits = ["training.iterations=40", "training.time_limit_minutes=0.4"]
            yield name, partial(train_shortly, full, limits, setting.device)


def train_shortly(config_file: str, overrides: list[str], device: torch.device) -> dict[str, Any]:
    """A short run with the local executor; how its iterations after the first divide their time."""
    quiet = ["training.evaluate_every=0", "training.checkpoint_every=1000000", f"device={device.type}"]
    config = load_config(ROOT / "experiments" / config_file, [*overrides, *quiet])
    with tempfile.TemporaryDirectory() as folder:
        outcome = train(config, Path(folder) / "run", LocalExecutor)
        lines = (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines][1:]
    seconds = {kind: sum(record[f"{kind}_s"] for record in records) for kind in ("sample", "learn", "other")}
    total = sum(seconds.values())
    shares = {f"{kind}_share": value / total for kind, value in seconds.items()}
    rate = sum(record["env_steps_per_s"] for record in records) / len(records)
    return {"config": config_file, "iterations": outcome.iteration, "env_steps_per_s": rate, **shares}


# --- memory ------------------------------------------------------------------------------------------


def memory(setting: Setting) -> Iterator[tuple[str, Check]]:
    """Peak memory of an update, by tasks per chunk where the learner has chunks."""
    for name, learner in setting.learners.items():
        trials = learner.trials
        num_tasks = sum(len(batch.tasks) for batch in trials)
        sizes = sorted({1, num_tasks // 8, num_tasks // 2, num_tasks} - {0}) if learner.has_key("chunk_tasks") else [0]
        for size in sizes:
            label = f"{name}, {size} tasks per chunk" if size else name
            yield label, partial(peak_memory, learner, trials, size, setting.device)


def peak_memory(learner: Learner, trials: list[TrialBatch], chunk_tasks: int, device: torch.device) -> dict[str, Any]:
    """Bytes at the peak of one update, beyond those of the learner itself; None on a CPU, which does not count them."""
    algorithm = learner.build(device, **({"chunk_tasks": chunk_tasks} if chunk_tasks else {}))
    found: dict[str, Any] = {"chunk_tasks": chunk_tasks or None, "peak_bytes": None, "learner_bytes": None}
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        found["learner_bytes"] = torch.cuda.memory_allocated(device)
    algorithm.update(trials, 0.0)
    if device.type == "cuda":
        found["peak_bytes"] = torch.cuda.max_memory_allocated(device) - found["learner_bytes"]
        found["free_bytes"], found["total_bytes"] = torch.cuda.mem_get_info(device)
    return found


# --- synchronisations --------------------------------------------------------------------------------


def synchronisations(setting: Setting) -> Iterator[tuple[str, Check]]:
    """Operations of a second update for which the host waits: PyTorch's own count on a GPU, else the stand-in's."""
    for name, learner in setting.learners.items():
        count = count_on_gpu if setting.device.type == "cuda" else count_on_stand_in
        yield name, partial(count, learner, setting.device)


def count_on_gpu(learner: Learner, device: torch.device) -> dict[str, Any]:
    algorithm, trials = learner.build(device), learner.trials
    algorithm.update(trials, 0.0)
    places: dict[str, int] = {}
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            algorithm.update(trials, 0.0)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for warning in caught:
        if "synchroniz" in str(warning.message):
            place = f"{re.sub('.*/metarl/', 'metarl/', warning.filename)}:{warning.lineno}"
            places[place] = places.get(place, 0) + 1
    return {"total": sum(places.values()), "places": places}


def count_on_stand_in(learner: Learner, device: torch.device) -> dict[str, Any]:
    """Counts of a second update by kind, and by place."""
    stand_in = host_syncs.stand_in_device()
    trials = learner.trials
    chunk = {"chunk_tasks": sum(len(batch.tasks) for batch in trials)} if learner.has_key("chunk_tasks") else {}
    with host_syncs.counted() as counts:
        algorithm = learner.build(stand_in, **chunk)
        algorithm.update(trials, 0.0)
        counts.clear()
        algorithm.update(trials, 0.0)
        places = {f"{kind} {place}": number for (kind, place), number in counts.most_common()}
        return {**host_syncs.totals(counts), "places": places}


# name -> (part, seconds that it may take)
PARTS: dict[str, tuple[Callable[[Setting], Iterator[tuple[str, Check]]], float]] = {
    "tests": (gpu_tests, 75.0),
    "equality": (equality, 60.0),
    "resume": (resume, 60.0),
    "speed": (speed, 150.0),
    "training": (training, 110.0),
    "memory": (memory, 40.0),
    "synchronisations": (synchronisations, 30.0),
}
