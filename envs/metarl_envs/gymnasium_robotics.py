"""Gymnasium-Robotics: its goal-conditioned environments, with the goal hidden. A task is a goal.

Environments run where `requirements` are installed, which Ray's workers see to; the learner needs none of it.
Not among the registered names: `task_distribution: {name: "metarl_envs.gymnasium_robotics:GoalTasks", options: {...}}`.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import cache, partial
from typing import Any

import gymnasium
import numpy as np

from metarl.errors import TaskError, did_you_mean
from metarl.tasks import Task, TaskDistribution
from metarl_envs.gymnasium_robotics_goals import goal_of, goal_parameters
from metarl_envs.gymnasium_robotics_names import ENVIRONMENTS
from metarl_envs.reuse import Reused, take

_REQUIREMENTS = ("gymnasium-robotics>=1.4,<1.5",)
_OTHERS = {  # what is in Gymnasium-Robotics besides, and why it is not here
    "Adroit": "its goal is no part of its interface",
    "FrankaKitchen": "its goals are lists of chores",
}


class GoalTasks(TaskDistribution):
    """Tasks that differ in the goal of `env`, a key of `ENVIRONMENTS`, which must be inferred from the reward.

    reward: dense or sparse, as Gymnasium-Robotics defines them. horizon: the environment's own where left out.

    Parameters and their priors: see `metarl_envs.gymnasium_robotics_goals`. Observation: Gymnasium-Robotics'
    `observation`, then its `achieved_goal`; `desired_goal` is left out. The goal is the task's at every reset. Where an
    episode starts is drawn as ever and tells nothing of it; in a maze it may be the goal's cell. `success` is the
    environment's own. Never terminates. Where Fetch blocks its gripper (all but PickAndPlace), the action that would
    move it is left out.

    Raises TaskError naming the option, what is wrong with it and what is allowed.
    """

    version = 1
    requirements = _REQUIREMENTS

    def __init__(self, env: str = "FetchReach-v4", reward: str = "dense", horizon: int | None = None):
        if env not in ENVIRONMENTS:
            raise TaskError(_unknown(env))
        if reward not in ("dense", "sparse"):
            raise TaskError(f"GoalTasks: reward must be dense or sparse, got {reward!r}")
        self.name, self.env, self.reward, self.kind = f"GoalTasks-{env}", env, reward, ENVIRONMENTS[env]
        self.horizon = self.kind.horizon if horizon is None else horizon
        self.parameters = goal_parameters(env, self.kind)
        seen = gymnasium.spaces.Box(-np.inf, np.inf, (self.kind.observation + self.kind.goal,), np.float64)
        self.spaces = seen, gymnasium.spaces.Box(-1.0, 1.0, (self.kind.action,))

    @property
    def registered_id(self) -> str:
        """The id of the environment with this reward."""
        name, _, version = self.env.rpartition("-")
        return f"{name}{'Dense' if self.reward == 'dense' else ''}-{version}"

    def make(self, task: Task, render_mode: str | None = None) -> gymnasium.Env:
        key = None if render_mode else ("GoalTasks", self.registered_id, self.horizon)
        env = take(key, partial(_build, self.registered_id, self.horizon, render_mode))
        return HiddenGoal(env, goal_of(task, env.unwrapped, self.kind), self.kind.action, key)


class HiddenGoal(Reused):
    """`env` with one goal, which observations do not tell: float64 [observation, achieved goal].

    The first `num_actions` actions are the policy's, the others 0. Building `env` takes as long as tens of steps.
    """

    def __init__(self, env: Any, goal: np.ndarray, num_actions: int, key: Hashable | None):
        super().__init__(env, key)
        self._goal, self._inner = goal, env.unwrapped
        parts = [env.observation_space[part].shape[0] for part in ("observation", "achieved_goal")]
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (sum(parts),), np.float64)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (num_actions,))
        self._unused = np.zeros(env.action_space.shape[0] - num_actions, np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        if hasattr(self._inner, "parallel_quats"):
            _forget(self._inner)
        seen, _ = self.env.reset(seed=seed, options=options)  # its info is about the goal that it drew
        self._inner.goal = self._goal.copy()
        if hasattr(self._inner, "update_target_site_pos"):
            self._inner.update_target_site_pos()  # what pictures show
        return _visible(seen), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        seen, reward, terminated, truncated, info = self.env.step(np.concatenate([np.asarray(action), self._unused]))
        success = bool(info["is_success"] if "is_success" in info else info["success"])
        return _visible(seen), float(reward), bool(terminated), bool(truncated), {**info, "success": success}


def _visible(seen: Any) -> np.ndarray:
    return np.concatenate([seen["observation"], seen["achieved_goal"]])


def _forget(inner: Any) -> None:
    """Let nothing of the last episode into the next. The resets of HandManipulate keep controls and solver state."""
    import mujoco

    mujoco.mj_resetData(inner.model, inner.data)


# --- environments --------------------------------------------------------------------------------------


def _build(env_id: str, horizon: int, render_mode: str | None) -> Any:
    """An environment of this id, whose goal is to be set."""
    _register()
    options: dict[str, Any] = {"max_episode_steps": horizon, "disable_env_checker": True, "render_mode": render_mode}
    return gymnasium.make(env_id, **options)


@cache
def _register() -> None:
    """Have Gymnasium know the environments. TaskError with pip's command where the package is not installed."""
    try:
        import gymnasium_robotics
    except ImportError as error:
        raise TaskError(
            f"GoalTasks needs Gymnasium-Robotics ({error}): pip install '{_REQUIREMENTS[0]}', or let Ray's workers "
            "install it: executor.backend=ray"
        ) from error
    gymnasium.register_envs(gymnasium_robotics)
    _repair()


def _repair() -> None:
    """Let Gymnasium-Robotics 1.4 find joints by MuJoCo 3.12 and later, whose `mjJNT_HINGE == np.int32(3)` is False.

    It asks so of every hinge and slide, in an assertion. It gets the same numbers as plain ones.
    """
    import mujoco
    from gymnasium_robotics.utils import mujoco_utils

    if mujoco.mjtJoint.mjJNT_HINGE != np.int32(mujoco.mjtJoint.mjJNT_HINGE):
        mujoco_utils.mujoco = _PlainJoints()


class _PlainJoints:
    """The module `mujoco` with joint types as whole numbers."""

    def __init__(self) -> None:
        import mujoco

        self._mujoco = mujoco
        self.mjtJoint = type("mjtJoint", (), {name: int(v) for name, v in mujoco.mjtJoint.__members__.items()})

    def __getattr__(self, name: str) -> Any:
        return getattr(self._mujoco, name)


def _unknown(env: object) -> str:
    """What is wrong with the name of an environment, and what is allowed."""
    said = str(env)
    kinds = dict.fromkeys(name.partition("_")[0] for name in ENVIRONMENTS if "TouchSensors" not in name)
    allowed = f"allowed: {', '.join(kinds)} (with their mazes and sensors: metarl_envs/gymnasium_robotics_names.py)"
    if (plain := said.replace("Dense", "")) != said and plain in ENVIRONMENTS:
        return f"GoalTasks: env = {env!r}: write env: {plain} and reward: dense"
    for start, why in _OTHERS.items():
        if said.startswith(start):
            return f"GoalTasks: env = {env!r} has no goal that a task could set: {why}; {allowed}"
    hint = did_you_mean(said, ENVIRONMENTS)
    return f"GoalTasks: env = {env!r} is no goal-conditioned environment of Gymnasium-Robotics; {hint}{allowed}"
