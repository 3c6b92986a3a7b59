"""Addresses: clusters that are gone, and proxies that must not see a token."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

from metarl.cli.app import app
from metarl.distributed import _ray_private, cluster, connect
from metarl.distributed.jobs import JobServer
from metarl.errors import ConfigError


@contextmanager
def unused_port(listening: bool) -> Iterator[str]:
    """An address at which nothing listens, or what listens never answers."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        if listening:
            held.listen()
        yield f"127.0.0.1:{held.getsockname()[1]}"


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_ANSWER_TIMEOUT_S", 1.0)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.mark.parametrize("listening", [False, True])
def test_auto_with_a_dead_ray_address_says_that_no_cluster_answers(
    listening: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with unused_port(listening) as address:
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(ConfigError, match=f"no Ray cluster answers at '{address}'"), connect("auto"):
            pass


@pytest.mark.parametrize("listening", [False, True])
def test_auto_with_a_stale_session_says_that_no_cluster_answers(
    listening: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with unused_port(listening) as address:
        monkeypatch.setattr(_ray_private, "own_cluster_address", lambda: address)
        with pytest.raises(ConfigError, match=f"no Ray cluster answers at '{address}'"), connect("auto"):
            pass


def test_auto_without_any_cluster_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_ray_private, "own_cluster_address", lambda: None)
    with pytest.raises(ConfigError, match="--address auto: no cluster answers"), connect("auto"):
        pass


def test_auto_names_the_variable_that_holds_no_ray_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:8265")
    with pytest.raises(ConfigError, match="RAY_ADDRESS: a Ray address is"), connect("auto"):
        pass


# --- proxies -----------------------------------------------------------------------------------------


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A proxy that every variable names; the tokens it has seen."""
    seen: list[str] = []

    class Noting(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers.get("Authorization", ""))
            self.send_response(502)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Noting) as server:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield seen
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.53"])
def test_a_token_for_this_machine_passes_no_proxy(proxy: list[str], host: str) -> None:
    with pytest.raises(ConfigError, match="no job server answers"):
        JobServer(f"http://{host}:1").jobs()
    assert proxy == []
    assert "no_proxy" not in os.environ


@pytest.mark.parametrize(
    ("address", "variable"),
    [
        ("http://10.1.2.3:8265", None),
        ("http://192.168.0.9:8265", None),
        ("http://[fd00::1]:8265", None),
        ("http://8.8.8.8:8265", "http_proxy"),
    ],
)
def test_private_addresses_pass_no_proxy(proxy: list[str], address: str, variable: str | None) -> None:
    assert JobServer(address).proxy_variable == variable


def test_a_token_in_clear_text_to_a_proxy_is_warned_of(proxy: list[str]) -> None:
    result = CliRunner().invoke(app, ["jobs", "list", "--address", "http://8.8.8.8:8265"])
    assert "in clear text, through the proxy of http_proxy" in result.stderr
    assert proxy == ["Bearer secret"]
    assert result.exit_code == 2
