"""A Ray to work on: one embedded in this process's life, or one that runs already."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray._raylet import AuthenticationMode, get_authentication_mode  # type: ignore[attr-defined]

from metarl.distributed.token import ensure_token
from metarl.errors import ConfigError

_log = logging.getLogger(__name__)
_ANSWER_TIMEOUT_S = 5.0


@contextmanager
def connect(address: str | None, num_cpus: int | None = None) -> Iterator[None]:
    """Ray, for as long as the context lasts. What was there before stays there afterwards.

    address None: an embedded Ray on this machine with `num_cpus` (None: all) processors, ended on exit.
    Otherwise "auto" (the cluster of this machine, or of RAY_ADDRESS) or "host:port" of a cluster's head.
    Inside a process that is connected already, that connection is used and kept.
    Raises ConfigError where no cluster answers, or where an embedded one would ask for no token.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray says at every start that its (wanted) token authentication is on.
    logging.getLogger("ray._private.authentication.authentication_token_setup").setLevel(logging.ERROR)
    if ray.is_initialized():
        if address is not None:
            _log.warning("already connected to a Ray cluster; address %s is ignored", address)
        yield
        return
    if address is None:
        _start_embedded(num_cpus)
    else:
        _join(address)
    try:
        yield
    finally:
        ray.shutdown()


def _start_embedded(num_cpus: int | None) -> None:
    ensure_token()
    try:
        ray.init(
            address="local",  # never the cluster that RAY_ADDRESS may name
            num_cpus=num_cpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.WARNING,
        )
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise ConfigError(f"cannot start Ray on this machine: {_first_line(error)}") from error
    if get_authentication_mode() != AuthenticationMode.TOKEN:
        ray.shutdown()
        raise ConfigError(f"Ray {ray.__version__} asks for a token only where RAY_AUTH_MODE=token is set: set it")


def _join(address: str) -> None:
    if address != "auto":
        _require_answer(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise ConfigError(f"cannot join a Ray cluster at {address!r}: {_first_line(error)}") from error


def _require_answer(address: str) -> None:
    """Ray itself tries for ever where nothing listens."""
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdigit():
        raise ConfigError(
            f"a Ray address is 'auto' or host:port of the cluster's head (usually port 6379), got {address!r}; "
            "from outside a cluster, submit the run as a job instead"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(f"no Ray cluster answers at {address!r}: {error}") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
