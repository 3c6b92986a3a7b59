"""The errors a user may meet. Each message names the place, the value and what is allowed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MetarlError(ValueError):
    """Base of every error caused by input: the command line prints it and exits with code 2."""


class ConfigError(MetarlError):
    """A configuration key or value is wrong, or a run directory does not fit the configuration."""


class TaskError(MetarlError):
    """A task lies outside its space, or a task distribution cannot be found or breaks its contract."""


class CheckpointError(MetarlError):
    """A checkpoint is missing, damaged or belongs to another configuration."""


class AgentError(MetarlError):
    """An agent was used in the wrong order, or given what its robot's spaces or its saved state do not allow."""


class ExportError(MetarlError):
    """A policy cannot be exported, or its export does not act as the agent does."""


class TrainingError(RuntimeError):
    """Training cannot go on: something in it is no longer finite; exit code 1."""


class EnvironmentFault(RuntimeError):
    """An environment misbehaved while running (raised, hung, gave NaN or a wrong shape); exit code 1."""


class Terminated(SystemExit):
    """A signal ended the process before training could save anything; the exit code is 128 + its number."""

    def __init__(self, signal_number: int):
        super().__init__(128 + signal_number)


def did_you_mean(word: object, known: Iterable[str], before: str = "", after: str = " ") -> str:
    """`did you mean 'a' or 'b'? `, the two nearest of the `known` words, whatever the case; empty where none is near.

    `before` and `after` go around the question.
    """
    by_lower = {name.lower(): name for name in known if name}
    near = [repr(by_lower[match]) for match in difflib.get_close_matches(str(word).lower(), list(by_lower), n=2)]
    return f"{before}did you mean {' or '.join(near)}?{after}" if near else ""
