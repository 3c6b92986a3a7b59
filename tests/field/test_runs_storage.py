"""Several processes use one run on remote storage: readers and writers do not disturb each other."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import fsspec
import pytest

from metarl.errors import ConfigError
from metarl.runs import storage_lock as lock_module
from metarl.runs.remote import local_copy, reading_copy
from metarl.runs.storage_lock import LOCK_NAME


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """The storage, as a folder."""
    return tmp_path / "storage"


@pytest.fixture
def url(stored: Path) -> str:
    return f"file://{stored}"


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")} - {LOCK_NAME}


def write_lock(stored: Path, **changed: Any) -> None:
    content = {"owner": "x", "who": "ann on far-away (process 7)", "machine": "far-away", "pid": 7, "since": "noon"}
    stored.mkdir(parents=True, exist_ok=True)
    (stored / LOCK_NAME).write_text(json.dumps({**content, "count": 3, **changed}))


def test_a_reader_leaves_the_copy_of_a_training_alone_and_removes_nothing(url: str, stored: Path) -> None:
    with local_copy(url) as (path, send):
        (path / "metrics.jsonl").write_text("1\n")
        send()
        with reading_copy(url) as other:
            assert other != path
            assert (other / "metrics.jsonl").read_text() == "1\n"
            (path / "metrics.jsonl").write_text("1\n2\n")
            (path / "more").write_text("x")
            send()
            (other / "evaluation.json").write_text("{}")
            (other / "metrics.jsonl").unlink()
        assert (path / "metrics.jsonl").read_text() == "1\n2\n"
    assert (stored / "metrics.jsonl").read_text() == "1\n2\n"
    assert names(stored) == {"metrics.jsonl", "more", "evaluation.json"}
    assert not other.exists()


def test_the_file_that_vanishes_while_a_reader_fetches_is_no_fault(
    url: str, stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored.mkdir()
    for name in ("a", "b"):
        (stored / name).write_text(name)
    files = type(fsspec.filesystem("file"))
    get = files.get_file

    def pruned(self: Any, remote: str, local: str, **kwargs: Any) -> None:
        (stored / "b").unlink(missing_ok=True)
        get(self, remote, local, **kwargs)

    monkeypatch.setattr(files, "get_file", pruned)
    with reading_copy(url) as path:
        assert names(path) == {"a"}


def test_two_trainings_of_one_url_on_one_machine_are_refused(url: str) -> None:
    refused = pytest.raises(ConfigError, match=f"another process of this machine trains {url}")
    with local_copy(url), refused, local_copy(url):
        pass


def test_removed_checkpoints_leave_no_empty_folder_on_the_storage(url: str, stored: Path) -> None:
    with local_copy(url) as (path, send):
        for number in ("000001", "000002"):
            (path / "checkpoints" / number).mkdir(parents=True)
            (path / "checkpoints" / number / "state").write_text(number)
        send()
        (path / "checkpoints" / "000001" / "state").unlink()
        (path / "checkpoints" / "000001").rmdir()
    assert names(stored) == {"checkpoints", "checkpoints/000002", "checkpoints/000002/state"}
    assert not (stored / LOCK_NAME).exists()


def test_a_lock_whose_count_moves_is_respected_and_names_its_owner(
    url: str, stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_lock(stored)
    monkeypatch.setattr(lock_module.time, "sleep", lambda _: write_lock(stored, count=4))
    with pytest.raises(ConfigError, match=r"ann on far-away \(process 7\) since noon.*If it has ended, remove"):  # noqa: SIM117
        with local_copy(url):
            pass


def test_a_lock_whose_count_stands_still_is_taken_over_with_a_warning(
    url: str, stored: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_lock(stored)
    monkeypatch.setattr(lock_module, "_WATCH_S", 0.0)
    with local_copy(url):
        assert json.loads((stored / LOCK_NAME).read_text())["pid"] == os.getpid()
    assert "its lock is stale and is taken over" in caplog.text


def test_a_lock_of_a_process_of_this_machine_that_has_ended_is_taken_over_at_once(url: str, stored: Path) -> None:
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    write_lock(stored, machine=lock_module._machine(), pid=child)
    with local_copy(url):
        pass
    write_lock(stored, machine=lock_module._machine(), pid=os.getppid())
    with pytest.raises(ConfigError, match="is being trained by"), local_copy(url):
        pass


def test_the_lock_is_renewed_while_the_run_trains(url: str, stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_module, "_BEAT_S", 0.01)
    with local_copy(url):
        while json.loads((stored / LOCK_NAME).read_text() or "{}").get("count", 0) < 2:
            time.sleep(0.01)


def test_a_learner_that_is_started_again_takes_its_own_lock(url: str, stored: Path) -> None:
    write_lock(stored, owner="this run")
    with local_copy(url, owner="this run"):
        pass
