"""Ray's internals that are used do what they are used for. A failure names what a new Ray has changed."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import ray
from packaging.specifiers import SpecifierSet
from ray.dashboard.modules.job import job_supervisor
from ray.job_submission import JobSubmissionClient

from metarl.distributed import _ray_private
from tests.distributed.ray_internals import object_store_mb

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
ALLOWED = {
    "metarl/distributed/_ray_private.py",
    "tests/distributed/ray_internals.py",
    "tests/distributed/test_ray_private.py",
}
_PRIVATE = re.compile(r"^ray(\.\w+)*\.(_\w+)|^ray\.(dashboard|_raylet)")


def private_imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if _PRIVATE.match(name)}


def test_internals_of_ray_are_imported_in_one_module_alone() -> None:
    sources = [*(ROOT / "metarl").rglob("*.py"), *(ROOT / "envs").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
    found = {path.relative_to(ROOT).as_posix(): private_imports(path) for path in sources}
    assert {name: names for name, names in found.items() if names and name not in ALLOWED} == {}
    assert found["metarl/distributed/_ray_private.py"]


def test_the_installed_ray_is_one_that_was_tested() -> None:
    (bound,) = set(re.findall(r'"ray\[\w+\]([^"]+)"', (ROOT / "pyproject.toml").read_text()))
    assert version("ray") in SpecifierSet(bound), "run this file with the new Ray, then raise the bound"
    assert any(specifier.operator == "<" for specifier in SpecifierSet(bound))


def test_the_job_server_takes_packages_of_100_mib() -> None:
    assert _ray_private.MAX_PACKAGE_BYTES == 100 * 2**20, "Ray takes packages of another size"


def test_ray_reads_the_variables_that_are_set() -> None:
    assert _ray_private.NICENESS_VARIABLE == "RAY_worker_niceness", "Ray names the niceness of workers otherwise"
    source = inspect.getsource(job_supervisor)
    assert isinstance(_ray_private.auto_init_hook.enable_auto_connect, bool), "Ray's switch has another name"
    assert f'"{_ray_private.STOP_WAIT_VARIABLE}"' in source, "Ray names the time between SIGTERM and SIGKILL otherwise"


def test_rays_own_messages_are_those_of_these_loggers() -> None:
    for module in _ray_private._CHATTY_LOGGERS:
        assert module in sys.modules, f"Ray has no module {module} any more: its messages come from elsewhere"


@pytest.mark.usefixtures("cluster")
class TestEmbedded:
    def test_it_demands_a_token(self) -> None:
        assert _ray_private.demands_token()

    def test_every_node_is_known_with_its_free_processors(self) -> None:
        (node,) = ray.nodes()
        assert _ray_private.free_processors() == {node["NodeID"]: 3}
        assert _ray_private.draining_nodes() == frozenset()

    def test_the_cluster_that_auto_means_is_known(self, monkeypatch: pytest.MonkeyPatch) -> None:
        address = ray.get_runtime_context().gcs_address
        monkeypatch.setenv("RAY_ADDRESS", address)
        assert _ray_private.own_cluster_address() == address

    def test_shared_memory_in_use_is_known(self) -> None:
        before = object_store_mb()
        held = ray.put(bytes(20_000_000))
        assert object_store_mb() >= before + 20
        del held


_DEATH = """
import os, signal, time
import ray
from metarl.distributed import _ray_private, connect
with connect(None, num_cpus=1):
    assert _ray_private.dead_processes() == []
    kinds = _ray_private.worker._global_node.all_processes
    for kind in ("gcs_server", "raylet"):
        process = kinds[kind][0].process
        assert os.getsid(process.pid) != os.getsid(0), "Ray's processes are in this session"
        process.kill()
        process.wait()
    assert sorted(_ray_private.dead_processes()) == ["gcs_server", "raylet"], "Ray keeps its processes otherwise"
    os._exit(0)
"""


def test_the_death_of_ray_is_seen_and_its_processes_are_in_a_session_of_their_own() -> None:
    done = subprocess.run([sys.executable, "-c", _DEATH], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_the_script_that_ends_a_waiting_job_compiles_and_names_the_jobs_actor() -> None:
    script = _ray_private.kill_pending_job_script("raysubmit_1")
    compile(script, "script", "exec")
    assert "_ray_internal_job_actor_raysubmit_1" in script
    assert hasattr(JobSubmissionClient, "stop_job")
