"""Training runs as jobs of a Ray cluster, submitted over HTTP to its job server (its dashboard).

    here:      build_package -> submit -> wait_for_start -> follow the log ......... stop
                                  |                            ^                      |
    head node: job server -> supervisor (takes reserved resources) -> `metarl train`  |
                                  ^------ SIGTERM, after the grace SIGKILL <----------+

The driver replaces the supervisor's shell (`exec`), so the training itself gets the signal, and saves.
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
import os
import shlex
import socket
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from metarl.distributed import _ray_private
from metarl.distributed.package import Package
from metarl.distributed.token import HOW_TO_GIVE, find_token
from metarl.errors import ConfigError

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
_ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
_ANSWER_TIMEOUT_S = 10.0
_POLL_S = 0.5
_PENDING_STOP_S = 3.0  # a job that waits for resources does not hear Ray's stop
_SAVE_S = 60  # for the checkpoint, after the units under way

Status = Literal["PENDING", "RUNNING", "STOPPED", "SUCCEEDED", "FAILED"]


@dataclass(frozen=True)
class Job:
    """What the server knows of a job. Times in seconds since 1970; `message` says why it is not going well."""

    id: str
    status: Status
    entrypoint: str
    message: str
    started_s: float | None
    ended_s: float | None

    @property
    def has_ended(self) -> bool:
        return self.status in ("STOPPED", "SUCCEEDED", "FAILED")


@dataclass(frozen=True)
class Reservation:
    """What the job's own process keeps. Without any it runs on the head node."""

    num_cpus: float = 0
    num_gpus: float = 0

    def __str__(self) -> str:
        return f"{self.num_cpus:g} CPU, {self.num_gpus:g} GPU"


def training_command(config: str, overrides: Sequence[str], run_dir: str) -> str:
    """The shell command of a job that trains, from the run directory's newest checkpoint if there is one.

    A `run_dir` that is neither absolute nor a URL lies in the home directory of the node where the learner runs: the
    job's own working directory goes when it ends.
    """
    folder = run_dir.removeprefix("~/")
    home = "" if folder.startswith("/") or "://" in folder else '"$HOME"/'
    words = ["exec", "python", "-m", "metarl", "train", config, *overrides, "--address", "auto"]
    return f"{shlex.join(words)} --run-dir {home}{shlex.quote(folder)} --resume"


