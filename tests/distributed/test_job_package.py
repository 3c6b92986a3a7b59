"""What is sent with a job, to whom and with which token: all that is decided before anything is."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import zipfile
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import distributions
from pathlib import Path

import pytest
from ray.job_submission import JobDetails
from typer.testing import CliRunner

import metarl.distributed.package as package_module
from metarl.cli.app import app
from metarl.distributed.jobs import JobServer, server_address, training_command
from metarl.distributed.package import build_package, files_to_send
from metarl.errors import ConfigError
from metarl.plugins import available

YAML = """
task_distribution: {name: PointGoal}
algorithm: {name: maml}
training: {iterations: 2}
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory with a project in it, which is the current directory. No variable of Ray's is set."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    project = tmp_path / "project"
    project.mkdir()
    (project / "small.yaml").write_text(YAML)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(project)
    return tmp_path


def write(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(f"content of {name}")


# --- the package -------------------------------------------------------------------------------------


def test_code_is_sent_and_runs_caches_hidden_and_ignored_files_are_not(home: Path) -> None:
    write("plug_in.py", "src/deep/module.py", "data/model.xml", "src/runs/kept.py", "token.txt")
    write("runs/a/metrics.jsonl", ".git/HEAD", ".venv/lib/x.py", "venv/lib/x.py", "src/__pycache__/x.pyc", ".env")
    write(".ray/auth_token", "data/large.bin", "src/deep/scratch.py", "x.egg-info/PKG-INFO", "by_ray.bin")
    Path(".gitignore").write_text("*.bin\n!data/model.xml\n")
    Path("src/.gitignore").write_text("scratch.py\n")
    Path(".rayignore").write_text("by_ray.bin\n")
    sent = files_to_send(Path.cwd(), [Path("token.txt")])
    assert list(sent) == ["data/model.xml", "plug_in.py", "small.yaml", "src/deep/module.py", "src/runs/kept.py"]


def test_registered_names_are_sent_along(tmp_path: Path) -> None:
    package = build_package(Path.cwd(), tmp_path / "job.zip")
    assert not package.has_metarl
    with zipfile.ZipFile(package.path) as archive:
        archive.extractall(tmp_path / "there")
    (found,) = distributions(path=[str(tmp_path / "there")])
    for group, name in (("metarl.task_distributions", "PointGoal"), ("metarl.algorithms", "maml")):
        entries = {entry.name: entry.value for entry in found.entry_points if entry.group == group}
        assert entries == available(group)
        assert name in entries


def test_folders_that_modules_are_found_in_here_are_import_roots_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("src/plug_in.py", "lib/nothing_sent.bin", "metarl/errors.py")
    Path(".gitignore").write_text("lib\n")
    monkeypatch.syspath_prepend("lib")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend("src")
    package = build_package(Path.cwd(), tmp_path / "job.zip")
    assert package.import_roots == ("src",)
    assert package.has_metarl


def test_equal_content_gives_equal_bytes_and_is_sent_once(tmp_path: Path) -> None:
    write("b.py", "a.py")
    first = build_package(Path.cwd(), tmp_path / "1.zip").path.read_bytes()
    write("a.py", "b.py")
    assert build_package(Path.cwd(), tmp_path / "2.zip").path.read_bytes() == first


def test_a_package_larger_than_ray_takes_names_the_largest_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package_module, "MAX_PACKAGE_BYTES", 2**20)
    write("small.py")
    Path("weights.npy").write_bytes(bytes(byte * byte % 251 for byte in range(2**16)) * 8)
    build_package(Path.cwd(), tmp_path / "job.zip")  # it compresses well
    Path("noise").write_bytes(os.urandom(3 * 2**20))
    result = CliRunner().invoke(app, ["submit", "small.yaml", "--address", "http://127.0.0.1:1"])
    assert result.exit_code == 2, result.output
    assert "is too large to send: 3.5 MiB in 4 files, and Ray takes 1 MiB" in result.stderr
    assert "The largest: noise (3.0 MiB), weights.npy (0.5 MiB)" in result.stderr


# --- the command -------------------------------------------------------------------------------------


def test_the_command_replaces_the_shell_quotes_and_goes_on() -> None:
    assert training_command("a b.yaml", ["name=x y", "seed=3"], "/shared/run 1") == (
        "exec python -m metarl train 'a b.yaml' 'name=x y' seed=3 --address auto --run-dir '/shared/run 1' --resume"
    )


def test_a_run_directory_on_a_storage_is_named_by_its_url() -> None:
    assert training_command("a.yaml", [], "s3://bucket/a").endswith("--run-dir s3://bucket/a --resume")


