"""Runs on remote storage: what is there is what counts, and a run goes on from it on another machine."""

from __future__ import annotations

import logging
from pathlib import Path

import fsspec
import pytest
from typer.testing import CliRunner

from metarl.cli.app import app
from metarl.errors import ConfigError
from metarl.runs import checkpoint
from metarl.runs.remote import local_copy
from metarl.runs.storage_lock import LOCK_NAME

CONFIG = """
task_distribution: {name: PointGoal}
algorithm: {name: maml, tasks_per_iteration: 2, num_streams: 2}
training: {iterations: 3, checkpoint_every: 1, evaluate_every: 0, keep_checkpoints: 2}
evaluation: {num_tasks: 2}
executor: {backend: local}
"""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"memory://{tmp_path.name}/run"


def stored(url: str) -> dict[str, bytes]:
    files, root = fsspec.core.url_to_fs(url)
    found = {name.removeprefix(f"{root}/"): files.cat_file(name) for name in files.find(root)}
    return {name: content for name, content in found.items() if name != LOCK_NAME}


def test_a_path_is_worked_in_as_it_is(tmp_path):
    with local_copy(str(tmp_path)) as (path, sent):
        sent()
        assert path == tmp_path


def test_what_is_written_is_sent_and_what_is_removed_is_removed(url):
    with local_copy(url) as (path, send):
        (path / "checkpoints" / "000001").mkdir(parents=True)
        for name in ("checkpoints/000001/state", "config.yaml", ".lock", "checkpoints/.tmp-x"):
            (path / name).write_text(name)
        send()
        assert stored(url) == {name: name.encode() for name in ("checkpoints/000001/state", "config.yaml")}
        (path / "checkpoints" / "000001" / "state").unlink()
        (path / "config.yaml").write_text("other")
    assert stored(url) == {"config.yaml": b"other"}


def test_the_storage_outranks_a_copy_left_here(url):
    with local_copy(url) as (path, _):
        (path / "config.yaml").write_text("sent")
    (path / "config.yaml").write_text("not sent")
    (path / "more").write_text("not sent either")
    with local_copy(url) as (path, _):
        assert {file.name: file.read_text() for file in path.iterdir()} == {"config.yaml": "sent"}


def test_a_name_that_leads_out_of_the_run_directory_is_refused(url, monkeypatch, tmp_path):
    files, root = fsspec.core.url_to_fs(url)
    files.pipe_file(f"{root}/config.yaml", b"fine")
    monkeypatch.setattr(type(files), "find", lambda self, path: [f"{root}/config.yaml", f"{root}/../../evil"])
    with pytest.raises(ConfigError, match="whose name leads out of the run directory"), local_copy(url):
        pass
    assert not list(tmp_path.rglob("evil"))


def test_only_what_changed_is_sent_again_and_manifests_last(url, monkeypatch):
    files = type(fsspec.filesystem("memory"))
    sent: list[str] = []
    put = files.put_file

    def noted(self, local, remote, *args, **kwargs):
        sent.append(remote.rpartition("run/")[2])
        return put(self, local, remote, *args, **kwargs)

    monkeypatch.setattr(files, "put_file", noted)
    with local_copy(url) as (path, send):
        for name in ("a", "manifest.json", "z"):
            (path / name).write_text(name)
        send()
        (path / "z").write_text("another z")
    assert sent == ["a", "z", "manifest.json", "z"]


def test_a_failure_on_the_way_is_a_warning_and_at_the_end_an_error(url, monkeypatch, caplog):
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no route to the storage")

    with pytest.raises(OSError, match="no route"), local_copy(url) as (path, send):  # noqa: PT012
        (path / "config.yaml").write_text("x")
        monkeypatch.setattr(type(fsspec.filesystem("memory")), "put_file", refuse)
        with caplog.at_level(logging.WARNING):
            send()
    assert f"could not send to {url}" in caplog.text


def test_a_storage_that_nobody_knows_is_said():
    with pytest.raises(ConfigError, match=r"nonsense://x/y.*Protocol not known"), local_copy("nonsense://x/y"):
        pass


def test_a_run_trained_in_two_parts_on_a_storage_equals_one_in_one_part_here(tmp_path, url):
    config = tmp_path / "small.yaml"
    config.write_text(CONFIG)

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(app, list(arguments))
        assert result.exit_code == 0, result.output
        return result.output

    run("train", str(config), "--run-dir", str(tmp_path / "here"))
    run("train", str(config), "--run-dir", url, "training.iterations=1")
    assert {name.split("/")[1] for name in stored(url) if name.startswith("checkpoints/")} == {"000001"}
    run("train", str(config), "--run-dir", url, "--resume")
    assert {name.split("/")[1] for name in stored(url) if name.startswith("checkpoints/")} == {"000002", "000003"}
    with local_copy(url) as (path, _):
        ours, theirs = (checkpoint.load_latest(run / "checkpoints").tensors for run in (path, tmp_path / "here"))
    assert all(ours[name].equal(theirs[name]) for name in theirs)
    assert url in run("evaluate", url, "--local")
    assert any(name.endswith("adaptation.png") for name in stored(url))
