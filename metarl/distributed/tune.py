"""Long pieces of work side by side, as the trials of Ray Tune: one actor each, as many at once as there is room for.

    here     run_side_by_side(works)   Tune: what starts when and where; who is stopped early
                 |        ^                 |  ^
             stop, cut    | events          |  | step(): events, a score, in the end the result
                 v        |                 v  |
    _Desk: who is told to stop  <--asks-- _Trial's main thread --- _Link --- work(link), in a thread of its own

Tune calls `step` again and again; it returns soon, so that word to stop is heard soon. The work then
saves by itself and ends: Tune's own way to end trials would give it no time. With successive halving a work that
reports a score waits until Tune has decided on it, so what is stopped stops right there. Where a trial's process ends,
Tune starts it again, and the work goes on from what it has saved. Tune keeps nothing that is needed later.
"""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import ray
from ray import cloudpickle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from metarl.distributed.actor import Failure, adopt_search_path, driver_search_path
from metarl.errors import ConfigError
from metarl.training.stop import StopSource

try:
    from ray import tune
    from ray.tune.execution.placement_groups import PlacementGroupFactory
    from ray.tune.schedulers import ASHAScheduler, FIFOScheduler
except ImportError as missing:
    raise ConfigError(
        f"a sweep needs Ray Tune, which is not installed ({missing.__cause__ or missing}): "
        "pip install 'metarl[tune]' or 'ray[tune]'"
    ) from missing

# Without these Tune writes tables, logs and checkpoints of its own, and moves to folders of its own.
_SETTINGS = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_THRESHOLD_S": "30",
}
_log = logging.getLogger(__name__)
_TURN_S = 0.5
_MAX_RESTARTS = 3
_STEP, _SCORE = "step", "score"


@dataclass(frozen=True)
class Work:
    """Something to run, and what it takes. `run` gets a link to here; what it returns must be picklable."""

    name: str
    run: Callable[[Any], Any]
    num_cpus: int = 1
    num_gpus: int = 0


@dataclass(frozen=True)
class Halving:
    """Asynchronous successive halving (Li et al. 2018): at the steps first, first * factor, ... up to `last`, what
    scores below the best 1 / factor so far is stopped. `earlier`: scores of works by name, as (step, score)."""

    first: int
    last: int
    factor: int = 3
    earlier: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)


def run_side_by_side(
    works: Sequence[Work],
    show: Callable[[str, Any], None],
    stop: StopSource,
    halving: Halving | None = None,
    may_grow: bool = False,
) -> dict[str, Any | Failure]:
    """What each work returned, or why it has not, by name; no entry where it was stopped before it began.

    `show(name, event)` is told what they emit. ConfigError where no node has what one of them takes, unless the
    cluster `may_grow`: then it waits for such a node.
    """
    _require_room(works, may_grow)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    desk: Any = ray.remote(_Desk).options(num_cpus=0, scheduling_strategy=here).remote()
    course = _Course(desk, show, stop)
    by_name = {work.name: work for work in works}

    def resources(config: Mapping[str, Any]) -> PlacementGroupFactory:
        work = by_name[config["name"]]
        return PlacementGroupFactory([{"CPU": work.num_cpus, **({"GPU": work.num_gpus} if work.num_gpus else {})}])

    payloads = {work.name: (cloudpickle.dumps(work.run), work.num_cpus, work.num_gpus) for work in works}
    trainable = tune.with_parameters(
        _Trial, payloads=payloads, search_path=driver_search_path(), desk=desk, is_judged=halving is not None
    )
    with _quiet(), tempfile.TemporaryDirectory(prefix="metarl-tune-") as folder:
        tune.run(
            tune.with_resources(trainable, resources),
            name="sweep",
            config={"name": tune.grid_search(list(by_name))},
            scheduler=FIFOScheduler() if halving is None else _Judge(halving, desk),
            callbacks=[_Follower(course)],
            stop=_AllEnded(course),
            max_failures=_MAX_RESTARTS,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            trial_dirname_creator=lambda trial: trial.trial_id,
            storage_path=folder,
            raise_on_failed_trial=False,
            verbose=0,
        )
    ray.kill(desk)
    return course.results