@pytest.mark.parametrize("run_dir", ["runs/a", "~/runs/a"])
def test_a_run_directory_that_is_not_absolute_lies_in_the_home_directory_there(run_dir: str) -> None:
    command = training_command("a.yaml", [], run_dir).removeprefix("exec python -m metarl train")
    done = subprocess.run(f"echo {command}", shell=True, env={"HOME": "/home/ray"}, capture_output=True, text=True)
    assert done.stdout == "a.yaml --address auto --run-dir /home/ray/runs/a --resume\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.yaml"], "no configuration file nothing.yaml"),
        (["small.yaml", "training.iteration=3"], "did you mean 'iterations'?"),
        (["small.yaml", "executor.backend=local"], "allowed: ray"),
        (["../outside.yaml"], "is not sent: it must lie below"),
        (["ignored.yaml"], "is not sent: it must lie below"),
        (["small.yaml"], "no job server answers at http://127.0.0.1:1 (ConnectionError)"),
        (["small.yaml", "--address", "head:8265"], "--address: a job server's address is http://HOST:8265"),
    ],
)
def test_wrong_input_is_one_message_and_exit_code_2_before_anything_is_sent(
    home: Path, arguments: list[str], message: str
) -> None:
    (home / "outside.yaml").write_text(YAML)
    Path("ignored.yaml").write_text(YAML)
    Path(".gitignore").write_text("ignored.yaml")
    result = CliRunner().invoke(app, ["submit", "--address", "http://127.0.0.1:1", *arguments])
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


# --- the server --------------------------------------------------------------------------------------


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>some other server</html>")

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def other_server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_where_nothing_listens_the_message_says_what_should_and_how_to_get_there() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound, not listening
        address = f"http://127.0.0.1:{held.getsockname()[1]}"
        for command in (["list"], ["logs", "x"], ["stop", "x"]):
            result = CliRunner().invoke(app, ["jobs", *command, "--address", address])
            assert result.exit_code == 2, result.output
            assert f"no job server answers at {address}" in result.stderr
            assert "ray dashboard cluster.yaml" in result.stderr


def test_a_server_that_is_not_rays_is_named(other_server: str) -> None:
    with pytest.raises(ConfigError, match="is no Ray job server"):
        JobServer(other_server).jobs()


def test_the_address_is_the_one_given_else_rays_variables_else_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert server_address(None) == "http://127.0.0.1:8265"
    monkeypatch.setenv("RAY_ADDRESS", "http://b:8265")
    assert server_address(None) == "http://b:8265"
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "https://a/")
    assert server_address(None) == "https://a"
    assert server_address("http://c:1") == "http://c:1"
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "10.0.0.1:6379")
    with pytest.raises(ConfigError, match="RAY_API_SERVER_ADDRESS: a job server's address is http://HOST:8265"):
        server_address(None)


def test_a_password_in_an_address_is_not_shown() -> None:
    with pytest.raises(ConfigError, match="got one with a password in it") as refused:
        server_address("http://me:secret@head:8265")
    assert "secret" not in str(refused.value)


class _BreakingClient:
    """In place of Ray's: the connection breaks in the middle of the log, then again while nothing is said."""

    def __init__(self) -> None:
        self.connections = iter((["one\ntw", None], [None], ["one\n", "two\nthree\n"]))
        self.states = iter(("RUNNING", "RUNNING", "SUCCEEDED"))

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        for text in next(self.connections):
            if text is None:
                raise RuntimeError("WebSocket connection closed unexpectedly")
            yield text

    def get_job_info(self, job_id: str) -> JobDetails:
        return JobDetails(type="SUBMISSION", submission_id=job_id, status=next(self.states), entrypoint="train")


def test_a_log_is_shown_once_however_often_the_connection_breaks() -> None:
    server = JobServer("http://127.0.0.1:1")
    vars(server)["_client"] = _BreakingClient()
    shown: list[str] = []
    assert server.follow("raysubmit_x", shown.append).status == "SUCCEEDED"
    assert "".join(shown) == "one\ntwo\nthree\n"


# --- the token ---------------------------------------------------------------------------------------


def test_a_token_in_clear_text_over_a_network_is_warned_of_before_it_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError

    monkeypatch.setattr("requests.get", refuse)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    result = CliRunner().invoke(app, ["jobs", "list", "--address", "http://head.example.com:8265"])
    assert result.exit_code == 2
    warning, error = result.stderr.splitlines()
    assert "warning: the token goes to http://head.example.com:8265 in clear text" in warning
    assert "ssh -L 8265:localhost:8265" in warning
    assert "no job server answers" in error
    for address in ("http://localhost:1", "http://127.0.0.1:1", "http://[::1]:1", "https://head.example.com"):
        assert "warning" not in CliRunner().invoke(app, ["jobs", "list", "--address", address]).stderr
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    assert "warning" not in CliRunner().invoke(app, ["jobs", "list", "--address", "http://head:8265"]).stderr
