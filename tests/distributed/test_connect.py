"""Addresses at which no cluster answers."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from metarl.distributed import connect
from metarl.errors import ConfigError


def test_an_address_where_nothing_listens_is_refused_at_once() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound, not listening
        address = f"127.0.0.1:{held.getsockname()[1]}"
        with pytest.raises(ConfigError, match=f"no Ray cluster answers at '{address}'"), connect(address):
            pass


@pytest.mark.parametrize("address", ["http://head:8265", "ray://head:10001", "head", "head:x", ":6379"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="a Ray address is"), connect(address):
        pass


AFTER = """
import ray
from metarl.distributed import connect
try:
    with connect("head:x"):
        pass
except Exception:
    pass
for call in (ray.nodes, lambda: ray.put(1), ray.remote(lambda: 1).remote, lambda: ray.wait([])):
    try:
        call()
    except Exception as error:
        print(type(error).__name__)
print(ray.is_initialized())
"""


def test_a_call_after_the_end_of_a_connection_starts_no_other_ray() -> None:
    done = subprocess.run([sys.executable, "-c", AFTER], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "False", done.stdout
    assert len(done.stdout.split()) == 5, done.stdout
