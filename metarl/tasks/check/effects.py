"""Checks that what may be varied has an effect: each parameter of a task, and each dimension of an action.

Two runs of the same seed and actions are compared that differ in the one thing alone: the random numbers of effects
and redraws are the same too, and the parameter that is varied is not redrawn. Effects can be rare (a friction
without contact, a reward near the goal only), so more variants and longer episodes are tried until one is found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from gymnasium.spaces import Box

from metarl.errors import TaskError
from metarl.tasks.changes import AT_STEP, change_steps
from metarl.tasks.check.remarks import Remark
from metarl.tasks.check.rollouts import SEED, Trace, actions_of, other_actions, rollout
from metarl.tasks.distribution import Parameter, TaskDistribution
from metarl.tasks.task import ComparedTask, Task, Value

# Of each attempt: variants side by side, steps of an episode. Random actions and constant ones take turns.
_ATTEMPTS = ((2, 25), (2, 25), (4, 50), (4, 100), *((16, 100),) * 12)
_EPISODES = ("the first episode", "an episode after a reset with another seed", "an episode after a reset without seed")
_ROUNDING = 1e-9  # relative: differences below are no effect
_EARLY, _LATEST = 2, 12  # steps at which changes in mid-episode are made


@dataclass(frozen=True)
class Effect:
    """The largest difference of two runs in one place: `what` is "reward" or "observation dimension 3"."""

    what: str
    size: float

    def __str__(self) -> str:
        return f"{self.what} by up to {self.size:.3g}"


def effects_between(one: Trace, other: Trace) -> list[Effect]:
    """Where two runs differ by more than rounding: the observation dimension that differs most, and the reward."""
    found = []
    for values, others, name in (
        (one.observations, other.observations, "observation dimension {}"),
        (one.rewards[:, :, None], other.rewards[:, :, None], "reward"),
    ):
        size = np.abs(values - others)
        relative = size / (1 + np.maximum(np.abs(values), np.abs(others)))
        dimension = int(np.argmax(relative.max(axis=(0, 1))))
        if relative[:, :, dimension].max() > _ROUNDING:
            found.append(Effect(name.format(dimension), float(size[:, :, dimension].max())))
    if not found and not np.array_equal(one.ended, other.ended):
        found.append(Effect("the episode's length", float(np.abs(one.ended.sum(0) - other.ended.sum(0)).max())))
    return found


def check_parameters(distribution: TaskDistribution) -> list[Remark]:
    """Each parameter, varied alone, changes an observation or a reward, and so it does after every reset."""
    return [_check_parameter(distribution, parameter) for parameter in distribution.parameters]


def _check_parameter(distribution: TaskDistribution, parameter: Parameter) -> Remark:
    rng, base = np.random.Generator(np.random.Philox(SEED)), _base(distribution, parameter, 0)
    if parameter.prior.options is not None and len(set(parameter.prior.options)) == 1:
        return Remark(f"{parameter.name} has one value alone, so it makes no two tasks differ")
    found: dict[str, list[Effect]] = {}
    num_tried = 0
    for attempt, (variants, steps) in enumerate(_ATTEMPTS):
        base = _base(distribution, parameter, attempt)
        values = [_another_value(parameter, base[parameter.name], rng) for _ in range(variants)]
        varied = [ComparedTask.with_value(base, parameter.name, value) for value in values]
        unvaried = ComparedTask.with_value(base, parameter.name, base[parameter.name])
        num_tried += variants
        pairs = zip(
            _episodes(distribution, [unvaried] * variants, steps, attempt),
            _episodes(distribution, varied, steps, attempt),
            strict=True,
        )
        for when, (one, other) in zip(_EPISODES, pairs, strict=True):
            if effects := effects_between(one, other):
                found.setdefault(when, effects)
        if len(found) == len(_EPISODES):
            is_late = parameter.name.removesuffix(AT_STEP) in change_steps(base)
            early = f" (from step {_EARLY} on here)" if is_late else ""
            return Remark(f"{parameter.name} changes {' and '.join(map(str, found[_EPISODES[0]]))}{early}")
    if not found:
        raise TaskError(
            f"parameter {parameter.name!r} has no effect: {num_tried} other values of it gave the same observations "
            f"and rewards as {base}; {_advice(distribution, parameter)}"
        )
    without = " and ".join(when for when in _EPISODES if when not in found)
    raise TaskError(
        f"parameter {parameter.name!r} has no effect in {without}: a reset must keep the task, not draw another one, "
        "nor put back what the task has changed"
    )


def _advice(distribution: TaskDistribution, parameter: Parameter) -> str:
    """What to change where a parameter has no effect; a distribution may know more, by a method of that name."""
    own = getattr(distribution, "advice_on", None)
    return (own and own(parameter.name)) or "use it where the environment is built or rewarded, or leave it out"


def _base(distribution: TaskDistribution, parameter: Parameter, attempt: int) -> Task:
    """The task that others are compared with. What changes in mid-episode does so at once, before episodes can end;
    for the step of a change other tasks are tried too, because in some nothing changes then."""
    number = attempt + 1 if parameter.name.endswith(AT_STEP) else 1
    base = distribution.sample("train", number, SEED)[-1]
    early = {name + AT_STEP: float(_EARLY) for name in change_steps(base)}
    return Task.of(base.distribution, {**base.values, **early}) if early else base


def _another_value(parameter: Parameter, value: Value, rng: np.random.Generator) -> Value:
    if parameter.name.endswith(AT_STEP):
        return float(_EARLY + rng.integers(1, _LATEST))
    for _ in range(100):
        other = parameter.prior.sample(rng)
        if other != value:
            return other
    return value


def _episodes(distribution: TaskDistribution, tasks: Sequence[Task], steps: int, attempt: int) -> list[Trace]:
    """An episode after each kind of reset, in the order of _EPISODES, on one batch."""
    batch = distribution.make_batch(tasks)
    steps = min(steps, distribution.horizon)
    traces = []
    for i in range(len(_EPISODES)):
        actions = actions_of(batch, steps, SEED + attempt, constant=attempt % 2 == 1)
        traces.append(rollout(batch, seed=SEED + 100 * i + attempt, actions=actions, is_seeded=i < 2))
    batch.close()
    return traces


def check_actions(distribution: TaskDistribution) -> list[Remark]:
    """Each dimension of an action changes an observation or a reward in some task; of discrete ones, any does."""
    alive: dict[int, list[Effect]] = {}
    num_dims = 1
    for attempt, (_, steps) in enumerate(_ATTEMPTS[:8]):
        task = distribution.sample("train", attempt + 1, SEED)[-1]
        runs = _action_runs(distribution, task, min(steps, distribution.horizon), attempt)
        num_dims = len(runs) - 1
        for dimension, run in enumerate(runs[1:]):
            effects = effects_between(runs[0], run)
            if effects and (dimension not in alive or not _moves(alive[dimension])):
                alive[dimension] = effects
        if len(alive) == num_dims and all(_moves(effects) for effects in alive.values()):
            break
    dead = [str(d) for d in range(num_dims) if d not in alive]
    if dead:
        raise TaskError(
            f"action dimension {', '.join(dead)} has no effect: observations and rewards are the same whatever it is; "
            "let `step` use it, or take it out of the action space"
        )
    still = [d for d, effects in alive.items() if not _moves(effects)]
    if len(still) == num_dims:  # a bandit: nothing moves at all
        return []
    return [
        Remark(f"action dimension {d} changes the {alive[d][0]} and no observation: does it reach the robot?", True)
        for d in still
    ]


def _moves(effects: list[Effect]) -> bool:
    return any(effect.what != "reward" for effect in effects)


def _action_runs(distribution: TaskDistribution, task: Task, steps: int, attempt: int) -> list[Trace]:
    """A run, and one per dimension of the action in which that dimension alone has other numbers."""
    batch = distribution.make_batch([task])
    space = batch.single_action_space
    actions = actions_of(batch, steps, SEED + attempt, constant=attempt % 2 == 1)
    if isinstance(space, Box):
        changed = [[other_actions(space, a, d) for a in actions] for d in range(space.shape[0])]
    else:
        first, count = int(space.start), int(space.n)  # type: ignore[attr-defined]
        changed = [[(first + (a - first + 1) % count).astype(a.dtype) for a in actions]]
    runs = [rollout(batch, seed=SEED + attempt, actions=chosen) for chosen in [actions, *changed]]
    batch.close()
    return runs


EFFECT_CHECKS: tuple[Callable[[TaskDistribution], list[Remark]], ...] = (check_parameters, check_actions)
