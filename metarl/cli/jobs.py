"""Runs on a Ray cluster: `metarl submit`, `metarl jobs`. Exit codes: 0 succeeded, 1 failed or stopped, 2 wrong input.

metarl submit CONFIG:  check here -> send the current directory -> wait for a place -> follow the log
                                                                 Ctrl-C at any time: the job continues
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metarl.cli.errors import exit_codes
from metarl.cli.output import result_console, say
from metarl.errors import ConfigError

if TYPE_CHECKING:
    from metarl.config import RunConfig
    from metarl.distributed.jobs import Job, JobServer, Reservation
    from metarl.distributed.package import Package

jobs_app = typer.Typer(help="Look at the runs on a Ray cluster, stop them.", no_args_is_help=True)

Server = Annotated[
    str | None,
    typer.Option(
        "--address",
        help="the cluster's job server, http://HOST:8265 "
        "(default: RAY_API_SERVER_ADDRESS, RAY_ADDRESS or http://127.0.0.1:8265)",
    ),
]
JobId = Annotated[str, typer.Argument(metavar="ID", help="as metarl submit and metarl jobs list give it")]


def submit(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="a YAML file below the current directory")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="overrides, such as seed=3")
    ] = None,
    address: Server = None,
    run_dir: Annotated[
        str | None,
        typer.Option(
            help="where the run goes on the learner's node, from its home directory (default: runs/CONFIG's name)"
        ),
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="do not wait and follow the log")] = False,
    learner_cpus: Annotated[
        float, typer.Option(min=0, help="processors kept for the learner, beside the rollout workers'")
    ] = 0,
    start_timeout: Annotated[float, typer.Option(min=1, help="seconds to wait until the job starts")] = 600,
) -> None:
    """Meta-train what CONFIG describes on a Ray cluster; submitted again, the run continues.

    The current directory is sent, without what .gitignore and .rayignore name, hidden files and runs/.

    Ctrl-C stops following, not the job.
    """
    with exit_codes():
        from metarl.config import load_config

        given = list(overrides or ())
        settings = load_config(config, given)
        if settings.executor.backend == "local":
            raise ConfigError("executor.backend = 'local': a job's units run on the cluster; allowed: ray")
        from metarl.distributed.jobs import Reservation, training_command
        from metarl.distributed.package import build_package
        from metarl.distributed.token import find_token

        reservation = Reservation(learner_cpus)  # the learner takes its GPU itself
        token = find_token()
        with tempfile.TemporaryDirectory() as folder:
            package = build_package(Path.cwd(), Path(folder) / "job.zip", [token.file] if token and token.file else [])
            sent = _name_in(package, config)
            server = _server(address)
            folder_there = run_dir or f"runs/{config.stem}"
            command = training_command(sent, given, folder_there)
            job_id = server.submit(package, command, reservation, settings.executor.unit_deadline_s)
        say(f"job {job_id} is submitted to {server.address}; its run goes to {folder_there} there")
        say(_next_steps(server, job_id))
        _notes(package, settings)
        if not detach:
            _follow(server, job_id, reservation, start_timeout)


def _name_in(package: Package, config: Path) -> str:
    """The configuration's name in the package."""
    here = Path.cwd()
    for path in (config, config.parent.resolve() / config.name, config.resolve()):  # by a link, or where it leads
        name = Path(os.path.relpath(path, here)).as_posix()
        if name in package.names:
            return name
    raise ConfigError(f"{config} is not sent: it must lie below {here}, not be hidden or named in .gitignore")


def _notes(package: Package, settings: RunConfig) -> None:
    if not package.has_metarl:
        say("metarl is not in the current directory: the cluster's nodes must have it installed")
    if settings.executor.num_workers is None:
        say("executor.num_workers is not set: the run takes what processors there are, and no autoscaler starts more")


