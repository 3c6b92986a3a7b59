"""The check that observations lie in the space that their environment declares: type, shape, dtype and bounds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Tuple

from metarl.errors import TaskError
from metarl.tasks.check.remarks import Remark
from metarl.tasks.check.rollouts import SEED, some_tasks
from metarl.tasks.distribution import TaskDistribution
from metarl.tasks.nested import before_flattening

_NUM_STEPS = 100


@dataclass(frozen=True)
class Misfit:
    """What an observation has that its space does not allow.

    part: of the observation, such as observation['joints']. place: of a number in it, such as [3]. excess: by how much
    that number is beyond its bound, of which part of the observation the largest is told; 0 for anything else.
    """

    part: str
    place: str
    what: str
    excess: float = 0.0
    is_failure: bool = False

    def __str__(self) -> str:
        return f"{self.part}{self.place} {self.what}"


def check_observations_in_space(distribution: TaskDistribution) -> list[Remark]:
    """Single environments of several tasks give observations of their own space's types and shapes; remarks where a
    dtype is another or a number lies beyond its bound."""
    found: dict[tuple[str, bool], Misfit] = {}
    for task in some_tasks(distribution):
        env = distribution.make(task)
        try:
            inner = before_flattening(env)
            for step, obs in enumerate(_episode(inner, min(distribution.horizon, _NUM_STEPS))):
                for misfit in misfits(inner.observation_space, obs):
                    when = "at reset" if step == 0 else f"at step {step - 1}"
                    if misfit.is_failure:
                        raise TaskError(f"{task}: {misfit} {when}")
                    key = misfit.part, misfit.excess > 0
                    if key not in found or misfit.excess > found[key].excess:
                        found[key] = replace(misfit, what=f"{misfit.what} {when} of {task}")
        finally:
            env.close()
    return [Remark(f"{misfit}: {_advice(misfit)}", True) for misfit in found.values()]


def _advice(misfit: Misfit) -> str:
    return "widen the observation space, or clip" if misfit.excess else "make them equal"


def _episode(env: gymnasium.Env, steps: int) -> Iterator[Any]:
    """The observations of one episode of random actions."""
    env.action_space.seed(SEED)
    yield env.reset(seed=SEED)[0]
    for _ in range(steps):
        obs, _, terminated, truncated, _ = env.step(env.action_space.sample())
        yield obs
        if terminated or truncated:
            return


def misfits(space: gymnasium.Space, obs: Any, part: str = "observation") -> Iterator[Misfit]:
    """Everything in `obs` that `space` does not allow; of the numbers of one Box, the one farthest beyond its bound."""
    if isinstance(space, Dict):
        yield from _in_dict(space, obs, part)
    elif isinstance(space, Tuple):
        if not isinstance(obs, tuple | list | np.ndarray) or len(obs) != len(space.spaces):
            yield _failure(part, f"is {_shown(obs)}, its space says a tuple of {len(space.spaces)}")
            return
        for i, (inner, value) in enumerate(zip(space.spaces, obs, strict=True)):
            yield from misfits(inner, value, f"{part}[{i}]")
    elif isinstance(space, Box):
        yield from _in_box(space, obs, part)
    elif not space.contains(obs):
        yield _failure(part, f"= {obs!r} is not in {space}")


def _in_dict(space: Dict, obs: Any, part: str) -> Iterator[Misfit]:
    if not isinstance(obs, Mapping):
        yield _failure(part, f"is {_shown(obs)}, its space says a dict with {', '.join(map(repr, space.spaces))}")
        return
    for how, keys in (("lacks", space.spaces.keys() - obs.keys()), ("also has", obs.keys() - space.spaces.keys())):
        if keys:
            yield _failure(part, f"{how} {', '.join(sorted(map(repr, keys)))}: its space says otherwise")
    for key, inner in space.spaces.items():
        if key in obs:
            yield from misfits(inner, obs[key], f"{part}[{key!r}]")


def _in_box(space: Box, obs: Any, part: str) -> Iterator[Misfit]:
    try:
        values = np.asarray(obs)
    except ValueError:  # rows of different lengths
        values = np.empty((), dtype=object)
    if values.dtype.kind not in "fiub":
        yield _failure(part, f"is {_shown(obs)}, its space says numbers of shape {space.shape}")
    elif values.shape != space.shape:
        yield _failure(part, f"has shape {values.shape}, its space says {space.shape}")
    else:
        if isinstance(obs, np.ndarray | np.generic) and not np.can_cast(values.dtype, space.dtype):
            yield Misfit(part, "", f"has dtype {values.dtype}, its space says {space.dtype}")
        yield from _beyond_bounds(space, values, part)


def _beyond_bounds(space: Box, values: np.ndarray, part: str) -> Iterator[Misfit]:
    """Numbers are compared in the space's own dtype: a bound that it rounded is no bound that was left."""
    with np.errstate(over="ignore", invalid="ignore"):
        held = (values.astype(space.dtype) if np.dtype(space.dtype).kind == "f" else values).astype(np.float64)
        low, high = space.low.astype(np.float64), space.high.astype(np.float64)
        is_beyond = (held < low) | (held > high)
        excess = np.where(is_beyond, np.maximum(low - held, held - high), 0.0)
    if not is_beyond.any():
        return
    place = np.unravel_index(int(np.argmax(excess)), excess.shape)
    bound = f"below its bound {low[place]:.6g}" if held[place] < low[place] else f"above its bound {high[place]:.6g}"
    others = int(is_beyond.sum()) - 1
    more = f" ({others} more of {part} beyond theirs)" if others else ""
    index = f"[{', '.join(map(str, map(int, place)))}]" if place else ""
    yield Misfit(part, index, f"= {float(values[place]):.6g} is {bound}{more}", float(excess[place]))


def _failure(part: str, what: str) -> Misfit:
    return Misfit(part, "", what, is_failure=True)


def _shown(obs: Any) -> str:
    return f"an array of shape {obs.shape}" if isinstance(obs, np.ndarray) else f"a {type(obs).__name__}"
