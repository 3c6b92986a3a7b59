"""Changes in mid-episode as tasks state them: `dead_motor.at_step = 60` is the step from which `dead_motor` holds."""

from __future__ import annotations

from typing import Any

from metarl.tasks.task import Task

AT_STEP = ".at_step"


def change_steps(task: Task) -> dict[str, float]:
    """The step of each change of a task, by the name of what changes; empty where nothing does.

    The value holds for the first action whose index (from 0) is not below the step.
    """
    found = {}
    for name, value in task.items:
        if name.endswith(AT_STEP) and isinstance(value, float):
            found[name.removesuffix(AT_STEP)] = value
    return found


def redraw_notes(distribution: Any) -> tuple[str, ...]:
    """What to know of tasks whose values are chosen: a sentence for each parameter that is redrawn in mid-episode.

    `distribution`: a TaskDistribution, or one that is revealed; its `body`, where it has one, knows what is redrawn.
    """
    body = getattr(getattr(distribution, "inner", distribution), "body", None)
    notes = []
    for parameter in getattr(body, "redrawn", ()):
        others = [split for split in ("test", "ood") if getattr(parameter, split) is not None]
        where = f" (from its {' or '.join(others)} range where the value lies in that alone)" if others else ""
        notes.append(
            f"{parameter.name} is redrawn in mid-episode, from its training range{where}: a value chosen here holds "
            "until the first redraw."
        )
    return tuple(notes)
