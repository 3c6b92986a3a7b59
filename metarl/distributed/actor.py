"""What runs in a worker process. No exception leaves it: a failure is a result, as text, so it always arrives whole."""

from __future__ import annotations

import os
import signal
import site
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Literal

import ray
from ray import cloudpickle

import metarl.errors
from metarl.distributed.ledger import WorkerTracebackError
from metarl.errors import EnvironmentFault, MetarlError, TrainingError
from metarl.plugins import INSTALLED
from metarl.rollout.types import TrialBatch, Unit, Weights
from metarl.rollout.worker import UnitRunner

# Set before numpy and torch are imported: one thread of each kind per worker.
WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "METARL_PHYSICS_THREADS": "1",
}


@dataclass(frozen=True)
class Failure:
    """Why a call gave no trial. `environment`: trying again may help; `input`: the user's mistake, `error_type`
    names the class in metarl.errors; `program`: anything else."""

    kind: Literal["environment", "input", "training", "program"]
    error_type: str
    message: str
    traceback: str

    @staticmethod
    def of(error: BaseException) -> Failure:
        kind: Literal["environment", "input", "training", "program"] = "program"
        if isinstance(error, EnvironmentFault):
            kind = "environment"
        elif isinstance(error, MetarlError):
            kind = "input"
        elif isinstance(error, TrainingError):
            kind = "training"
        return Failure(kind, type(error).__name__, str(error), traceback.format_exc())

    def exception(self, where: str = "") -> Exception:
        """The error to raise in the process that learns of it; a bug keeps its traceback, as the error's cause."""
        error: Exception
        if self.kind == "program":
            error = RuntimeError(f"{where}{self.error_type}: {self.message}")
        else:
            error = getattr(metarl.errors, self.error_type, MetarlError)(self.message)
        error.__cause__ = WorkerTracebackError(self.traceback)
        return error


class RolloutActor:
    """Runs units, one after the other."""

    def __init__(self, payload: bytes, search_path: Sequence[str]):
        """`payload`: the pickled (task distribution, policy); `search_path`: where their modules are found."""
        signal.signal(signal.SIGTERM, _die)
        adopt_search_path(search_path)
        self._runner: UnitRunner | Failure
        try:
            distribution, policy = cloudpickle.loads(payload)
            self._runner = UnitRunner(distribution, policy)
        except Exception as error:
            self._runner = Failure.of(error)

    def started(self) -> tuple[str, Failure | None]:
        """The id of its node, and why the actor can run no unit where that is so."""
        return ray.get_runtime_context().get_node_id(), self._runner if isinstance(self._runner, Failure) else None

    def run(self, unit: Unit, weights: Weights, version: int) -> TrialBatch | Failure:
        if isinstance(self._runner, Failure):
            return self._runner
        try:
            return self._runner.run(unit, weights, version)
        except Exception as error:
            return Failure.of(error)


def _die(number: int, frame: FrameType | None) -> None:
    """End the process. Ray's own handler raises SystemExit, which an environment under way seems to have raised."""
    os._exit(128 + number)


def driver_search_path() -> tuple[str, ...]:
    """Where the driver finds modules, the working directory included, as absolute paths."""
    entries = [os.path.abspath(entry) for entry in sys.path]  # "" is the working directory
    return tuple(dict.fromkeys([*entries, os.getcwd()]))


def adopt_search_path(search_path: Sequence[str]) -> None:
    """Find modules where the driver does, in the same order; what exists only here comes last.

    Packages installed for this process alone (a Python of its own, see TaskDistribution.requirements) come before the
    driver's.
    """
    wanted = [entry for entry in search_path if os.path.exists(entry)]
    rest = [entry for entry in sys.path if os.path.abspath(entry) not in wanted]
    own = [entry for entry in rest if entry in site.getsitepackages()]
    first = next((i for i, entry in enumerate(wanted) if Path(entry).name in INSTALLED), len(wanted))
    sys.path[:] = [*wanted[:first], *own, *wanted[first:], *(entry for entry in rest if entry not in own)]
