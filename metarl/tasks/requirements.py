"""What a task distribution's environments need installed, and what of it this Python lacks."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from packaging.requirements import InvalidRequirement, Requirement

from metarl.errors import TaskError


def unmet(requirements: Sequence[str]) -> tuple[str, ...]:
    """Those of pip's requirements that are not installed in their version here. One that names a file counts as unmet.

    Raises TaskError where one is not written as pip wants it.
    """
    return tuple(text for text in requirements if not _is_met(text))


def _is_met(text: str) -> bool:
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        raise TaskError(
            f"requirement {text!r}: {str(error).splitlines()[0]}; allowed: as in 'mujoco==3.3.0'"
        ) from error
    if requirement.marker is not None and not requirement.marker.evaluate():
        return True
    if requirement.url is not None:
        return False
    try:
        return requirement.specifier.contains(version(requirement.name), prereleases=True)
    except PackageNotFoundError:
        return False
