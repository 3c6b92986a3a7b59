"""Meta-World's reach-v3 with goals of our own: a task is a goal. On the MuJoCo that Meta-World was made with.

Environments run where its `requirements` are installed, which Ray's workers see to; the learner needs none of it.
Not among the registered names: `task_distribution: {name: "metarl_envs.meta_world:MetaWorldReach"}`.
"""

from __future__ import annotations

import pickle
from typing import Any

import gymnasium
import numpy as np
from gymnasium.utils import seeding

from metarl.errors import TaskError
from metarl.tasks import Parameter, Task, TaskDistribution, Uniform

_MAX_HORIZON = 500  # then Meta-World ends an episode itself


class MetaWorldReach(TaskDistribution):
    """Observation 39, without the goal; action 4. Reward 0 to 10 by the hand's distance to the goal. Never terminates.

    The goals are Meta-World's own range. Its way of seeding is replaced: the task fixes the goal, whatever is reset.
    """

    name = "MetaWorldReach"
    version = 1
    requirements = ("mujoco==3.3.0", "metaworld==3.1.1")
    spaces = (gymnasium.spaces.Box(-np.inf, np.inf, (39,)), gymnasium.spaces.Box(-1.0, 1.0, (4,)))
    parameters = (
        Parameter("x", Uniform(-0.1, 0.1), "m"),
        Parameter("y", Uniform(0.8, 0.9), "m"),
        Parameter("z", Uniform(0.05, 0.3), "m"),
    )

    def __init__(self, horizon: int = 150):
        if not 1 <= horizon <= _MAX_HORIZON:
            raise TaskError(f"{self.name}: horizon must be 1 to {_MAX_HORIZON}, got {horizon}")
        self.horizon = horizon

    def make(self, task: Task) -> gymnasium.Env:
        import metaworld

        kind = metaworld.env_dict.ALL_V3_ENVIRONMENTS["reach-v3"]
        env = kind()
        where = np.hstack([env.init_config["obj_init_pos"], [task["x"], task["y"], task["z"]]])
        settings = {"rand_vec": where, "env_cls": kind, "partially_observable": True}
        env.set_task(metaworld.Task(env_name="reach-v3", data=pickle.dumps(settings)))
        return _Seeded(env)


class _Seeded(gymnasium.Wrapper):
    """`reset(seed=...)` gives the generator a seed, which Meta-World does not; nothing of an episode hangs on it."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        if seed is not None:
            self.env.unwrapped.np_random = seeding.np_random(seed)[0]
        return self.env.reset(seed=seed, options=options)
