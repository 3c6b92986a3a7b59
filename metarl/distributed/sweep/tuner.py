"""The runs of a sweep on Ray Tune: which start where and when, which are stopped early, how all are stopped.

    main thread: passes a signal on          thread: Tuner.fit() -> trials, one process each
              \\----- stop file --->          every run saves; then `Progress` ends Tune's loop

What a run has done is in its directory alone. Tune's own notes, in DIR/tune, say which trials have ended; where they
are lost or belong to other runs, a new experiment begins with the runs that are left.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import signal
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ray import cloudpickle

from metarl.config import RunConfig
from metarl.distributed.actor import driver_search_path
from metarl.distributed.messages import first_line
from metarl.distributed.nodes import require_room
from metarl.distributed.sweep.results import point_of
from metarl.errors import ConfigError
from metarl.runs.outcome import FAILED, outcome_of, write_outcome
from metarl.runs.records import METRICS, read_records
from metarl.training.stop import StopSource
from metarl.training.stop_file import ALL

try:
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler

    from metarl.distributed.sweep.trainable import stop_file, train_trial
except ImportError as missing:
    raise ConfigError(
        f"a sweep needs Ray Tune, which is not installed ({missing.__cause__ or missing}): "
        "pip install 'metarl[tune]' or 'ray[tune]'"
    ) from missing

_log = logging.getLogger(__name__)
_FACTOR = 3  # of successive halving: a third continues
_MAX_RESTARTS = 3  # of a trial whose process ends


class SavedError(Exception):
    """Ends Tune's loop: a signal has stopped all runs, and they have saved."""


class Halving(ASHAScheduler):
    """Asynchronous successive halving (Li et al. 2018) at about a ninth and a third of the longest run, where all have
    an evaluation. A run that is to stop is told so and saves first; its evaluations of earlier sittings count."""

    def __init__(self, root: Path, runs: Mapping[str, RunConfig]):
        self._root, self._last = root, max(run.training.iterations for run in runs.values())
        every = max(run.training.evaluate_every for run in runs.values())
        first = max(1, round(self._last / _FACTOR**2 / every)) * every
        super().__init__("iteration", "score", "max", self._last + 1, grace_period=first, reduction_factor=_FACTOR)

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        super().on_trial_add(tune_controller, trial)
        for record in read_records(self._root / trial.config["run"] / METRICS):
            if record["kind"] == "evaluation" and 0 < record["iteration"] < self._last:
                result = {"iteration": record["iteration"], "score": point_of(record).after}
                super().on_trial_result(tune_controller, trial, result)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if super().on_trial_result(tune_controller, trial, result) == self.STOP:
            stop_file(self._root).stop(trial.config["run"], signal.SIGTERM)
        return str(self.CONTINUE)


class Progress(tune.Callback):
    """Shows what runs report, and ends the experiment once all have saved. `say` is pickled: a module's function."""

    def __init__(self, root: Path, say: Callable[[str], None]):
        self._root, self._say, self._saved = root, say, set[str]()

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any) -> None:
        for line in filter(None, result["line"].splitlines()):
            self._say(f"{trial.config['run']}: {line}")
        if "is_saved" in result:
            self._saved.add(trial.trial_id)

    def on_trial_recover(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self._saved.discard(trial.trial_id)
        self._say(f"{trial.config['run']}: its process has ended: it is started again")

    def on_step_end(self, iteration: int, trials: Any, **info: Any) -> None:
        is_waiting = all(trial.trial_id in self._saved for trial in trials if trial.status == "RUNNING")
        if is_waiting and ALL in stop_file(self._root).read():
            raise SavedError


def run_trials(
    runs: Mapping[str, RunConfig],
    root: Path,
    num_cpus: int,
    asha: bool,
    stop: StopSource,
    say: Callable[[str], None],
    may_grow: bool,
) -> None:
    """Train the runs that have no outcome, as many at once as there is room for; their directories say what came of it.

    Goes on with Tune's experiment of an earlier sitting if there is one for the same runs, and begins one for what that
    leaves. ConfigError where no node has what a run takes, unless the cluster `may_grow`.
    """
    num_gpus = int(next(iter(runs.values())).device == "cuda")
    require_room(num_cpus, num_gpus, may_grow)
    stop_file(root).clear()
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # failures are told at the end, by their causes
    payloads = {name: cloudpickle.dumps(config) for name, config in runs.items()}
    start_in = (os.getcwd(), driver_search_path())
    trainable = tune.with_parameters(train_trial, runs=payloads, root=root, num_cpus=num_cpus, start_in=start_in)
    trainable = tune.with_resources(trainable, {"cpu": num_cpus, "gpu": num_gpus})
    same = [{name: config.model_dump(mode="json") for name, config in runs.items()}, asha, num_cpus, str(root)]
    folder = root / "tune" / hashlib.sha256(json.dumps(same).encode()).hexdigest()[:16]
    if tune.Tuner.can_restore(folder):
        try:
            _fit(tune.Tuner.restore(str(folder), trainable, resume_errored=True), root, stop)
        except (tune.TuneError, AttributeError, ImportError, OSError, ValueError) as error:
            _log.warning("%s cannot be read (%s): the runs continue from their checkpoints", folder, error)
    left = [name for name in runs if outcome_of(root / name) is None]
    if left and stop.signal_number is None:
        shutil.rmtree(folder, ignore_errors=True)
        scheduler = Halving(root, runs) if asha else None
        run_config = tune.RunConfig(
            name=folder.name,
            storage_path=str(folder.parent),
            failure_config=tune.FailureConfig(max_failures=_MAX_RESTARTS),
            callbacks=[Progress(root, say)],
            verbose=0,
        )
        tune_config = tune.TuneConfig(scheduler=scheduler, trial_name_creator=_name, trial_dirname_creator=_name)
        space = {"run": tune.grid_search(left)}
        _fit(tune.Tuner(trainable, param_space=space, tune_config=tune_config, run_config=run_config), root, stop)


def _name(trial: Any) -> str:
    return str(trial.config["run"])


def _fit(tuner: tune.Tuner, root: Path, stop: StopSource) -> None:
    """`Tuner.fit` in a thread, where Tune installs no signal handlers: the first signal is to save, not to kill."""
    ended: list[Any] = []
    is_over, is_told = threading.Event(), False

    def fit() -> None:
        try:
            ended.append(tuner.fit())
        except BaseException as error:
            ended.append(error)
        is_over.set()

    threading.Thread(target=fit, name="metarl-tune", daemon=True).start()
    while not is_over.wait(0.5):
        if stop.signal_number is not None and not is_told:
            stop_file(root).stop(ALL, stop.signal_number)
            is_told = True
    if isinstance(ended[0], BaseException) and not isinstance(ended[0], SavedError):
        raise ended[0]
    for result in () if isinstance(ended[0], SavedError) else ended[0]:
        folder = root / result.config["run"]
        if result.error is not None and outcome_of(folder) is None:
            error = f"its process ended {1 + _MAX_RESTARTS} times: {first_line(result.error)}"
            write_outcome(folder, {"reason": FAILED, "error": error})
