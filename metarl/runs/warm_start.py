"""A new run that begins with the weights of another: `metarl train CONFIG --from RUN`.

What is taken over are the floating-point tensors that a freshly built algorithm has: networks and normalisers. An
optimiser's moments, counters, random states and experience begin anew, so hyper-parameters may differ, and the
algorithm too where its networks have the same names and shapes. `origin.json` in the run directory says where they came
from.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from metarl.algorithms.base import Algorithm
from metarl.config import load_stored_config
from metarl.errors import CheckpointError, ConfigError
from metarl.files import write_text
from metarl.runs import checkpoint

ORIGIN = "origin.json"
_NOT_WEIGHTS = ("adam.", "replay.", "contexts.", "lagged.")
_MOST_NAMED = 4
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WarmStart:
    """The weights of a run's newest checkpoint, and where they come from."""

    run: str
    iteration: int
    algorithm: str
    task_distribution: str
    weights: Mapping[str, torch.Tensor] = field(repr=False)

    @property
    def origin(self) -> dict[str, Any]:
        """What origin.json holds."""
        return {key: value for key, value in asdict(self).items() if key != "weights"}


def read_warm_start(path: Path, run: str) -> WarmStart:
    """The weights of the run directory `path`, called `run`; ConfigError or CheckpointError where it is none."""
    if not (path / "config.yaml").is_file():
        raise ConfigError(f"--from {run}: not a run directory: it has no config.yaml")
    config, saved = load_stored_config(path / "config.yaml"), checkpoint.load_latest(path / "checkpoints")
    return WarmStart(
        run, saved.iteration, config.algorithm_name, config.task_distribution.name, _weights_among(saved.tensors)
    )


def apply_warm_start(start: WarmStart, algorithm: Algorithm) -> None:
    """Give a freshly built algorithm the weights of `start`.

    CheckpointError naming the weights and both shapes where they do not fit. An algorithm that only adds weights (as
    Meta-SGD adds rates to MAML), or lacks some, is warned of.
    """
    fresh = algorithm.state_dict()
    own, given = _weights_among(fresh), start.weights
    shared = [name for name in own if name in given]
    wrong = [
        f"{name} {tuple(given[name].shape)} there, {tuple(own[name].shape)} here"
        for name in shared
        if given[name].shape != own[name].shape
    ]
    missing, unused = [name for name in own if name not in given], [name for name in given if name not in own]
    if wrong or not shared or (missing and unused):
        differ = wrong or [f"only there: {_named(unused)}", f"only here: {_named(missing)}"]
        raise CheckpointError(
            f"the weights of {start.run} ({start.algorithm} on {start.task_distribution}) do not fit this "
            f"configuration: {_named(differ, '; ')}"
        )
    if missing or unused:
        what = f"{_named(missing)} keep their initial values" if missing else f"{_named(unused)} are not used"
        _log.warning("weights from %s: %s", start.run, what)
    algorithm.load_state_dict({**fresh, **{name: given[name].to(own[name].dtype) for name in shared}})


def check_origin(run_dir: Path, start: WarmStart | None, is_restored: bool) -> None:
    """ConfigError where the run in `run_dir` began from other weights than `start`, or would now begin without them."""
    try:
        origin = json.loads((run_dir / ORIGIN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        origin = None
    if start is None and origin is not None and not is_restored:
        raise ConfigError(f"{run_dir} begins with the weights of {origin['run']}: add --from {origin['run']}")
    if start is not None and is_restored and (origin is None or origin["run"] != start.run):
        began = f"with the weights of {origin['run']}" if origin else "with weights of its own"
        raise ConfigError(f"--from {start.run}: the run in {run_dir} began {began}: leave out --from to continue it")


def write_origin(run_dir: Path, start: WarmStart | None) -> None:
    """Say where a new run's weights come from; nothing where they are its own."""
    if start is None:
        (run_dir / ORIGIN).unlink(missing_ok=True)
    else:
        write_text(run_dir / ORIGIN, json.dumps(start.origin, indent=1) + "\n")


def _weights_among(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        name: value for name, value in state.items() if value.is_floating_point() and not name.startswith(_NOT_WEIGHTS)
    }


def _named(names: list[str], separator: str = ", ") -> str:
    more = f"{separator}and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return separator.join(names[:_MOST_NAMED]) + more
