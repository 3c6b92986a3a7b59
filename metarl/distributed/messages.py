"""The line of a Ray error that says what happened."""

from __future__ import annotations


def first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def pip_error(error: Exception) -> str:
    """What pip said, without the log around it."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = [line for line in lines if line.startswith("ERROR:")]
    return said[-1].removeprefix("ERROR: ") if said else next((line for line in reversed(lines) if line), "")
