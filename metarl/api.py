"""The platform for Python programs and notebooks; `import metarl` offers these functions.

Errors are those of `metarl.errors`: MetarlError where the input is wrong, EnvironmentFault and TrainingError where a
run fails.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium

from metarl.config import RunConfig, load_stored_config
from metarl.config import load_config as load_config_file
from metarl.errors import ConfigError, MetarlError, Terminated
from metarl.launch import executor_of, locally
from metarl.tasks import SPLITS, Split, Task, TaskBatch, TaskDistribution, load_distribution
from metarl.tasks.task import Value

if TYPE_CHECKING:
    import pandas

    from metarl.evaluation.evaluate import Evaluation
    from metarl.training.loop import Reason
    from metarl.training.progress import ProgressReporter

    TaskLike = Task | Mapping[str, Value]


# --- training ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrainingResult:
    """What `train` gives. reason: "done", "time limit", or "interrupted" by Ctrl-C; everything is saved in each case.

    run: its directory or URL. records: its metrics.jsonl, one dict per iteration and per evaluation, see
    `metarl.runs.records`. env_steps, wall_s: of all its parts, where it was resumed.
    """

    run: str
    reason: Reason
    iteration: int
    env_steps: int
    wall_s: float
    records: tuple[dict[str, Any], ...]

    def frame(self) -> pandas.DataFrame:
        """The records as a DataFrame, a row each; MetarlError where pandas is not installed."""
        try:
            import pandas
        except ImportError as error:
            raise MetarlError(
                "a DataFrame needs pandas, which is not installed: pip install pandas, or use `records`"
            ) from error
        return pandas.DataFrame.from_records(list(self.records))


def load_config(name_or_path: str | Path, overrides: Sequence[str] | Mapping[str, Any] = ()) -> RunConfig:
    """A configuration file, or one that comes with the package by its name, with overrides: `["seed=2"]`, or
    `{"seed": 2, "algorithm.inner_lr": 0.05}`. ConfigError naming key, value and what is allowed."""
    return load_config_file(name_or_path, _texts(overrides))


def train(
    config: RunConfig | str | Path,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    *,
    run_dir: str | Path | None = None,
    resume: bool = False,
    start_from: str | Path | None = None,
    local: bool = False,
    address: str | None = None,
    progress: bool | ProgressReporter = True,
) -> TrainingResult:
    """Meta-train what a configuration describes, as `metarl train` does.

    run_dir: where the run goes, a path or a URL; None: runs/ and the configuration's name, or the task distribution's
        and the algorithm's.
    resume: go on with the run there; starts one if there is none.
    start_from: another run, with whose weights this one begins.
    local: run in this process, without Ray. address: of a running Ray cluster; without it one is started here.
    progress: print it, or hand it to a reporter of your own.

    Ctrl-C saves the last complete iteration and returns what there is; `resume` continues from there. SIGTERM and
    SIGHUP save it too and end the process (`metarl.errors.Terminated`).
    """
    from metarl.launch import launch, warm_start_of
    from metarl.runs.records import METRICS, read_records
    from metarl.runs.remote import reading_copy

    settings = config if isinstance(config, RunConfig) else load_config(config, overrides)
    if isinstance(config, RunConfig) and overrides:
        raise ConfigError(
            "overrides were given with a loaded configuration, which is frozen: give them to load_config instead"
        )
    if local:
        settings = locally(settings)
    run = str(run_dir) if run_dir is not None else _default_run(config)
    start = None if start_from is None else warm_start_of(str(start_from))
    with _reporter(progress) as reporter:
        outcome = launch(settings, run, address, resume, start, reporter)
    with reading_copy(run) as path:  # without records where the run lies on another node
        records = tuple(read_records(path / METRICS))
    if outcome.signal_number not in (None, signal.SIGINT):
        assert outcome.signal_number is not None
        raise Terminated(outcome.signal_number)
    return TrainingResult(run, outcome.reason, outcome.iteration, outcome.env_steps, outcome.wall_s, records)


def _default_run(config: RunConfig | str | Path) -> str:
    if not isinstance(config, RunConfig):
        return f"runs/{Path(config).stem}"
    return "runs/" + re.sub(r"[^\w.-]", "_", f"{config.task_distribution.name}-{config.algorithm_name}")


@contextmanager
def _reporter(progress: bool | ProgressReporter) -> Iterator[ProgressReporter]:
    from rich.console import Console

    from metarl.training.progress import ConsoleReporter, SilentReporter

    if isinstance(progress, bool):
        reporter: ProgressReporter = ConsoleReporter(Console()) if progress else SilentReporter()
    else:
        reporter = progress
    try:
        yield reporter
    finally:
        reporter.close()


# --- evaluation --------------------------------------------------------------------------------------


def evaluate(
    run: str | Path,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    *,
    split: Split = "test",
    tasks: int | Sequence[TaskLike] | None = None,
    episodes: int | None = None,
    support_episodes: int | None = None,
    rounds: int | None = None,
    seed: int | None = None,
    checkpoint: int | None = None,
    local: bool = True,
    address: str | None = None,
) -> Evaluation:
    """How a run's checkpoint adapts to tasks that it has not seen. Writes nothing: see `Evaluation.write`.

    What adaptation brings is `gain_over_blank`: over the same policy given no experience, on the same tasks. It is None
    where the policy never adapts or has no such context.

    split: whose tasks. tasks: how many are drawn, or which ones (a Task, or a mapping of parameter values).
    episodes, support_episodes, rounds, seed: as in `metarl evaluate`; None: as the run's configuration says.
    checkpoint: the iteration of one of the run's checkpoints; None: the newest.
    local: in this process; else on Ray, at `address` or started here. The results are the same.
    """
    from metarl.runs.build import load_run_from
    from metarl.runs.evaluation import judge_run

    if split not in SPLITS:
        raise ConfigError(f"split = {split!r}: allowed are {', '.join(SPLITS)}")
    settings = {
        "evaluation.num_tasks": tasks if isinstance(tasks, int) else None,
        "evaluation.episodes": episodes,
        "evaluation.support_episodes": support_episodes,
        "evaluation.rounds": rounds,
        "seed": seed,
    }
    changes = [*_texts(overrides), *_texts({key: value for key, value in settings.items() if value is not None})]
    trained = load_run_from(str(run), changes, checkpoint)
    given: Sequence[TaskLike] = () if tasks is None or isinstance(tasks, int) else tasks
    chosen = [_task(trained.distribution, one) for one in given]
    with executor_of(trained, local and address is None, address) as executor:
        return judge_run(trained, executor, split, chosen)


# --- environments ------------------------------------------------------------------------------------


class TaskEnv(gymnasium.wrappers.TimeLimit[Any, Any]):
    """An environment of one task, `task`, truncated at the distribution's horizon."""

    def __init__(self, env: gymnasium.Env[Any, Any], task: Task, horizon: int):
        super().__init__(env, horizon)
        self.task = task


