"""Changes in mid-episode as tasks state them: `dead_motor.at_step = 60` is the step from which `dead_motor` holds."""

from __future__ import annotations

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
