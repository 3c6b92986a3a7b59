"""Connects this process to Ray: to one that it starts, or to a cluster that runs already."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import grpc  # type: ignore[import-untyped]
import ray

from metarl.distributed import _ray_private
from metarl.distributed.messages import first_line
from metarl.distributed.token import ensure_token
from metarl.errors import ConfigError, Terminated

_log = logging.getLogger(__name__)
_ANSWER_TIMEOUT_S = 5.0
_SHUTDOWN_S, _DEAD_SHUTDOWN_S = 20.0, 2.0
_connected, _hung = threading.Event(), threading.Event()


@contextmanager
def connect(address: str | None, num_cpus: int | None = None) -> Iterator[None]:
    """Ray, for as long as the context lasts.

    address None: an embedded Ray on this machine with `num_cpus` processors (None: all), ended on exit.
    Otherwise "auto" (the cluster of RAY_ADDRESS, or of this machine) or "host:port" of a cluster's head.
    In a process that is connected already, that connection is used and kept.
    Raises ConfigError where no cluster answers, or where an embedded one would not ask for a token. SIGTERM while Ray
    starts ends the process with exit code 143.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    _ray_private.quiet()
    if ray.is_initialized():
        if address is not None:
            _log.warning("already connected to a Ray cluster; address %s is ignored", address)
        yield
        return
    _ray_private.start_only_when_told()
    with _sigterm_exits():
        try:
            _connected.set()
            if address is None:
                _start_embedded(num_cpus)
            else:
                _join(address)
            yield
        finally:
            _shut_down()


def _start_embedded(num_cpus: int | None) -> None:
    ensure_token()
    os.environ.setdefault(_ray_private.NICENESS_VARIABLE, "0")  # workers as nice as this process
    _init_embedded(num_cpus)
    if ray.cluster_resources().get("CPU", 0) < 1:  # a container with a fraction of a processor
        ray.shutdown()
        _init_embedded(1)
    if not _ray_private.demands_token():
        raise ConfigError(f"Ray {ray.__version__} asks for a token only where RAY_AUTH_MODE=token is set: set it")


def _init_embedded(num_cpus: int | None) -> None:
    try:
        with _ray_private.sessions_of_their_own():
            ray.init(
                address="local",  # never the cluster that RAY_ADDRESS may name
                num_cpus=num_cpus,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.WARNING,
            )
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise ConfigError(f"cannot start Ray on this machine: {first_line(error)}") from error


def _join(address: str) -> None:
    found, source = address, "--address"
    if address == "auto" and (named := os.environ.get("RAY_ADDRESS")) not in (None, "", "auto"):
        found, source = str(named), "RAY_ADDRESS"
    elif address == "auto":
        found = _ray_private.own_cluster_address() or ""
        if not found:
            raise ConfigError("--address auto: no cluster answers: none runs on this machine, RAY_ADDRESS is not set")
    _require_answer(found, source)
    try:
        ray.init(address=found, log_to_driver=False, logging_level=logging.WARNING)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise ConfigError(f"cannot join a Ray cluster at {found!r}: {first_line(error)}") from error


def _require_answer(address: str, source: str) -> None:
    """ConfigError unless a gRPC server answers at host:port. Ray itself retries for minutes."""
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdigit():
        raise ConfigError(
            f"{source}: a Ray address is 'auto' or host:port of the cluster's head (usually port 6379), got "
            f"{address!r}; from outside a cluster, submit the run as a job instead"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(f"no Ray cluster answers at {address!r}: {error}") from error
    if os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):
        return  # a handshake needs the cluster's certificates
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            grpc.channel_ready_future(channel).result(_ANSWER_TIMEOUT_S)
        except grpc.FutureTimeoutError as error:
            raise ConfigError(f"no Ray cluster answers at {address!r}: what listens there is no Ray head") from error


def has_connected() -> bool:
    """Whether this process has used Ray, whose C++ destructors wait a minute for a cluster that is gone, and then exit
    with 1."""
    return _connected.is_set()


def has_hung() -> bool:
    """Whether threads are left in Ray's C++ code that do not return."""
    return _hung.is_set()


def _shut_down() -> None:
    """Disconnect, and end an embedded Ray. Where it has died this gives up: Ray would wait for it for a minute."""
    is_done = threading.Event()

    def shut_down() -> None:
        ray.shutdown()
        is_done.set()

    has_died = bool(_ray_private.dead_processes())
    threading.Thread(target=shut_down, daemon=True).start()
    if not is_done.wait(_DEAD_SHUTDOWN_S if has_died else _SHUTDOWN_S):
        atexit.unregister(ray.shutdown)  # it would wait again
        _hung.set()


@contextmanager
def _sigterm_exits() -> Iterator[None]:
    """SIGTERM raises Terminated. Ray's own handler, set while it starts, exits with 15."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        raise Terminated(number)

    former = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    except SystemExit as error:
        if error.code == signal.SIGTERM:
            raise Terminated(signal.SIGTERM) from error
        raise
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if former is None else former)
