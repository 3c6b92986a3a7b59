"""The token that a Ray asks for: found where Ray looks, made where there is none, read by nobody else."""

from __future__ import annotations

from pathlib import Path

import pytest

from metarl.distributed.token import ensure_token, find_token
from metarl.errors import ConfigError


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_the_token_is_found_where_ray_finds_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_token() is None
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text("from-home\n")
    (home / "named").write_text("from-file")
    found = []
    for name, value in (("", ""), ("RAY_AUTH_TOKEN_PATH", "~/named"), ("RAY_AUTH_TOKEN", "from-variable")):
        if name:
            monkeypatch.setenv(name, value)
        token = find_token()
        assert token is not None
        assert token.value not in repr(token)
        found.append((token.value, token.source))
    assert found == [
        ("from-home", "~/.ray/auth_token"),
        ("from-file", "RAY_AUTH_TOKEN_PATH=~/named"),
        ("from-variable", "RAY_AUTH_TOKEN"),
    ]
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert find_token() is None


def test_a_file_without_a_token_and_a_token_of_two_lines_are_refused_unseen(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "missing")
    with pytest.raises(ConfigError, match="RAY_AUTH_TOKEN_PATH=missing: no readable file"):
        find_token()
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret\nX-Header: 1")
    with pytest.raises(ConfigError, match="RAY_AUTH_TOKEN: a token is one line") as refused:
        find_token()
    assert "secret" not in str(refused.value)


def test_a_token_that_others_can_read_is_made_private(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    (home / ".ray").mkdir()
    file = home / ".ray" / "auth_token"
    file.write_text("secret")
    file.chmod(0o644)
    with caplog.at_level("INFO"):
        find_token()
    assert mode_of(file) == 0o600
    assert "was readable by others (mode 644)" in caplog.text
    assert "secret" not in caplog.text


def test_a_ray_started_here_has_a_token_of_its_own(home: Path) -> None:
    ensure_token()
    file = home / ".ray" / "auth_token"
    assert mode_of(file) == 0o600
    assert len(file.read_text()) == 64
    token = find_token()
    ensure_token()
    assert find_token() == token, "one that is there stays"


def test_a_ray_that_anyone_could_use_is_not_started(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(ConfigError, match="RAY_AUTH_MODE=disabled: Ray would listen on every interface"):
        ensure_token()
    assert not (home / ".ray").exists()


def test_an_empty_token_file_is_filled(home: Path) -> None:
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").touch()
    ensure_token()
    token = find_token()
    assert token is not None
    assert len(token.value) == 64
    assert [path.name for path in (home / ".ray").iterdir()] == ["auth_token"]
