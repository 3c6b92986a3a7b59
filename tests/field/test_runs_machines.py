"""Machines that are not as usual: a fraction of a processor, a user without a home directory, other people's load."""

from __future__ import annotations

import logging
import pwd
from collections.abc import Iterator

import pytest
import ray

from metarl.distributed import RayExecutor, connect, pool, restartable
from metarl.distributed.restartable import run_restartable
from metarl.distributed.token import ensure_token
from metarl.errors import ConfigError
from metarl.runs.remote import local_copy
from metarl.training.stop import StopRequest
from tests.distributed.comparison import WEIGHTS, assert_same, reference
from tests.toy import Point, make_units, point_policy

pytestmark = pytest.mark.xdist_group("ray")


@pytest.fixture(scope="module")
def half_a_processor() -> Iterator[None]:
    """A Ray started in a container whose quota is half a processor."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ray._private.utils.get_num_cpus", lambda *_, **__: 0)
        with connect(None):
            yield


@pytest.mark.usefixtures("half_a_processor")
class TestFractionOfAProcessor:
    def test_it_counts_as_one(self) -> None:
        assert ray.cluster_resources()["CPU"] == 1

    def test_workers_that_do_not_start_are_said_with_the_load(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(pool, "_SAY_AFTER_S", 0.0)
        with RayExecutor(Point(), point_policy(), num_workers=2) as executor, caplog.at_level(logging.WARNING):
            assert_same(executor.collect(make_units(Point(), 2), WEIGHTS, 0), reference(2))
        assert "of 2 workers are up; one has not started in" in caplog.text
        assert "load average" in caplog.text

    def test_a_learner_that_does_not_start_is_said_with_the_load(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(restartable, "_SAY_AFTER_S", 0.0)
        with caplog.at_level(logging.WARNING):
            assert run_restartable(lambda channel: 3, print, StopRequest()) == 3
        assert "the learner has not started in" in caplog.text
        assert "load average" in caplog.text

    @pytest.mark.parametrize("error", [BrokenPipeError("pipe"), SystemExit(1)])
    def test_output_that_nobody_reads_does_not_end_the_work(
        self, error: BaseException, caplog: pytest.LogCaptureFixture
    ) -> None:
        def show(event: object) -> None:
            raise error

        def work(channel: restartable.Channel) -> str:
            channel.emit("x")
            return "done"

        assert run_restartable(work, show, StopRequest()) == "done"
        assert "the run continues without output" in caplog.text


def test_a_user_without_home_and_passwd_entry_is_told_to_set_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in ("HOME", "XDG_CACHE_HOME", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(ConfigError, match=r"HOME is not set, and user \d+ has no entry in /etc/passwd: set HOME"):
        ensure_token()
    with pytest.raises(ConfigError, match="HOME is not set"), local_copy("memory://x"):
        pass