def _require_room(works: Sequence[Work], may_grow: bool) -> None:
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for work in works:
        if any(n.get("CPU", 0) >= work.num_cpus and n.get("GPU", 0) >= work.num_gpus for n in nodes):
            continue
        there = "; ".join(f"{n.get('CPU', 0):g} CPU, {n.get('GPU', 0):g} GPU" for n in nodes)
        problem = f"{work.name} wants {work.num_cpus} CPU and {work.num_gpus} GPU on one node, and there is {there}"
        if not may_grow:
            advice = "set --cpus-per-run, device=cpu, or executor.num_workers (the processors of a Ray started here)"
            raise ConfigError(f"{problem}: {advice}")
        _log.warning("%s: it waits until the cluster has such a node", problem)
        return


# --- in the trial's process --------------------------------------------------------------------------


class _Desk:
    """Where trials ask whether they are to stop: by a signal, all of them, or cut, one by one."""

    def __init__(self) -> None:
        self._signal_number: int | None = None
        self._cut: set[str] = set()

    def stop_all(self, signal_number: int) -> None:
        self._signal_number = signal_number

    def cut(self, name: str) -> None:
        self._cut.add(name)

    def ask(self, name: str) -> tuple[int | None, bool]:
        return self._signal_number, name in self._cut


class _Link:
    """Between the work's thread and the one that answers Tune."""

    def __init__(self, num_cpus: int, is_judged: bool):
        self.num_cpus = num_cpus
        self.signal_number: int | None = None
        self.is_cut = False
        self._is_judged = is_judged
        self._changed = threading.Condition()
        self._events: list[Any] = []
        self._waiting: tuple[int, float] | None = None
        self._is_handed_out = False  # the score that is waited on: Tune has had it
        self._ending: tuple[Any] | None = None

    # for the work

    def emit(self, event: Any) -> None:
        """Have `event` shown where the work was started."""
        with self._changed:
            self._events.append(event)
            self._changed.notify_all()

    def judged(self, step: int, score: float) -> None:
        """Report a score; returns when it is decided whether the work goes on."""
        if self._is_judged:
            with self._changed:
                self._waiting = (step, score)
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._waiting is None)

    # for the other side

    def end(self, result: Any) -> None:
        with self._changed:
            self._ending = (result,)
            self._changed.notify_all()

    def hear(self, signal_number: int | None, is_cut: bool) -> None:
        """What the desk says; a work whose score has been decided on goes on, to its end if it is to stop."""
        with self._changed:
            self.is_cut = self.is_cut or is_cut
            self.signal_number = signal.SIGTERM if is_cut and signal_number is None else signal_number
            if self._is_handed_out or self.signal_number is not None:
                self._waiting, self._is_handed_out = None, False
            self._changed.notify_all()

    def next(self, timeout_s: float) -> tuple[list[Any], tuple[int, float] | None, tuple[Any] | None]:
        """What there is: events, the score that is waited on, the result. Waits for something for so long."""
        with self._changed:
            self._changed.wait_for(lambda: self._events or self._waiting or self._ending, timeout_s)
            events, self._events = self._events, []
            self._is_handed_out = self._waiting is not None
            return events, self._waiting, self._ending


class _Trial(tune.Trainable):
    """Tune's side of one work."""

    def setup(  # type: ignore[override]
        self,
        config: dict[str, Any],
        payloads: Mapping[str, tuple[bytes, int, int]],
        search_path: Sequence[str],
        desk: Any,
        is_judged: bool,
    ) -> None:
        self._name, self._desk = config["name"], desk
        payload, num_cpus, num_gpus = payloads[self._name]
        self._link = _Link(num_cpus, is_judged)
        self._link.hear(*ray.get(desk.ask.remote(self._name)))
        if self._link.signal_number is not None:  # stopped while it waited for its place
            self._link.end(None)
            return
        if not num_gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        adopt_search_path(search_path)
        threading.Thread(target=self._work, args=(payload,), name="metarl-work", daemon=True).start()

    def _work(self, payload: bytes) -> None:
        try:
            result = cloudpickle.loads(payload)(self._link)
        except BaseException as error:
            result = Failure.of(error)
        self._link.end(result)

    def step(self) -> dict[str, Any]:
        self._link.hear(*ray.get(self._desk.ask.remote(self._name)))
        events, scored, ending = self._link.next(_TURN_S)
        answer: dict[str, Any] = {"said": cloudpickle.dumps((events, ending)), "done": ending is not None}
        return answer | ({_STEP: scored[0], _SCORE: scored[1]} if scored else {})


