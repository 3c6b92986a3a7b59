"""`metarl config`: the configurations that come with the package, a resolved one, and the schema of all."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from metarl.cli.errors import exit_codes
from metarl.cli.options import ConfigName, Overrides

config_app = typer.Typer(help="Look at configurations.", no_args_is_help=True)


@config_app.command("list")
def list_configs() -> None:
    """The configurations that come with the package."""
    with exit_codes():
        from metarl.config import available_configs

        for name, path in available_configs().items():
            typer.echo(f"{name:<28} {_first_comment(path)}")


@config_app.command("show")
def show_config(config: ConfigName, overrides: Overrides = None) -> None:
    """A configuration with every key that it leaves to a default, and what each key means."""
    with exit_codes():
        from metarl.config import load_config, to_commented_yaml

        typer.echo(to_commented_yaml(load_config(config, overrides or ())), nl=False)


@config_app.command("schema")
def show_schema() -> None:
    """The JSON schema of a configuration, for editors that check YAML files against one."""
    with exit_codes():
        from metarl.config import json_schema

        typer.echo(json.dumps(json_schema(), indent=2))


def _first_comment(path: Path) -> str:
    """What a configuration's first line says of it."""
    with path.open(encoding="utf-8") as file:
        line = file.readline()
    return line.lstrip("# ").rstrip() if line.startswith("#") else ""