def make_env(
    name_or_run: str | Path,
    task: TaskLike | None = None,
    *,
    split: Split = "test",
    seed: int = 0,
    num_envs: int | None = None,
    render_mode: str | None = None,
    **options: Any,
) -> TaskEnv | TaskBatch:
    """A Gymnasium environment of a task: of a registered task distribution or `module:attr` with `options`, or of a
    run's.

    task: a Task, or a mapping of parameter values; None: the first that `seed` draws from `split`. It is the `task` of
        the result.
    num_envs: None for one environment. K: a vector environment of the first K tasks (or of `task`, K times), its
        observations flat, without autoreset; its episodes end at the horizon for an agent, not by themselves.
    render_mode: "rgb_array", where the distribution's `make` takes it.
    """
    distribution = _distribution(name_or_run, options)
    count = 1 if num_envs is None else num_envs
    drawn = distribution.sample(split, count, seed) if task is None else (_task(distribution, task),) * count
    if num_envs is not None:
        if render_mode is not None:
            raise ConfigError(f"render_mode = {render_mode!r} and num_envs = {num_envs} exclude each other")
        return distribution.make_batch(drawn)
    how = {} if render_mode is None else {"render_mode": render_mode}
    return TaskEnv(distribution.make(drawn[0], **how), drawn[0], distribution.horizon)


def _distribution(name_or_run: str | Path, options: Mapping[str, Any]) -> TaskDistribution:
    from metarl.runs.build import distribution_of

    config = Path(name_or_run) / "config.yaml"
    if not config.is_file():
        return load_distribution(str(name_or_run), **options)
    if options:
        raise ConfigError(
            f"{name_or_run} is a run, whose task distribution has its options: {sorted(options)} are too many"
        )
    return distribution_of(load_stored_config(config).task_distribution)


# --- parts -------------------------------------------------------------------------------------------


def _task(distribution: TaskDistribution, given: TaskLike) -> Task:
    """TaskError where a mapping is no task of the distribution, or a Task another's."""
    return distribution.task(**(given.values if isinstance(given, Task) else given))


def _texts(overrides: Sequence[str] | Mapping[str, Any]) -> list[str]:
    """`key=value` of every override; ConfigError where they are a single string, which is a sequence of letters."""
    if isinstance(overrides, str):
        raise ConfigError(f"overrides = {overrides!r}: allowed are a list such as [{overrides!r}], or a mapping")
    if isinstance(overrides, Mapping):
        return [f"{key}={_text(value)}" for key, value in overrides.items()]
    return list(overrides)


def _text(value: Any) -> str:
    """A value as an override's YAML."""
    from metarl.config import scalars

    return scalars.dump_key("value", value).removeprefix("value: ")
