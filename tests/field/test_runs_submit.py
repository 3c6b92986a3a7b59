"""What lies in a directory that is submitted: links that form loops, names that are not UTF-8, very large files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from metarl.cli.jobs import _name_in
from metarl.distributed.package import Package, build_package, files_to_send
from metarl.errors import ConfigError


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.py", "sub/b.py"):
        (folder / name).write_text(name)
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize(
    "links",
    [
        {"x": "."},
        {"x": ".", "y": "."},
        {"sub/up": ".."},
        {"x": "../project", "sub/y": "../..", "sub/z": "../sub"},
        {"self": "self"},
        {"dangling": "nowhere"},
    ],
)
def test_links_that_lead_back_are_not_followed(project: Path, links: dict[str, str]) -> None:
    for name, target in links.items():
        (project / name).symlink_to(target)
    assert set(files_to_send(project)) == {"a.py", "sub/b.py"}


def test_links_to_files_and_to_folders_elsewhere_are_followed(project: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x.csv").write_text("x")
    (project / "data").symlink_to(tmp_path / "data")
    (project / "other").symlink_to("sub")
    (project / "c.py").symlink_to("a.py")
    assert set(files_to_send(project)) == {"a.py", "c.py", "data/x.csv", "other/b.py", "sub/b.py"}


def test_a_name_that_is_not_utf_8_is_named_unless_it_is_left_out(project: Path) -> None:
    name = b"caf\xe9.csv"
    Path(os.fsdecode(bytes(project) + b"/sub/" + name)).write_text("x")
    with pytest.raises(ConfigError, match=r"the name of b'sub/caf\\xe9.csv' is not UTF-8") as refused:
        files_to_send(project)
    str(refused.value).encode()
    (project / ".gitignore").write_text("*.csv\n")
    assert set(files_to_send(project)) == {"a.py", "sub/b.py"}


def test_a_very_large_file_is_refused_unread(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(project / "large.bin", "wb") as file:
        file.truncate(12 * 2**30)
    monkeypatch.setattr("shutil.copyfileobj", lambda *_: pytest.fail("it was read"))
    with pytest.raises(ConfigError, match=r"too large to send: 12288.0 MiB.*The largest: large.bin \(12288.0 MiB\)"):
        build_package(project, tmp_path / "job.zip")


def test_a_configuration_named_through_a_link_to_the_working_directory_is_found(project: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(project)
    (project / "newest.yaml").symlink_to("sub/c.yaml")
    package = Package(tmp_path / "job.zip", frozenset({"c.yaml", "sub/c.yaml", "newest.yaml"}), ())
    assert _name_in(package, tmp_path / "link" / "c.yaml") == "c.yaml"
    assert _name_in(package, tmp_path / "link" / "sub" / "c.yaml") == "sub/c.yaml"
    assert _name_in(package, Path("newest.yaml")) == "newest.yaml"
    with pytest.raises(ConfigError, match="must lie below"):
        _name_in(package, tmp_path / "c.yaml")
