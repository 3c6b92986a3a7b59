"""`metarl baselines`: what shows how much a run's adaptation is worth, trained and compared with it.

the run, where a configuration is given -> task_blind and oracle, as many environment steps each -> all on equal tasks,
with the run's policy without context, and the task-blind one after gradient steps on the task: table, picture
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metarl.cli.compare import ComparedSeed, ComparedSplit, ComparedTasks, Entry, compared_split, judged, show
from metarl.cli.errors import exit_codes
from metarl.cli.launch import train_and_tell
from metarl.cli.options import Address, Local, Overrides, expanded, require_writable, where
from metarl.cli.output import print_plain, result_console
from metarl.errors import CheckpointError, ConfigError
from metarl.launch import locally

if TYPE_CHECKING:
    from metarl.config import RunConfig
    from metarl.runs.build import TrainedRun

RunOrConfig = Annotated[
    str, typer.Argument(metavar="RUN_OR_CONFIG", help="a run directory or its URL; or a configuration to train first")
]
Out = Annotated[
    str | None,
    typer.Option(help="the folder for the baselines and the comparison [default: runs/RUN's name-baselines]"),
]


def baselines(
    run: RunOrConfig,
    overrides: Overrides = None,
    out: Out = None,
    split: ComparedSplit = "test",
    tasks: ComparedTasks = None,
    seed: ComparedSeed = None,
    local: Local = False,
    address: Address = None,
) -> None:
    """Train what an adaptive run is to be compared with, at as many environment steps, and compare.

    task_blind is one policy for all tasks, without memory; oracle is told the task. The same command continues what
    was interrupted and keeps what is there.
    """
    with exit_codes():
        from metarl.config import baselines_of
        from metarl.runs.build import load_run_from
        from metarl.runs.remote import is_url

        which, given, name = compared_split(split), list(overrides or ()), expanded(run)
        is_run = is_url(name) or (Path(name) / "config.yaml").is_file()
        own = name if is_run else f"runs/{Path(name).stem}"
        folder = Path(expanded(out) if out else f"runs/{Path(own).name}-baselines")
        again = ["metarl", "baselines", run, *given, "--out", str(folder), "--split", split, *where(local, address)]
        for option, value in (("--tasks", tasks), ("--seed", seed)):
            again += [option, str(value)] if value is not None else []

        def train(config: RunConfig, path: str, label: str) -> None:
            console = result_console()
            print_plain(console, f"{label}: {path}")
            train_and_tell(locally(config) if local else config, path, address, True, None, console, shlex.join(again))

        if not is_run:
            from metarl.config import load_config

            config = load_config(name, given)
            baselines_of(config, 1)  # what can have none is refused before it is trained
            require_writable(folder)
            train(config, own, "adaptive")
        changes = given if is_run else []  # of a configuration they are in the run itself
        trained = load_run_from(own, changes)
        env_steps = int(trained.checkpoint.meta["env_steps"])
        wanted = baselines_of(trained.config, env_steps)
        require_writable(folder)
        entries = {"adaptive": Entry(own, tuple(changes))}
        for label, config in wanted.items():
            path = folder / label
            if _env_steps_of(path) < env_steps:
                train(config, str(path), label)
            entries[label] = Entry(str(path))
        entries |= _variants(trained, wanted, entries)
        show(judged(entries, which, tasks, seed, local, address), folder)


def _env_steps_of(run: Path) -> int:
    """What a baseline has learned from; 0 where there is none yet."""
    from metarl.runs.checkpoint import load_latest

    try:
        return int(load_latest(run / "checkpoints").meta["env_steps"])
    except CheckpointError:
        return 0


def _variants(trained: TrainedRun, wanted: Mapping[str, RunConfig], entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """Policies that need no training of their own: the run's without context, the task-blind one fine-tuned."""
    from dataclasses import replace

    from metarl.config.baselines import TASK_BLIND

    found: dict[str, Entry] = {}
    own, blind = entries["adaptive"], entries[TASK_BLIND]
    settings = replace(trained.config.evaluation.settings, context="blank")
    try:
        trained.algorithm.evaluation_plan(trained.distribution.horizon, settings)
        found["adaptive, blank context"] = Entry(own.run, (*own.overrides, "evaluation.context=blank"))
    except ConfigError:
        pass  # an algorithm without such a context
    if "fine_tuning" in type(wanted[TASK_BLIND].algorithm).model_fields:
        found["task_blind, fine-tuned"] = Entry(blind.run, ("algorithm.fine_tuning={}",))
    return found
