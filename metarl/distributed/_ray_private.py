"""All that is used of Ray's internals: no public call does it. tests/distributed/test_ray_private.py checks each.

pyproject.toml bounds Ray's version. Before the bound is raised, that test must pass with the new version.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from ray._private import auto_init_hook, services, worker
from ray._private.ray_constants import DASHBOARD_CLIENT_MAX_SIZE, RAY_WORKER_NICENESS
from ray._private.state import state
from ray._raylet import AuthenticationMode, get_authentication_mode  # type: ignore[attr-defined]
from ray.dashboard.modules.job.common import JOB_ACTOR_NAME_TEMPLATE, SUPERVISOR_ACTOR_RAY_NAMESPACE

# The job server refuses larger requests with an error that names no file: packages are measured before.
MAX_PACKAGE_BYTES: int = DASHBOARD_CLIENT_MAX_SIZE

# Workers are started at niceness + 15 by default. On a busy machine they then do not run at all.
NICENESS_VARIABLE: str = RAY_WORKER_NICENESS

# How long the job server waits between SIGTERM and SIGKILL: 3 s by default, too little to save. Read by name only.
STOP_WAIT_VARIABLE = "RAY_JOB_STOP_WAIT_TIME_S"

# The state of the cluster over HTTP, which the public client (ray.util.state) cannot ask for without joining it.
NODES_PATH = "/api/v0/nodes?detail=1"

_CHATTY_LOGGERS = (
    "ray._private.authentication.authentication_token_setup",  # at every start: tokens are in use
    "ray.dashboard.modules.job.sdk",  # every upload
    "ray.dashboard.modules.dashboard_sdk",  # every closed connection
)
_VITAL = ("gcs_server", "raylet")


def quiet() -> None:
    """Messages of Ray's clients that concern nobody: errors alone are shown."""
    for name in _CHATTY_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)


def start_only_when_told() -> None:
    """Calls into Ray that come after its end fail from now on. Ray would start another cluster for each of them.

    Ray has a variable for it, RAY_ENABLE_AUTO_CONNECT, which it reads when it is imported.
    """
    auto_init_hook.enable_auto_connect = False


def demands_token() -> bool:
    """Whether this process's Ray refuses connections without the token. No public call says so."""
    return bool(get_authentication_mode() == AuthenticationMode.TOKEN)


@contextmanager
def sessions_of_their_own() -> Iterator[None]:
    """Ray's processes that start in here do not get the signals sent to this process group (timeout, a terminal).

    Ray has no such option. They still end with this process: the kernel kills them (PR_SET_PDEATHSIG).
    """
    if not sys.platform.startswith("linux"):
        yield
        return
    popen = services.ConsolePopen
    setattr(services, "ConsolePopen", partial(popen, start_new_session=True))  # noqa: B010  (to mypy it is a type)
    try:
        yield
    finally:
        setattr(services, "ConsolePopen", popen)  # noqa: B010


def dead_processes() -> list[str]:
    """Those of an embedded Ray that have ended although everything needs them. Ray's calls then block for a minute."""
    node = worker._global_node
    if node is None or not node.is_head():
        return []
    return [kind for kind, _ in node.dead_processes() if kind in _VITAL]


def own_cluster_address() -> str | None:
    """What ray.init(address="auto") would join: RAY_ADDRESS, or the cluster last started here. None where nothing is.

    Asked before, because ray.init retries for minutes where a cluster has gone, and cannot be interrupted meanwhile.
    """
    try:
        return services.canonicalize_bootstrap_address_or_die("auto")
    except (ConnectionError, ValueError):
        return None


def draining_nodes() -> frozenset[str]:
    """Ids of nodes that are about to be taken away; ray.nodes() does not say."""
    return frozenset(state.get_draining_nodes())


def free_processors() -> dict[str, int]:
    """Free processors of each node by its id; ray.available_resources() knows only the sum."""
    return {node: int(free.get("CPU", 0)) for node, free in state.available_resources_per_node().items()}


def kill_pending_job_script(job_id: str) -> str:
    """A Python program that ends a job that still waits for resources; Ray's stop is not heard until it has them."""
    actor = JOB_ACTOR_NAME_TEMPLATE.format(job_id=job_id)
    return (
        "import ray; ray.init(address='auto', log_to_driver=False); "
        f"ray.kill(ray.get_actor({actor!r}, namespace={SUPERVISOR_ACTOR_RAY_NAMESPACE!r}))"
    )