# --- here, in Tune's loop ----------------------------------------------------------------------------


@dataclass
class _Course:
    """What has happened so far."""

    desk: Any
    show: Callable[[str, Any], None]
    stop: StopSource
    results: dict[str, Any | Failure] = field(default_factory=dict)
    has_told: bool = False
    is_idle: bool = True


class _Follower(tune.Callback):
    """Shows events, keeps results, passes a signal on."""

    def __init__(self, course: _Course):
        self._course = course

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        course = self._course
        if course.stop.signal_number is not None and not course.has_told:
            ray.get(course.desk.stop_all.remote(course.stop.signal_number))
            course.has_told = True
        course.is_idle = not any(trial.status == "RUNNING" for trial in trials)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        events, ending = cloudpickle.loads(result.pop("said"))
        name = trial.config["name"]
        for event in events:
            self._course.show(name, event)
        if ending is not None:
            self._course.results[name] = ending[0]

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._course.show(trial.config["name"], ("note", ("its process has ended: it is started again",)))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        lines = str(trial.get_error() or "").strip().splitlines() or ["for no known reason"]
        message = f"its process ended {1 + _MAX_RESTARTS} times: {lines[0]}"
        self._course.results[trial.config["name"]] = Failure("program", "RayActorError", message, "\n".join(lines))


class _AllEnded(tune.Stopper):
    """Once a signal is passed on and nothing runs any more, what still waits for its place is not started."""

    def __init__(self, course: _Course):
        self._course: _Course | None = course

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._course is not None and self._course.has_told and self._course.is_idle

    def __getstate__(self) -> dict[str, Any]:
        return {"_course": None}  # Tune writes its state down at the end; nobody reads it


@dataclass(frozen=True)
class _Contender:
    """A work as Tune's halving sees it: known by its name, so that scores of earlier sittings count as its own."""

    trial_id: str


def _contender(name: str) -> Any:
    return _Contender(name)  # in the place of a whole TrialBatch: nothing else of it is read


class _Judge(ASHAScheduler):
    """Tune's successive halving; what it would stop is told so, and stops by itself."""

    def __init__(self, halving: Halving, desk: Any):
        super().__init__(
            time_attr=_STEP,
            metric=_SCORE,
            mode="max",
            max_t=halving.last + 1,  # who gets to the last step has ended, not been stopped
            grace_period=halving.first,
            reduction_factor=halving.factor,
        )
        self._desk = desk
        nobody: Any = None
        for name, scores in halving.earlier.items():
            super().on_trial_add(nobody, _contender(name))
            for step, score in scores:
                super().on_trial_result(nobody, _contender(name), {_STEP: step, _SCORE: score})

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        super().on_trial_add(tune_controller, _contender(trial.config["name"]))

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        name = trial.config["name"]
        if super().on_trial_result(tune_controller, _contender(name), result) == self.STOP:
            ray.get(self._desk.cut.remote(name))
        return self.CONTINUE

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        pass

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        pass


@contextmanager
def _quiet() -> Iterator[None]:
    """Tune without its own output, files and signal handlers."""
    former = {name: os.environ.get(name) for name in _SETTINGS}
    loggers = [logging.getLogger(name) for name in ("ray.tune", "ray.train")]
    levels = [logger.level for logger in loggers]
    handler = signal.getsignal(signal.SIGUSR1)
    is_main = threading.current_thread() is threading.main_thread()
    os.environ.update(_SETTINGS)
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for name, value in former.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if is_main:
            signal.signal(signal.SIGUSR1, handler)
