"""One run of a sweep as a trial of Ray Tune, in the process that Tune gives it.

    main process                                     trial's process
    Tune's loop     <--- tune.report(line, score)    train(config, directory)
    stop file       ---- who is to stop --->         saves, evaluates, writes outcome.json

A run is an ordinary one: `metarl evaluate` and `metarl train --resume` take its directory as any other.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ray import cloudpickle, tune
from threadpoolctl import threadpool_limits

from metarl.config import RunConfig
from metarl.distributed.actor import Failure, adopt_search_path
from metarl.distributed.sweep.results import SUMMARY, point_of
from metarl.errors import ConfigError
from metarl.kernels.parallel import use_processors
from metarl.rollout.local import LocalExecutor
from metarl.runs.evaluation import final_evaluation
from metarl.runs.outcome import FAILED, STOPPED_EARLY, write_outcome
from metarl.training.loop import train
from metarl.training.progress import ForwardingReporter, train_line
from metarl.training.stop_file import ALL, StopFile

_LINE_EVERY_S = 30.0  # of training; evaluations are always shown


def stop_file(root: Path) -> StopFile:
    """Who is to stop: one run, for good, because others do better; or all, to go on later."""
    return StopFile(root / ".stop")


class RunLink:
    """Between a run and Tune: reports its progress, and is its `metarl.training.stop.StopSource`.

    With each line to show goes the newest evaluation that runs are compared by, which is neither the one before
    training (iteration 0) nor the last one.
    """

    def __init__(self, run: str, iterations: int, stop: StopFile, report: Callable[[dict[str, Any]], None]):
        self._run, self._iterations, self._stop, self._report = run, iterations, stop, report
        self._judged: dict[str, Any] = {"iteration": 0, "score": 0.0}
        self._notes: list[str] = []  # shown with the next line: they may come from any thread
        self._shown_s = time.monotonic()
        self.signal_number: int | None = None
        self._listen()

    def __call__(self, event: tuple[str, tuple[Any, ...]]) -> None:
        """Takes the events of `metarl.training.progress.ForwardingReporter`."""
        kind, (record, *rest) = event
        if kind == "note":
            self._notes.append(record)
        elif kind == "evaluation":
            point = point_of(record)
            if 0 < point.iteration < self._iterations:
                self._judged = {"iteration": point.iteration, "score": point.after}
            tasks = f"{record['num_tasks']} {record['split']} tasks"
            self.say(f"iteration {point.iteration}: {tasks}, return {point.before:.4g} -> {point.after:.4g}")
        elif time.monotonic() - self._shown_s > _LINE_EVERY_S:
            self.say(train_line(record, *rest))
        self._listen()

    def say(self, line: str, **more: Any) -> None:
        """Returns when Tune has decided on the newest score."""
        notes, self._notes, self._shown_s = self._notes, [], time.monotonic()
        self._report({**self._judged, "line": "\n".join([*notes, line]), **more})

    def _listen(self) -> None:
        asked = self._stop.read()
        self.is_stopped_early = self._run in asked
        self.signal_number = asked.get(ALL, asked.get(self._run))


def train_trial(
    config: Mapping[str, Any], runs: Mapping[str, bytes], root: Path, num_cpus: int, start_in: tuple[str, Sequence[str]]
) -> None:
    """The function that Tune calls: trains the run named `config["run"]`. `runs` holds pickled configurations,
    `start_in` the working directory and the module search path of the main process."""
    name, (folder, search_path) = config["run"], start_in
    if not (root / SUMMARY).is_file():
        where = f"the node {os.uname().nodename} does not see {root}"
        raise ConfigError(f"{where}: a sweep on several nodes needs a --run-dir on storage that they share")
    if os.path.isdir(folder):
        os.chdir(folder)  # relative paths in the configuration; Tune starts in a directory of its own
    adopt_search_path(search_path)
    run = cloudpickle.loads(runs[name])
    os.environ["METARL_PHYSICS_THREADS"] = str(num_cpus)
    if run.device != "cuda":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # with device=auto: this trial has no GPU of its own
    link = RunLink(name, run.training.iterations, stop_file(root), tune.report)
    outcome = None if link.signal_number else train_run(run, root / name, num_cpus, link)
    while outcome is None:  # saved, to be continued: Tune must not take note of an end
        link.say("", is_saved=True)
        time.sleep(0.2)
    link.say("" if outcome["reason"] == FAILED else f"{outcome['reason']} at iteration {outcome['iteration']}")


def train_run(config: RunConfig, folder: Path, num_cpus: int, link: RunLink) -> dict[str, Any] | None:
    """Train `config` in `folder`, from the checkpoint there if there is one; the run's outcome, None where it was
    interrupted. Exceptions become outcomes: what failed once would fail again."""
    content: dict[str, Any]
    try:
        with use_processors(num_cpus), threadpool_limits(num_cpus, user_api="blas"):
            end = train(config, folder, LocalExecutor, resume=True, reporter=ForwardingReporter(link), stop=link)
            if end.reason == "interrupted" and not link.is_stopped_early:
                return None
            returns = [score.mean for score in final_evaluation(folder, config, end.iteration, LocalExecutor).rounds]
        reason = STOPPED_EARLY if end.reason == "interrupted" else end.reason
        content = {"iteration": end.iteration, "env_steps": end.env_steps, "wall_s": end.wall_s, "returns": returns}
    except Exception as error:
        failure, reason, content = Failure.of(error), FAILED, {"error": str(error)}
        if failure.kind == "program":
            content = {"error": f"{failure.error_type}: {error} (traceback: {folder}/outcome.json)"}
            content["traceback"] = failure.traceback
    write_outcome(folder, {"reason": reason, **content})
    return {"reason": reason, **content}
