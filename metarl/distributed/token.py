"""Ray's authentication token, found where Ray itself looks. It is never printed.

`ray get-auth-token --generate` also makes one, but readable as the umask allows, and over one that another process has
just made.
"""

from __future__ import annotations

import logging
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from metarl.errors import ConfigError
from metarl.files import home_directory

_log = logging.getLogger(__name__)

HOW_TO_GIVE = (
    "give the token that the cluster was started with by RAY_AUTH_TOKEN, by RAY_AUTH_TOKEN_PATH (a file that holds it) "
    "or in ~/.ray/auth_token"
)


@dataclass(frozen=True)
class Token:
    """`source` says where it was found, for messages."""

    value: str = field(repr=False)
    source: str
    file: Path | None = None


def find_token() -> Token | None:
    """RAY_AUTH_TOKEN, else the file RAY_AUTH_TOKEN_PATH, else ~/.ray/auth_token; None where RAY_AUTH_MODE=disabled.

    Raises ConfigError where the file that RAY_AUTH_TOKEN_PATH names holds none.
    """
    if os.environ.get("RAY_AUTH_MODE", "").lower() == "disabled":
        return None
    if value := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return _checked(Token(value, "RAY_AUTH_TOKEN"))
    if named := os.environ.get("RAY_AUTH_TOKEN_PATH"):
        token = _read(Path(named).expanduser(), f"RAY_AUTH_TOKEN_PATH={named}")
        if token is None:
            raise ConfigError(f"RAY_AUTH_TOKEN_PATH={named}: no readable file with a token in it")
        return token
    return _read(_default_file(), "~/.ray/auth_token")


def ensure_token() -> None:
    """A token for a Ray that this process starts; one is made where there is none.

    A Ray listens on all interfaces of its machine, whatever it is told, and runs the code that it is sent. Raises
    ConfigError where RAY_AUTH_MODE=disabled.
    """
    if os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        raise ConfigError(
            f"RAY_AUTH_MODE={os.environ['RAY_AUTH_MODE']}: Ray would listen on every interface of this machine and run "
            "what anyone sends it; allowed: token, or no such variable. Without Ray: --local"
        )
    if find_token() is None:
        path = _default_file()
        draft = path.with_name(f".auth_token.{os.getpid()}")
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                file.write(secrets.token_hex(32))
            try:
                os.link(draft, path)  # whole, and never over the token of a process that was quicker
            except FileExistsError:
                if find_token() is None:  # an empty file
                    os.replace(draft, path)
            draft.unlink(missing_ok=True)
        except OSError as error:
            raise ConfigError(f"cannot write a token for Ray to {path}: {error.strerror}") from error


def _default_file() -> Path:
    return home_directory() / ".ray" / "auth_token"


def _read(path: Path, source: str) -> Token | None:
    try:
        value = path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None
    if not value:
        return None
    _keep_private(path)
    return _checked(Token(value, source, path))


def _keep_private(path: Path) -> None:
    """Take others' permission to read the file away; a warning where that fails."""
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        try:
            path.chmod(mode & 0o700)
            _log.info("%s was readable by others (mode %o) and is no longer", path, mode)
        except OSError as error:
            _log.warning("%s, which holds a token, is readable by others (mode %o): %s", path, mode, error.strerror)


def _checked(token: Token) -> Token:
    """The token, if it can stand in a request's header. Otherwise the error of the HTTP client would quote it."""
    if not (token.value.isascii() and token.value.isprintable()):
        raise ConfigError(f"{token.source}: a token is one line of printable ASCII characters")
    return token
