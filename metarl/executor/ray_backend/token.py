"""Ray's authentication token, as Ray itself looks for it. It is never printed and never written."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from metarl.errors import ConfigError

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
    return _read(Path("~/.ray/auth_token").expanduser(), "~/.ray/auth_token")


def _read(path: Path, source: str) -> Token | None:
    try:
        value = path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None
    return _checked(Token(value, source, path)) if value else None


def _checked(token: Token) -> Token:
    """What cannot stand in a request's header would be quoted in an error."""
    if not (token.value.isascii() and token.value.isprintable()):
        raise ConfigError(f"{token.source}: a token is one line of printable ASCII characters")
    return token
