"""The checks catch plug-ins that break the contract, and pass one that keeps it."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest

from metarl.errors import TaskError
from metarl.tasks import Choice, Parameter, Task, TaskDistribution, Uniform
from metarl.tasks.check import check_distribution


class Walk(gymnasium.Env):
    """A number that moves by the action; reward minus the distance to the goal; ends beyond +-2."""

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(self, goal: float):
        self.goal = goal
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float64)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.x = 0.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.x = float(self.np_random.uniform(-0.1, 0.1))
        return np.array([self.x]), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.x += float(action[0])
        return np.array([self.x]), -abs(self.x - self.goal), abs(self.x) > 2, False, {}


class Walks(TaskDistribution):
    """A sound plug-in on the generic batch."""

    name = "Walks"
    horizon = 20
    parameters = (Parameter("goal", Uniform(0.0, 1.0), ood=Uniform(1.0, 2.0)),)
    env: type[Walk] = Walk

    def make(self, task: Task) -> gymnasium.Env:
        return self.env(float(task.vector()[0]))


def failures(distribution: TaskDistribution) -> dict[str, str]:
    return {result.name: result.message for result in check_distribution(distribution) if not result.passed}


def test_a_sound_plug_in_passes_every_check() -> None:
    assert failures(Walks()) == {}


class ChangesTask(Walk):
    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self.goal += 0.25
        return super().reset(seed=seed)


class NanReward(Walk):
    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs, _, terminated, truncated, info = super().step(action)
        return obs, float("nan"), terminated, truncated, info


class WrongShape(Walk):
    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        _, *rest = super().step(action)
        return np.zeros(3), *rest  # type: ignore[return-value]


class IgnoresSeed(Walk):
    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.x = float(np.random.default_rng().uniform(-0.1, 0.1))
        return np.array([self.x]), {}


class IgnoresTask(Walk):
    def __init__(self, goal: float):
        super().__init__(0.0)


class Raises(Walk):
    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        raise ZeroDivisionError("motor on fire")


@pytest.mark.parametrize(
    ("env", "check", "message"),
    [
        (ChangesTask, "reset keeps task", "after `reset` the environment behaves as another task"),
        (NanReward, "finite", "reward is not finite at step 0"),
        (WrongShape, "environments run", "observation has shape (3,), its space says (1,)"),
        (IgnoresSeed, "determinism", "two different episodes"),
        (IgnoresTask, "parameters", "parameter 'goal' has no effect"),
        (Raises, "environments run", "ZeroDivisionError: motor on fire"),
    ],
)
def test_a_broken_environment_is_caught(env: type[Walk], check: str, message: str) -> None:
    broken = Walks()
    broken.env = env
    assert message in failures(broken)[check]


class LeakingSplits(Walks):
    def sample(self, split: Any, n: int, seed: Any) -> tuple[Task, ...]:
        return super().sample("train", n, seed)


class Unseeded(Walks):
    def sample(self, split: Any, n: int, seed: Any) -> tuple[Task, ...]:
        return super().sample(split, n, int(np.random.default_rng().integers(2**31)))


class Unpicklable(Walks):
    def __init__(self) -> None:
        self.hook = lambda: None


class OodInside(Walks):
    parameters = (Parameter("goal", Uniform(0.0, 1.0), ood=Uniform(0.2, 0.8)),)


class NoName(Walks):
    name = ""


class ResetsTask(Walks):
    def make_batch(self, tasks: Any) -> Any:
        batch = super().make_batch(tasks)
        batch.set_tasks = lambda tasks: None  # type: ignore[method-assign]
        return batch


class OtherBatch(Walks):
    def make_batch(self, tasks: Any) -> Any:
        return Walks().make_batch([Task.of("Walks", {"goal": float(t.vector()[0]) + 1}) for t in tasks])


@pytest.mark.parametrize(
    ("broken", "check", "message"),
    [
        (LeakingSplits, "disjoint splits", "train and test share Walks(goal="),
        (LeakingSplits, "sampling", "does not belong to it"),
        (Unseeded, "sampling", "the same seed drew other tasks"),
        (Unpicklable, "pickling", "pickle"),
        (OodInside, "ood outside training range", "the ood split is empty"),
        (NoName, "description", "`name` must be a string"),
        (ResetsTask, "set tasks equals fresh batch", "`set_tasks` did not set `tasks`"),
        (OtherBatch, "single equals batch", "give different episodes"),
    ],
)
def test_a_broken_distribution_is_caught(broken: type[Walks], check: str, message: str) -> None:
    assert message in failures(broken())[check]


class RunsOn(Walks):
    """Its batch goes on after the end."""

    def make_batch(self, tasks: Any) -> Any:
        batch = super().make_batch(tasks)
        step = batch.step

        def forget_ends(actions: np.ndarray) -> Any:
            batch._terminated[:] = False
            return step(actions)

        batch.step = forget_ends  # type: ignore[method-assign]
        return batch


def test_a_batch_that_runs_on_after_the_end_is_caught() -> None:
    distribution = RunsOn()
    distribution.horizon = 100
    assert "after its end" in (message := failures(distribution)["finished stay finished"]) or "ran on" in message


def test_an_action_space_that_is_neither_box_nor_discrete_is_refused() -> None:
    class Dictionary(Walk):
        def __init__(self, goal: float):
            super().__init__(goal)
            self.action_space = gymnasium.spaces.MultiBinary(2)

    broken = Walks()
    broken.env = Dictionary
    with pytest.raises(TaskError, match="must be Box or Discrete"):
        broken.make_batch(broken.sample("train", 1, 0))


def test_a_finite_plug_in_whose_splits_coincide_passes() -> None:
    class TwoGoals(Walks):
        parameters = (Parameter("goal", Choice((-1.0, 1.0))),)

    assert {name: m for name, m in failures(TwoGoals()).items() if name != "pickling"} == {}