class JobServer:
    """A cluster's job server, asked from the first call on. ConfigError where it does not answer or refuses."""

    def __init__(self, address: str | None = None):
        """`address`: http(s)://host:port; None takes RAY_API_SERVER_ADDRESS, RAY_ADDRESS or this machine's."""
        self.address = server_address(address)
        self._host = urlsplit(self.address).hostname or ""
        self._token = find_token()
        self._headers = {"Authorization": f"Bearer {self._token.value}"} if self._token else {}

    @property
    def shows_token(self) -> bool:
        """Whether the token crosses a network, or goes to a proxy, in clear text."""
        url = urlsplit(self.address)
        return self._token is not None and url.scheme == "http" and not _is_loopback(self._host)

    @property
    def proxy_variable(self) -> str | None:
        """The variable that names the proxy that requests go through; None where they go straight to the server."""
        scheme = urlsplit(self.address).scheme
        with _no_proxy(self._host):
            is_used = scheme in getproxies() and not proxy_bypass(self._host)
        return f"{scheme}_proxy" if is_used else None

    @cached_property
    def _client(self) -> JobSubmissionClient:
        """Ray's client, once the server has answered."""
        answer = requests.get(f"{self.address}/api/version", headers=self._headers, timeout=_ANSWER_TIMEOUT_S)
        if answer.status_code in (401, 403):
            raise self._refused(answer.status_code)
        if "ray_version" not in _json(answer):
            raise ConfigError(f"what answers at {self.address} is no Ray job server (status {answer.status_code})")
        _ray_private.quiet()
        with _address_variable(self.address):
            return JobSubmissionClient(self.address, headers=dict(self._headers))

    # --- jobs ------------------------------------------------------------------------------------

    def submit(self, package: Package, command: str, reservation: Reservation, unit_deadline_s: float) -> str:
        """Send the package, start `command` in it; the job's id. The units under way may end before it is killed."""
        grace_s = math.ceil(unit_deadline_s) + _SAVE_S
        roots = os.pathsep.join(package.import_roots)
        environment = {_ray_private.STOP_WAIT_VARIABLE: str(grace_s), "PYTHONPATH": roots}
        with self._errors():
            return self._client.submit_job(
                entrypoint=command,
                runtime_env={
                    "working_dir": str(package.path),
                    "env_vars": {name: value for name, value in environment.items() if value},
                },
                entrypoint_num_cpus=reservation.num_cpus or None,
            )

    def jobs(self) -> list[Job]:
        """Those that were submitted, the oldest first."""
        with self._errors():
            details = [d for d in self._client.list_jobs() if d.submission_id]
        return sorted((_job(d) for d in details), key=lambda job: job.started_s or 0)

    def job(self, job_id: str) -> Job:
        with self._errors(job_id):
            return _job(self._client.get_job_info(job_id))

    def log(self, job_id: str) -> str:
        """All that the job has written so far."""
        with self._errors(job_id):
            return self._client.get_job_logs(job_id)

    def wait_for_start(self, job_id: str, reservation: Reservation, timeout_s: float) -> Job:
        """The job once it runs or has ended. A job that gets no place in time is stopped: ConfigError saying why."""
        end = time.monotonic() + timeout_s
        while (job := self.job(job_id)).status == "PENDING":
            if time.monotonic() > end:
                self.stop(job_id)
                raise ConfigError(
                    f"job {job_id} did not start within {timeout_s:g} s and is stopped: it wants {reservation} on one "
                    f"node, and there is {self._capacity()}. Want less, or wait longer where nodes are still to come"
                )
            time.sleep(_POLL_S)
        return job

    def follow(self, job_id: str, show: Callable[[str], None]) -> Job:
        """Show the log as it is written, from its beginning; the job once it has ended.

        Where the connection breaks it is made again; ConfigError where that cannot be done.
        """
        shown = 0
        while True:
            with warnings.catch_warnings(), _no_proxy(self._host):
                warnings.filterwarnings("ignore", message="ssl=None", category=DeprecationWarning)  # Ray's own
                shown = asyncio.run(self._tail(job_id, show, shown))
            job = self.job(job_id)
            if job.has_ended:
                return job
            time.sleep(_POLL_S)

    def stop(self, job_id: str) -> Job:
        """Ask the job to end, wait until it has: it saves a checkpoint before. The job as it ended."""
        with self._errors(job_id):
            self._client.stop_job(job_id)
        job = self._wait_for_end(job_id, _PENDING_STOP_S)
        if job.status == "PENDING":
            self._drop(job_id)
        return self._wait_for_end(job_id)

    # --- how -------------------------------------------------------------------------------------

    async def _tail(self, job_id: str, show: Callable[[str], None], skip: int) -> int:
        """Show what comes after `skip` characters of the log; how many there were when it ended or broke off."""
        position = 0
        try:
            async for text in self._client.tail_job_logs(job_id):
                if position + len(text) > skip:
                    show(text[max(0, skip - position) :])
                position += len(text)
        except (RuntimeError, aiohttp.ClientError):
            pass  # the connection broke; whether for good shows when the job's state is asked for
        return max(position, skip)

    def _wait_for_end(self, job_id: str, pending_s: float = math.inf) -> Job:
        end = time.monotonic() + pending_s
        while not (job := self.job(job_id)).has_ended:
            if job.status == "PENDING" and time.monotonic() > end:
                break
            time.sleep(_POLL_S)
        return job

    def _drop(self, job_id: str) -> None:
        """End a job that waits for resources. Ray's own stop takes effect once it has them, up to 15 minutes later."""
        script = _ray_private.kill_pending_job_script(job_id)
        with self._errors(job_id):
            self._client.submit_job(entrypoint=f"exec python -c {shlex.quote(script)}")

    def _capacity(self) -> str:
        """What the cluster's nodes have, such as `2 nodes of 16 CPU, 0 GPU`."""
        with self._errors():
            url = f"{self.address}{_ray_private.NODES_PATH}"
            answer = requests.get(url, headers=self._headers, timeout=_ANSWER_TIMEOUT_S)
            nodes = ((_json(answer).get("data") or {}).get("result") or {}).get("result") or []
        kinds: dict[str, int] = {}
        for node in nodes:
            if node.get("state") == "ALIVE":
                there = node.get("resources_total") or {}
                kind = str(Reservation(there.get("CPU", 0), there.get("GPU", 0)))
                kinds[kind] = kinds.get(kind, 0) + 1
        return "; ".join(f"{n} node{'s' * (n > 1)} of {kind}" for kind, n in kinds.items()) or "no node"

    @contextmanager
    def _errors(self, job_id: str | None = None) -> Iterator[None]:
        """What the server refuses, and that it does not answer, as ConfigError."""
        try:
            with _no_proxy(self._host):
                yield
        except AuthenticationError as error:
            raise self._refused(403 if "failed" in str(error) else 401) from error
        except (requests.RequestException, ConnectionError) as error:
            raise ConfigError(
                f"no job server answers at {self.address} ({type(error).__name__}); it is the dashboard of a cluster's "
                "head node. From outside, open a tunnel: ray dashboard cluster.yaml, or ssh -L 8265:localhost:8265 HEAD"
            ) from error
        except RuntimeError as error:
            if job_id is not None and "does not exist" in str(error):
                raise ConfigError(f"no job {job_id} at {self.address}; see metarl jobs list") from error
            raise ConfigError(f"the job server at {self.address} refuses: {_last_line(error)}") from error

    def _refused(self, status: int) -> ConfigError:
        if status == 401 or self._token is None:
            return ConfigError(f"the job server at {self.address} wants a token (401): {HOW_TO_GIVE}")
        return ConfigError(
            f"the job server at {self.address} refuses the token of {self._token.source} (403): {HOW_TO_GIVE}"
        )


