"""What a check has to say beside passing."""

from __future__ import annotations

from dataclasses import dataclass

from metarl.errors import TaskError


@dataclass(frozen=True)
class Remark:
    """A finding of a check that passed: a fact, or (`is_warning`) what may be a mistake and may be intended."""

    text: str
    is_warning: bool = False


def require(condition: bool, message: str) -> None:
    """TaskError with `message` where the condition does not hold."""
    if not condition:
        raise TaskError(message)


def listed(numbers: list[int]) -> str:
    """`dimension 3`, or `dimensions 1, 2, 3, ... (12 of them)`."""
    shown = ", ".join(map(str, numbers[:8])) + (f", ... ({len(numbers)} of them)" if len(numbers) > 8 else "")
    return f"dimension{'s' if len(numbers) > 1 else ''} {shown}"
