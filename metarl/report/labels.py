"""The one table of labels that tables, figures and the command line share."""

from __future__ import annotations

from dataclasses import dataclass

from metarl.rollout.types import Adapts
from metarl.tasks import Anchors

RETURN = "return per episode, undiscounted"
_REFERENCES = {  # attribute of Anchors: what it is the return of
    "nothing": "zero actions",
    "task_blind": "best non-adaptive policy",
    "expert": "expert that knows the task",
}


@dataclass(frozen=True)
class ReferenceReturn:
    """A return that others are compared with, and what earns it."""

    label: str
    value: float


def reference_returns(anchors: Anchors) -> tuple[ReferenceReturn, ...]:
    """The known reference returns of a task distribution, in the table's order."""
    values = ((label, getattr(anchors, name)) for name, label in _REFERENCES.items())
    return tuple(ReferenceReturn(label, value) for label, value in values if value is not None)


def judged_actions(is_deterministic: bool | None) -> str:
    """How the actions of judged episodes were taken; evaluations of earlier versions (None) do not say."""
    return {True: "means", False: "samples", None: "not recorded"}[is_deterministic]


MEANINGS: dict[Adapts, str] = {  # what the rounds of an evaluation mean
    "between": (
        "Before adaptation: the policy as it was trained, without experience of the task. After: adapted to its own "
        "episodes on it."
    ),
    "within": (
        "This policy adapts at every step, so that episode 1 already holds adaptation and no round comes before it. "
        "Its gain is measured against the same policy with its memory kept blank."
    ),
    "never": "This policy does not adapt: its episodes differ by chance alone.",
}


def round_name(index: int, num_rounds: int, adapts: Adapts) -> str:
    """What a round is to the reader. "before adaptation" is said of a policy that adapts between rounds alone."""
    if adapts != "between":
        return f"episode {index + 1}"
    if index == 0:
        return "before adaptation"
    return "after adaptation" if index == num_rounds - 1 else f"adapting, round {index}"