def _follow(server: JobServer, job_id: str, reservation: Reservation, start_timeout_s: float) -> None:
    """Show the log until the job has ended, exit with what became of it. Ctrl-C leaves the job alone."""
    tail = ""

    def show(text: str) -> None:
        nonlocal tail
        tail = (tail + text)[-20_000:]
        typer.echo(text, nl=False)

    try:
        server.wait_for_start(job_id, reservation, start_timeout_s)
        job = server.follow(job_id, show)
    except KeyboardInterrupt:
        say(f"\njob {job_id} continues\n{_next_steps(server, job_id)}")
        raise typer.Exit(128 + signal.SIGINT) from None
    say(_ending(job, tail))
    if job.status != "SUCCEEDED":
        raise typer.Exit(1)


def _ending(job: Job, log: str) -> str:
    """What became of the job; where it failed, why, unless its log says so."""
    lines = [f"job {job.id}: {job.status}"]
    if job.status == "FAILED" and "last available logs" not in job.message:
        lines.append(job.message)
    if job.status == "FAILED":
        lines += _advice(log)
    return "\n".join(lines)


def _advice(log: str) -> list[str]:
    """What to do about the causes that lie in how the nodes are set up."""
    if missing := re.search(r"(?:No module named|there is no module) '?([\w.]+)", log):
        return [
            f"{missing[1]} is not on the cluster's nodes. What is sent is the current directory, without what "
            ".gitignore and .rayignore name and without hidden files; all else must be installed on every node"
        ]
    if re.search(r"python: (command )?not found", log):
        return ["start Ray on the nodes with a PATH on which `python` is the one that Ray is installed in"]
    return []


def _next_steps(server: JobServer, job_id: str) -> str:
    address = shlex.join(["--address", server.address])
    return f"  follow: metarl jobs logs {job_id} --follow {address}\n  stop:   metarl jobs stop {job_id} {address}"


def _server(address: str | None) -> JobServer:
    from metarl.distributed.jobs import JobServer

    server = JobServer(address)
    if server.shows_token:
        proxy = f", through the proxy of {server.proxy_variable}" if server.proxy_variable else ""
        say(
            f"warning: the token goes to {server.address} in clear text{proxy}. Better through a tunnel: "
            "ssh -L 8265:localhost:8265 HEAD (or ray dashboard cluster.yaml), then --address http://127.0.0.1:8265"
        )
    return server


@jobs_app.command("list")
def list_jobs(address: Server = None) -> None:
    """The jobs of a cluster, the oldest first."""
    with exit_codes():
        from rich.table import Table

        shown = Table(box=None)
        for column in ("job", "status", "started", "minutes", "command"):
            shown.add_column(column, overflow="fold", no_wrap=column == "job")
        for job in _server(address).jobs():
            started, minutes = "-", "-"
            if job.started_s is not None:
                started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(job.started_s))
                minutes = f"{((job.ended_s or time.time()) - job.started_s) / 60:.1f}"
            shown.add_row(job.id, job.status, started, minutes, job.entrypoint.removeprefix("exec python -m "))
        result_console().print(shown, markup=False, highlight=False)


@jobs_app.command("logs")
def show_log(
    job_id: JobId,
    follow: Annotated[bool, typer.Option("--follow", help="until the job has ended")] = False,
    address: Server = None,
) -> None:
    """What a job has written."""
    with exit_codes():
        server = _server(address)
        if not follow:
            typer.echo(server.log(job_id), nl=False)
            return
        from metarl.distributed.jobs import Reservation

        _follow(server, job_id, Reservation(), float("inf"))


@jobs_app.command("stop")
def stop_job(job_id: JobId, address: Server = None) -> None:
    """Stop a job: its training saves a checkpoint, and submitted again continues from there."""
    with exit_codes():
        server = _server(address)
        if not server.job(job_id).has_ended:
            say(f"stopping {job_id}; it saves a checkpoint first")
        say(f"job {job_id}: {server.stop(job_id).status}")
