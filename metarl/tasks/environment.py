"""One Gymnasium environment of a plug-in, held to what Gymnasium wants of it.

What `make`, `reset` and `step` give is looked at before anything is made of it: an answer that would be misread (an
old four-tuple, an observation without an info, a reward of shape (1,), values that the observation space cannot hold)
is an error that says what was returned and what Gymnasium wants.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Tuple
from gymnasium.spaces.utils import flatdim, flatten

from metarl.errors import EnvironmentFault, TaskError
from metarl.plugins import describe
from metarl.tasks.action_space import require_action_space
from metarl.tasks.success import success_of_step
from metarl.tasks.task import Task


class CheckedEnv:
    """`env` of `task`, its observations flattened to float64 [O].

    Raises TaskError where `env` is not an environment that can be trained on, EnvironmentFault naming the task where
    it raises or answers wrongly, and where MuJoCo warns that the simulation became unstable.
    """

    def __init__(self, env: Any, task: Task):
        _require_env(env, task)
        self.env, self.task = env, task
        self._space = env.observation_space
        self.obs_dim = _flat_size(self._space, task)
        require_action_space(env.action_space, _named(env, task))
        self._has_exact_leaves = _has_exact_leaves(self._space)
        self._simulator = env.unwrapped if _has_warnings(env.unwrapped) else None  # MuJoCo's
        self._num_steps = 0
        self.success: bool | None = None  # what the last step's info said of it; None where it says nothing

    @property
    def action_space(self) -> gymnasium.Space:
        return self.env.action_space

    def reset(self, seed: int | None) -> np.ndarray:
        self._num_steps = 0
        try:
            answer = self.env.reset(seed=seed)
        except (Exception, SystemExit) as error:
            wanted = ": Gymnasium calls reset(seed=..., options=...)" if "keyword argument" in str(error) else ""
            raise self._fault(f"reset raised {describe(error)}{wanted}") from error
        if not (isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[1], dict)):
            raise self._fault(f"reset returned {_shown(answer)}, Gymnasium wants (observation, info)")
        return self._flat("reset", answer[0])

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool]:
        try:
            answer = self.env.step(action)
        except (Exception, SystemExit) as error:
            raise self._fault(f"step raised {describe(error)}") from error
        self._num_steps += 1
        if not (isinstance(answer, tuple) and len(answer) == 5):
            wanted = "(observation, reward, terminated, truncated, info)"
            raise self._fault(f"step returned {_shown(answer)}, Gymnasium wants {wanted}")
        obs, reward, terminated, truncated, info = answer
        self.success = success_of_step(info, self.task)
        if type(reward) is not float and (np.ndim(reward) or isinstance(reward, str) or reward is None):
            raise self._fault(f"step returned the reward {_shown(reward)}, Gymnasium wants a number")
        for name, flag in (("terminated", terminated), ("truncated", truncated)):
            if flag is not False and flag is not True and not isinstance(flag, int | np.bool_ | np.integer):
                raise self._fault(f"step returned {name} = {_shown(flag)}, Gymnasium wants True or False")
        return self._flat("step", obs), float(reward), bool(terminated), bool(truncated)

    def close(self) -> None:
        self.env.close()

    def _flat(self, doing: str, obs: Any) -> np.ndarray:
        if self._simulator is not None:
            self._check_stable(doing)
        if obs is None:
            raise self._fault(f"{doing} returned None for the observation, Gymnasium wants one of {self._space}")
        try:
            if self._has_exact_leaves:
                _require_exact(self._space, obs, "observation")
            with np.errstate(over="ignore"):  # a number beyond float32 becomes inf, which is reported as such
                flat = np.asarray(flatten(self._space, obs), dtype=np.float64)
        except Exception as error:
            raise self._fault(f"{doing} returned an observation that is not in {self._space}: {error}") from error
        if flat.shape != (self.obs_dim,):
            raise self._fault(f"{doing}: observation has shape {flat.shape}, its space says {(self.obs_dim,)}")
        return flat

    def _check_stable(self, doing: str) -> None:
        assert self._simulator is not None
        counts = self._simulator.data.warning.number
        if counts.tobytes() != b"\0" * counts.nbytes:
            from metarl.tasks.physics import instabilities  # late: whoever gets here has imported mujoco

            if bad := instabilities(counts):
                at = "reset" if doing == "reset" else f"step {self._num_steps - 1}"
                raise self._fault(f"the simulation became unstable at {at}: MuJoCo warns of a bad {bad}")

    def _fault(self, what: str) -> EnvironmentFault:
        return EnvironmentFault(f"{self.task}: {what}")


def _require_env(env: Any, task: Task) -> None:
    if isinstance(env, gymnasium.vector.VectorEnv):
        raise TaskError(f"{task}: `make` returned a vector environment, {env}; wanted is one environment of one task")
    if not isinstance(env, gymnasium.Env):
        hint = " (is `return` missing?)" if env is None else f" of {type(env).__module__}"
        raise TaskError(f"{task}: `make` returned {type(env).__name__}{hint}; wanted is a gymnasium.Env")
    for layer in (env, env.unwrapped):
        if getattr(layer, "render_mode", None) == "human":
            raise TaskError(
                f"{task}: `make` returned an environment with render_mode='human', which would open a window in every "
                "worker; allowed: None or 'rgb_array'"
            )
    for name in ("observation_space", "action_space"):
        if getattr(env, name, None) is None:
            raise TaskError(f"{task}: the environment {type(env.unwrapped).__name__} has no {name}")


def _flat_size(space: Any, task: Task) -> int:
    if not isinstance(space, gymnasium.Space):
        raise TaskError(
            f"{task}: the observation space {space} is of {type(space).__module__}; Gymnasium wants one of "
            "gymnasium.spaces (convert an old gym environment with the package shimmy)"
        )
    try:
        size = flatdim(space)
    except (ValueError, NotImplementedError) as error:
        raise TaskError(f"{task}: observations of {space} have no fixed size: {error}") from error
    if size == 0:
        raise TaskError(f"{task}: the observation space {space} holds no number")
    return int(size)


def _named(env: gymnasium.Env, task: Task) -> str:
    """The task, and the actuators of its model that have no range where there are such."""
    model: Any = getattr(env.unwrapped, "model", None)
    ranges = getattr(model, "actuator_ctrlrange", None)
    if ranges is None:
        return str(task)
    empty = [model.actuator(i).name or f"number {i}" for i, (low, high) in enumerate(ranges) if not low < high]
    return f"{task}: actuator {', '.join(empty)} has no ctrlrange" if empty else str(task)


def _has_warnings(env: Any) -> bool:
    counts = getattr(getattr(getattr(env, "data", None), "warning", None), "number", None)
    return isinstance(counts, np.ndarray)


def _has_exact_leaves(space: gymnasium.Space) -> bool:
    """Whether any part of the space holds whole numbers or named entries, which flattening would force silently."""
    return not (isinstance(space, Box) and np.dtype(space.dtype).kind == "f")


def _require_exact(space: gymnasium.Space, obs: Any, where: str) -> None:
    """ValueError naming the part of `obs` that its space cannot hold: a missing key, 0.3 where it says uint8."""
    if isinstance(space, Dict):
        missing = [key for key in space.spaces if key not in obs]
        if missing:
            raise ValueError(f"{where} lacks {', '.join(map(repr, missing))}")
        for key, part in space.spaces.items():
            _require_exact(part, obs[key], f"{where}[{key!r}]")
    elif isinstance(space, Tuple):
        for i, (part, value) in enumerate(zip(space.spaces, obs, strict=True)):
            _require_exact(part, value, f"{where}[{i}]")
    elif isinstance(space, Box):
        if np.size(obs) != np.prod(space.shape):
            raise ValueError(f"{where} has shape {np.shape(obs)}, its space says {space.shape}")
        if np.dtype(space.dtype).kind == "f":
            return
        values = np.asarray(obs)
        held = values.astype(space.dtype)
        for place in np.argwhere(np.atleast_1d(held != values))[:1]:
            value = np.atleast_1d(values)[tuple(place)]
            raise ValueError(f"{where} is {value} in dimension {int(place[-1])}, and {space.dtype} cannot hold it")
    elif not space.contains(obs):
        raise ValueError(f"{where} = {obs!r} is not in {space}")


def _shown(answer: Any) -> str:
    """What was returned, in a few words."""
    if isinstance(answer, tuple):
        return f"a tuple of {len(answer)} ({', '.join(type(part).__name__ for part in answer)})"
    if isinstance(answer, np.ndarray):
        return f"an array of shape {answer.shape}"
    return repr(answer) if isinstance(answer, int | float | str | None) else f"a {type(answer).__name__}"
