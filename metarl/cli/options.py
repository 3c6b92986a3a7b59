"""Options and arguments that several commands share."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metarl.errors import ConfigError, TaskError

if TYPE_CHECKING:
    from metarl.tasks import Split

ConfigName = Annotated[
    str, typer.Argument(metavar="NAME_OR_PATH", help="a YAML file, or a name that `metarl config list` shows")
]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="overrides, such as seed=3")]
RunName = Annotated[
    str, typer.Argument(metavar="RUN", help="a run directory or its URL; config.yaml and checkpoints/ are enough")
]
Local = Annotated[bool, typer.Option("--local", help="run in this process, without Ray")]
Address = Annotated[str | None, typer.Option(help="a running Ray cluster; without it one is started here")]
SplitName = Annotated[str, typer.Option(help="train, validation, test or ood")]


def split_of(name: str) -> Split:
    """The split of that name; TaskError where there is none."""
    from metarl.tasks import SPLITS

    for split in SPLITS:
        if split == name:
            return split
    raise TaskError(f"unknown split {name!r}; allowed: {', '.join(SPLITS)}")


def expanded(path_or_url: str) -> str:
    """A path with `~` replaced by the home directory, which the shell does not do after `--run-dir=`; URLs as given."""
    return path_or_url if "://" in path_or_url else os.path.expanduser(path_or_url)


def where(local: bool, address: str | None) -> list[str]:
    """The options of a command that say where units run, as they were given."""
    return ["--local"] if local else ["--address", address] if address else []


def as_overrides(options: Mapping[str, Any]) -> list[str]:
    """`key=value` of every option that was given."""
    return [f"{key}={value}" for key, value in options.items() if value is not None]


def require_writable(folder: Path) -> None:
    """`folder` exists and takes files; ConfigError where it does not, which is to be known before anything is
    computed."""
    probe = folder / ".metarl"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"cannot write into {folder}: {error.strerror}: choose another place with --out") from error
