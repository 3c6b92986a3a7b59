"""Tasks as they are written on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from metarl.errors import ConfigError

if TYPE_CHECKING:
    from metarl.tasks import Split, Task, TaskDistribution


def task_of(distribution: TaskDistribution, text: str, fill: bool = False) -> Task:
    """The task of `mass=1.5,goal=[0.3, 0.4]`; ConfigError or TaskError where it is none of this distribution.

    `fill`: parameters that are left out have the middle of their training range.
    """
    from metarl.config.overrides import parse_override
    from metarl.tasks.middle import middle

    example = ",".join(f"{parameter.name}=..." for parameter in distribution.parameters)
    values = {}
    for part in split_at_commas(text):
        name, value = parse_override(part, "--task", "name=value,...", example)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number and not (isinstance(value, list) and value):
            raise ConfigError(f"--task {text}: {name} = {value!r}: allowed is a number or a list of numbers")
        values[name] = tuple(value) if isinstance(value, list) else value
    left_out = {p.name: middle(p.prior) for p in distribution.parameters if p.name not in values} if fill else {}
    return distribution.task(**values, **left_out)


def split_at_commas(text: str) -> list[str]:
    """The parts between commas that stand in no brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character == "[") - (character == "]")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def split_of_all(distribution: TaskDistribution, tasks: list[Task]) -> Split:
    """The split that chosen tasks are judged as: the first of ood, train and validation that any of them belongs to,
    and test where all are test tasks."""
    splits = [distribution.split_of(task) for task in tasks]
    if any("ood" in found for found in splits):
        return "ood"
    if all("test" in found for found in splits):
        return "test"
    return "train" if any("train" in found for found in splits) else "validation"
