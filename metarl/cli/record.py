"""`metarl record`: a video of how a trained policy adapts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metarl.cli.errors import exit_codes
from metarl.cli.options import Overrides, RunName, as_overrides, expanded, split_of
from metarl.cli.output import print_plain, result_console
from metarl.errors import ConfigError

if TYPE_CHECKING:
    from metarl.runs.build import TrainedRun
    from metarl.tasks import Split, Task

ROUNDS = {"episodes": "all", "before-after": "ends", "grid": "last"}
VIEWS = (*ROUNDS, "ablation")
View = Annotated[
    str,
    typer.Option(
        help="of a trial the `episodes` side by side; the `before-after`; of tasks a `grid`; `ablation`: the last "
        "episode beside that of the policy whose memory or context stays blank"
    ),
]


def record(
    run: RunName,
    overrides: Overrides = None,
    out: Annotated[
        Path | None, typer.Option(help="an .mp4 or .gif [default: RUN/videos/VIEW-ITERATION.mp4; without ffmpeg .gif]")
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE,...",
            help="a task with these values, what is left out from the middle of its range; again for another one",
        ),
    ] = None,
    split: Annotated[str | None, typer.Option(help="tasks of test, validation, train or ood [default: test]")] = None,
    tasks: Annotated[int | None, typer.Option(min=1, help="tasks drawn [default: 1; of a grid: 6]")] = None,
    view: View = "episodes",
    every: Annotated[int | None, typer.Option(min=1, help="steps between pictures [default: at most 120 each]")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="rounds of a trial [default: the run's]")] = None,
    checkpoint: Annotated[int | None, typer.Option(min=0, help="its iteration [default: the newest]")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="of the tasks and episodes [default: the run's]")] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="add it to the run's TensorBoard events")] = False,
) -> None:
    """Film RUN's policy as it adapts, with its reward, the task's values and its belief drawn in.

    Environments that render no picture are shown by their observations.
    """
    with exit_codes():
        from metarl.report.video.headless import opengl

        if view not in VIEWS:
            raise ConfigError(f"--view {view}: allowed: {', '.join(VIEWS)}")
        if task and (split or tasks):
            raise ConfigError(f"--task and {'--split' if split else '--tasks'} exclude each other")
        name = split_of(split or "test")
        with opengl():
            from metarl.report.video.files import usual_suffix
            from metarl.runs.build import load_run
            from metarl.runs.remote import reading_copy

            options = as_overrides({"evaluation.rounds": rounds, "seed": seed})
            run = expanded(run)
            with reading_copy(run) as path:
                trained = load_run(path, [*(overrides or ()), *options], checkpoint)
                shown, name = _tasks(trained, task or [], name, tasks or (6 if view == "grid" else 1))
                default = path / "videos" / f"{view}-{trained.checkpoint.iteration:06d}{usual_suffix()}"
                target = Path(expanded(str(out))) if out else default
                film_into(target, trained, shown, name, view, every, path if tensorboard else None, bool(task))
                text = str(target).replace(str(path), run)
                print_plain(result_console(), text)


def _tasks(trained: TrainedRun, texts: list[str], split: Split, number: int) -> tuple[tuple[Task, ...], Split]:
    """The tasks to film and the split that they are of."""
    from metarl.cli.task_values import split_of_all, task_of
    from metarl.rollout import seeds
    from metarl.runs.training_tasks import training_tasks

    if texts:
        chosen = [task_of(trained.distribution, text, fill=True) for text in texts]
        return tuple(chosen), split_of_all(trained.distribution, chosen)
    if split == "train":
        return training_tasks(trained, number, trained.config.seed), split
    return trained.distribution.sample(split, number, seeds.evaluation_tasks(trained.config.seed)), split


def film_into(
    target: Path,
    trained: TrainedRun,
    tasks: tuple[Task, ...],
    split: Split,
    view: str,
    every: int | None = None,
    board: Path | None = None,
    is_chosen: bool = False,
) -> None:
    """Film the tasks and write the video, into TensorBoard too where `board` is a folder."""
    from metarl.report.video.files import add_to_tensorboard, require_format, write_video
    from metarl.report.video.film import film, film_ablation
    from metarl.report.video.panels import pictures

    require_format(target)
    if view == "ablation":
        filmed = film_ablation(trained, tasks, split, every)
    else:
        filmed = film(trained, tasks, split, ROUNDS[view], every)
    iteration = trained.checkpoint.iteration
    algorithm = trained.config.algorithm_name
    which = "chosen" if is_chosen else split
    title = f"{trained.distribution.name}, {algorithm}, iteration {iteration}: {which} task{'s' * (len(tasks) > 1)}"
    fps = min(filmed.steps_per_s / filmed.every, 50.0)
    frames = list(pictures(filmed, title))
    write_video(frames, target, fps)
    if board is not None:
        add_to_tensorboard(frames, fps, board, f"videos/{view}", iteration)
