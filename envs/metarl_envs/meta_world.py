"""Meta-World: its own benchmarks ML1, ML10, ML25 and ML45, and reach-v3 with goals of our own.

Environments run where `requirements` are installed, which Ray's workers see to; the learner needs none of it.
Not among the registered names: `task_distribution: {name: "metarl_envs.meta_world:MetaWorld", options: {...}}`.

Meta-World makes a benchmark's goals by resetting all its environments. A process does so once, when its first
environment is made: 2 s for ML1, 15 s for ML10, about a minute for ML45.
"""

from __future__ import annotations

import pickle
import threading
from collections.abc import Sequence
from functools import cache
from typing import Any

import gymnasium
import numpy as np
from gymnasium.utils import seeding

from metarl.errors import TaskError, did_you_mean
from metarl.tasks import Choice, Parameter, Task, TaskDistribution, Uniform
from metarl_envs.meta_world_names import BENCHMARKS, ENVIRONMENTS, NUM_GOALS
from metarl_envs.reuse import Reused, take

_MAX_HORIZON = 500  # then Meta-World ends an episode itself
_REQUIREMENTS = ("mujoco==3.3.0", "metaworld==3.1.1")
_SPACES = (gymnasium.spaces.Box(-np.inf, np.inf, (39,)), gymnasium.spaces.Box(-1.0, 1.0, (4,)))
_GOALS = Parameter("goal", Choice(range(NUM_GOALS)), test=Choice(range(NUM_GOALS, 2 * NUM_GOALS)))


class MetaWorld(TaskDistribution):
    """A meta-learning benchmark: its training tasks are the training split, its test tasks the test split.

    benchmark: ML1, with one environment `env`; ML10, ML25 or ML45. seed: what Meta-World draws the goals with.

    goal: an index into the environment's training tasks (0 to 49), or, from 50 on, into its test tasks. What a goal
        decides, such as where the object lies and where it is to go, is Meta-World's.
    env: an index into `ENVIRONMENTS`; not in ML1, which has one.

    Training and validation tasks coincide, because Meta-World holds none out. Observation 39, without the goal;
    action 4. Reward 0 to 10 per step. Never terminates. An episode is a success where any of its steps is, as
    Meta-World counts; unlike in its evaluation, the episode continues after it.
    """

    version = 1
    requirements = _REQUIREMENTS
    spaces = _SPACES

    def __init__(self, benchmark: str = "ML1", env: str | None = None, seed: int = 0, horizon: int = _MAX_HORIZON):
        _require_known("benchmark", benchmark, ("ML1", *BENCHMARKS))
        if benchmark == "ML1":
            _require_known("env", env, ENVIRONMENTS)
        elif env is not None:
            raise TaskError(f"MetaWorld: env = {env!r} is for ML1 alone; {benchmark} has environments of its own")
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32 - 1:
            raise TaskError(f"MetaWorld: seed must be a whole number from 0 to {2**32 - 2}, got {seed!r}")
        self.name = f"MetaWorld-{benchmark}" if env is None else f"MetaWorld-{benchmark}-{env}"
        _require_horizon(self.name, horizon)
        self.benchmark, self.env, self.seed, self.horizon = benchmark, env, seed, horizon
        self.parameters = (_GOALS,) if env is not None else (_environments(*BENCHMARKS[benchmark]), _GOALS)

    def env_name(self, task: Task) -> str:
        """The name of the environment that a task is of."""
        return ENVIRONMENTS[int(np.asarray(task["env"]))] if self.env is None else self.env

    def make(self, task: Task) -> gymnasium.Env:
        name, goal = self.env_name(task), int(np.asarray(task["goal"]))
        goals = _goals(self.benchmark, self.env, self.seed)[goal >= NUM_GOALS].get(name)
        if goals is None:
            kind = "test" if goal >= NUM_GOALS else "training"
            raise TaskError(f"{task}: {self.benchmark} has no {kind} tasks of {name}")
        env = _take(name)
        env.unwrapped.set_task(goals[goal % NUM_GOALS])
        return env


class MetaWorldReach(TaskDistribution):
    """Observation 39, without the goal; action 4. Reward 0 to 10 by the hand's distance to the goal. Never terminates.

    The goals are Meta-World's own range. Its way of seeding is replaced: the task fixes the goal, whatever is reset.
    """

    name = "MetaWorldReach"
    version = 1
    requirements = _REQUIREMENTS
    spaces = _SPACES
    parameters = (
        Parameter("x", Uniform(-0.1, 0.1), "m"),
        Parameter("y", Uniform(0.8, 0.9), "m"),
        Parameter("z", Uniform(0.05, 0.3), "m"),
    )

    def __init__(self, horizon: int = 150):
        _require_horizon(self.name, horizon)
        self.horizon = horizon

    def make(self, task: Task) -> gymnasium.Env:
        import metaworld

        env = _take("reach-v3")
        bare = env.unwrapped
        where = np.hstack([bare.init_config["obj_init_pos"], [task["x"], task["y"], task["z"]]])
        settings = {"rand_vec": where, "env_cls": type(bare), "partially_observable": True}
        bare.set_task(metaworld.Task(env_name="reach-v3", data=pickle.dumps(settings)))
        return env


# --- environments --------------------------------------------------------------------------------------


def _take(name: str) -> Any:
    """A Meta-World environment of this name, whose task is to be set. Building one takes as long as 200 steps."""
    import metaworld

    key = ("MetaWorld", name)
    return _Seeded(take(key, metaworld.env_dict.ALL_V3_ENVIRONMENTS[name]), key)


class _Seeded(Reused):
    """`reset(seed=...)` gives the generator a seed, which Meta-World does not; nothing of an episode hangs on it."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        if seed is not None:
            self.env.unwrapped.np_random = seeding.np_random(seed)[0]
        return self.env.reset(seed=seed, options=options)


# --- benchmarks ----------------------------------------------------------------------------------------

_lock = threading.Lock()  # Meta-World draws with NumPy's global generator


def _goals(benchmark: str, env: str | None, seed: int) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
    """Meta-World's own training and test tasks of a benchmark, by the name of their environment."""
    with _lock:
        return _drawn_goals(benchmark, env, seed)


@cache
def _drawn_goals(benchmark: str, env: str | None, seed: int) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
    import metaworld

    kind = getattr(metaworld, benchmark)
    drawn = kind(seed=seed) if env is None else kind(env, seed=seed)
    return _by_environment(drawn.train_tasks), _by_environment(drawn.test_tasks)


def _by_environment(tasks: Sequence[Any]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for task in tasks:
        found.setdefault(task.env_name, []).append(task)
    return found


def _environments(train: Sequence[str], test: Sequence[str]) -> Parameter:
    numbers = [Choice([ENVIRONMENTS.index(name) for name in names]) for names in (train, test)]
    return Parameter("env", numbers[0], test=numbers[1])


def _require_known(option: str, given: Any, known: Sequence[str]) -> None:
    """TaskError with what is allowed, and the nearest of it, where `given` is not among `known`."""
    if given in known:
        return
    what = f"ML1 needs an environment, {option}" if given is None else f"{option} = {given!r} is not Meta-World's"
    raise TaskError(f"MetaWorld: {what}; {did_you_mean(given, known)}allowed: {', '.join(known)}")


def _require_horizon(name: str, horizon: int) -> None:
    if not 1 <= horizon <= _MAX_HORIZON:
        raise TaskError(f"{name}: horizon must be 1 to {_MAX_HORIZON}, got {horizon}")
