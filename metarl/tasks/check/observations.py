"""Remarks about observations that a policy can hardly use, and about time limits that cut episodes short."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from metarl.errors import TaskError
from metarl.tasks.check.remarks import Remark, listed
from metarl.tasks.check.rollouts import SEED, Trace, rollout, some_tasks
from metarl.tasks.distribution import TaskDistribution
from metarl.tasks.nested import nested_space, parts_of

_HUGE = 1e6
_TINY = 1e-6
_NUM_STEPS = 50


def check_observations(distribution: TaskDistribution) -> list[Remark]:
    """Which dimensions of the observation are constant, huge, tiny, or lose what changes in float32."""
    batch = distribution.make_batch(some_tasks(distribution))
    steps = min(distribution.horizon, _NUM_STEPS)
    traces = [rollout(batch, steps, seed=SEED + episode) for episode in range(2)]
    batch.close()
    return [*_order(distribution), *remarks_on(traces)]


def _order(distribution: TaskDistribution) -> list[Remark]:
    """In which order the parts of a Dict or Tuple observation are flattened."""
    env = distribution.make(some_tasks(distribution)[0])
    parts = parts_of(nested_space(env))
    env.close()
    return [Remark(f"the observation is flattened in this order: {', '.join(map(str, parts))}")] if parts else []


def remarks_on(traces: list[Trace]) -> list[Remark]:
    """The remarks on what was observed in these episodes."""
    values = np.concatenate([trace.observations.reshape(-1, trace.observations.shape[2]) for trace in traces])
    largest, spread = np.abs(values).max(axis=0), values.max(axis=0) - values.min(axis=0)
    remarks = []
    for is_so, what in (
        (spread == 0, "constant: they tell a policy nothing"),
        (largest > _HUGE, f"larger than {_HUGE:g}: scale them, or what else is observed is drowned"),
        ((spread > 0) & (largest < _TINY), f"smaller than {_TINY:g} throughout: scale them, or they are not seen"),
        (_is_lost(traces), "the same in float32 though they change: subtract an offset, such as the start time"),
    ):
        dimensions = np.flatnonzero(is_so).tolist()
        if dimensions:
            sizes = f" (up to {largest[dimensions].max():.3g})" if largest[dimensions].max() > 0 else ""
            remarks.append(Remark(f"observation {listed(dimensions)}{sizes}: {what}", True))
    return remarks


def _is_lost(traces: list[Trace]) -> np.ndarray:
    """Dimensions of which most changes from step to step vanish in float32, bool [O]."""
    with np.errstate(over="ignore"):
        pairs = [(t.observations, t.observations.astype(np.float32)) for t in traces]
    changed, kept = (sum((np.diff(x, axis=0) != 0).sum(axis=(0, 1)) for x in xs) for xs in zip(*pairs, strict=True))
    return np.asarray((changed > 0) & (2 * kept < changed))


def check_time_limits(distribution: TaskDistribution) -> list[Remark]:
    """Whether an environment's own time limit ends episodes before the horizon does."""
    task = some_tasks(distribution)[0]
    env = distribution.make(task)
    remarks = time_limit_remarks(env, distribution.horizon)
    env.close()
    if remarks:
        return remarks
    batch = distribution.make_batch(some_tasks(distribution))
    trace = rollout(batch, min(distribution.horizon - 1, 2 * _NUM_STEPS)) if distribution.horizon > 1 else None
    batch.close()
    if trace is not None and bool(trace.terminated[0].all()):
        raise TaskError(
            f"every episode ends in a terminal state at its first step, and the horizon is {distribution.horizon}: the "
            "termination does not fit the state after a reset; change one of them, or set horizon to 1 if one step is "
            "all there is"
        )
    if trace is None or not trace.truncated.any():
        return []
    step = int(np.argmax(trace.truncated.any(axis=1)))
    return [Remark(f"episodes are truncated after {step + 1} steps, the horizon is {distribution.horizon}", True)]


def time_limit_remarks(env: Any, horizon: int) -> list[Remark]:
    """A remark where a TimeLimit wrapper of `env` is shorter than `horizon`."""
    while isinstance(env, gymnasium.Wrapper):
        limit = getattr(env, "_max_episode_steps", None)
        if isinstance(env, gymnasium.wrappers.TimeLimit) and isinstance(limit, int) and limit < horizon:
            what = f"a TimeLimit ends episodes after {limit} steps, the horizon is {horizon}: make them equal"
            return [Remark(what, True)]
        env = env.env
    return []