def server_address(address: str | None) -> str:
    """The address without a slash at its end. A variable of Ray's gives way to an address that is given."""
    source = "--address"
    if address is None:
        source = next((name for name in _ADDRESS_VARIABLES if os.environ.get(name)), "")
        address = os.environ.get(source) or DEFAULT_ADDRESS
    url = urlsplit(address)
    if url.scheme not in ("http", "https") or not url.hostname or url.username or url.password:
        shown = address if not url.password else "one with a password in it"
        raise ConfigError(f"{source}: a job server's address is http://HOST:8265 (or https), got {shown}")
    return address.rstrip("/")


@contextmanager
def _address_variable(address: str) -> Iterator[None]:
    """Ray's variable outranks the address that its client is given."""
    name = _ADDRESS_VARIABLES[0]
    former = os.environ.get(name)
    os.environ[name] = address
    try:
        yield
    finally:
        if former is None:
            del os.environ[name]
        else:
            os.environ[name] = former


@contextmanager
def _no_proxy(host: str) -> Iterator[None]:
    """Requests to a loopback or private address go straight there: a proxy would get the token in clear text."""
    if not _is_private(host):
        yield
        return
    names = ("no_proxy", "NO_PROXY")
    former = {name: os.environ.get(name) for name in names}
    os.environ.update({name: ",".join(filter(None, (former[name], host))) for name in names})
    try:
        yield
    finally:
        for name, value in former.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _is_private(host: str) -> bool:
    """Whether every address of `host` is a loopback or private one."""
    try:
        found = {str(entry[4][0]).partition("%")[0] for entry in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):
        return False
    return all(ipaddress.ip_address(address).is_private for address in found)


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def _json(answer: requests.Response) -> Mapping[str, Any]:
    try:
        content = answer.json()
    except requests.JSONDecodeError:
        return {}
    return content if isinstance(content, dict) else {}


def _job(details: Any) -> Job:
    started, ended = (None if ms is None else ms / 1000 for ms in (details.start_time, details.end_time))
    return Job(details.submission_id, details.status.value, details.entrypoint, details.message or "", started, ended)


def _last_line(error: Exception) -> str:
    """What a server's traceback ends with."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" .")]
    return lines[-1] if lines else type(error).__name__
