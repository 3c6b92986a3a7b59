"""Gymnasium-Robotics' Fetch: reach, push, slide or pick up, to a goal that only the reward tells of.

Environments run where `requirements` are installed, which Ray's workers see to; the learner needs none of it. Not among
the registered names: `task_distribution: {name: "metarl_envs.fetch:Fetch", options: {env: reach}}`.

Gymnasium-Robotics 1.4.2 does not start with MuJoCo 3.14, hence an older one for the workers.
"""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from typing import Any

import gymnasium
import numpy as np

from metarl.errors import TaskError
from metarl.tasks import Parameter, Task, TaskDistribution, Uniform

ENVIRONMENTS = {
    "reach": "FetchReach-v4",
    "push": "FetchPush-v4",
    "slide": "FetchSlide-v4",
    "pick_and_place": "FetchPickAndPlace-v4",
}
REWARDS = ("dense", "sparse")


class Fetch(TaskDistribution):
    """Bring the gripper or the object to a goal. The task is the goal, relative to the gripper's initial place.

    env: reach, push, slide or pick_and_place. reward: dense, minus the distance to the goal [m]; sparse, -1 per step
    beyond 5 cm and 0 within.

    Observation 10 (reach) or 25: that of the environment alone, without the desired goal and what has been achieved.
    Action 3: motion of the gripper; a fourth, its opening, for pick_and_place alone. Never terminates. Goals come from
    the environment's own range; those of pick_and_place are up to 0.45 m above the table, where the environment puts
    half of them on it. A step is a success within 5 cm of the goal.
    """

    version = 1
    requirements = ("mujoco==3.3.0", "gymnasium-robotics==1.4.2")

    def __init__(self, env: str = "reach", reward: str = "dense", horizon: int = 50):
        for what, value, allowed in (("env", env, tuple(ENVIRONMENTS)), ("reward", reward, REWARDS)):
            if value not in allowed:
                raise TaskError(f"Fetch: {what} = {value!r}; allowed: {', '.join(allowed)}")
        if isinstance(horizon, bool) or not isinstance(horizon, int) or horizon < 1:
            raise TaskError(f"Fetch: horizon must be a whole number from 1 on, got {horizon!r}")
        self.name, self.env, self.reward, self.horizon = f"Fetch-{env}", env, reward, horizon
        reach = Uniform(-0.3, 0.3) if env == "slide" else Uniform(-0.15, 0.15)
        self.parameters = (Parameter("x", reach, "m"), Parameter("y", reach, "m"))
        if env == "reach":
            self.parameters += (Parameter("z", reach, "m"),)
        elif env == "pick_and_place":
            self.parameters += (Parameter("height", Uniform(0.0, 0.45), "m"),)
        num_observations = 10 if env == "reach" else 25
        self.spaces = (
            gymnasium.spaces.Box(-np.inf, np.inf, (num_observations,)),
            gymnasium.spaces.Box(-1.0, 1.0, (4 if env == "pick_and_place" else 3,)),
        )

    def make(self, task: Task, render_mode: str | None = None) -> gymnasium.Env:
        offset = np.zeros(3)  # x, y, and z or the height
        offset[: len(self.parameters)] = [task[parameter.name] for parameter in self.parameters]
        key = self.env, self.reward, render_mode
        return _HiddenGoal(_take(*key), key, offset)


class _HiddenGoal(gymnasium.Wrapper[np.ndarray, np.ndarray, Any, np.ndarray]):
    """The environment with the task's goal, `offset` [3] from the gripper, which is not observed.

    Closed, it is kept for the next task: building one takes as long as many episodes.
    """

    def __init__(self, env: gymnasium.Env, key: tuple[Any, ...], offset: np.ndarray):
        super().__init__(env)
        assert isinstance(env.observation_space, gymnasium.spaces.Dict)
        self.observation_space = env.observation_space["observation"]
        inner: Any = env.unwrapped
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (3 if inner.block_gripper else 4,))
        self._key, self._is_open = key, True
        goal = inner.initial_gripper_xpos[:3] + inner.target_offset
        goal[2] = inner.height_offset if inner.has_object else goal[2]
        self._goal = goal + offset

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        inner: Any = self.env.unwrapped
        inner.goal = self._goal.copy()  # instead of the one that it has drawn
        return observation["observation"], info

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        opening = [] if len(action) == 4 else [0.0]  # the environment ignores that of a blocked gripper
        observation, reward, terminated, truncated, info = self.env.step(np.append(action, opening))
        return observation["observation"], float(reward), terminated, truncated, {**info, "success": info["is_success"]}

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            _free[self._key].append(self.env)


# --- environments --------------------------------------------------------------------------------------

_free: defaultdict[tuple[Any, ...], deque[gymnasium.Env]] = defaultdict(deque)  # appending and popping are atomic
_lock = threading.Lock()  # registering is not


def _take(env: str, reward: str, render_mode: str | None) -> gymnasium.Env:
    """One that was closed, or a new one."""
    try:
        return _free[env, reward, render_mode].pop()
    except IndexError:
        import gymnasium_robotics

        with _lock:
            if ENVIRONMENTS[env] not in gymnasium.registry:
                gymnasium.register_envs(gymnasium_robotics)
        made = gymnasium.make(ENVIRONMENTS[env], reward_type=reward, render_mode=render_mode, disable_env_checker=True)
        return made.env if isinstance(made, gymnasium.wrappers.TimeLimit) else made  # the horizon is the family's
