"""The oracle baseline: the same tasks and the same worlds, with the task's scaled parameters at the end."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from metarl.config import load_config
from metarl.errors import CheckpointError
from metarl.evaluation.evaluate import Evaluation
from metarl.rollout.local import LocalExecutor
from metarl.runs.build import distribution_of, load_run, restore
from metarl.tasks import (
    SPLITS,
    Choice,
    InDisc,
    LogUniform,
    Mixture,
    OnSphere,
    Parameter,
    Prior,
    RevealedTask,
    Simplex,
    TaskDistribution,
    Uniform,
    load_distribution,
)
from metarl.tasks.check import CHECKS
from metarl.tasks.revealed import Scale
from metarl.training.loop import train

FAMILIES = ["PointGoal", "HalfCheetahVel", "HalfCheetahDir"]
NOTE = "The policy is told the task: an oracle, not adaptation."
YAML = """
seed: 3
task_distribution: {name: PointGoal, options: {horizon: 5}, reveal_task: true}
algorithm: {name: maml, tasks_per_iteration: 2, num_streams: 2, hidden: [4]}
training: {iterations: 1, evaluate_every: 1}
evaluation: {num_tasks: 3}
executor: {backend: local}
device: cpu
"""


class Corridor(TaskDistribution):
    """A stranger's family without a batch of its own; its observation is a dictionary."""

    name, horizon = "Corridor", 5
    parameters = (Parameter("length", LogUniform(0.5, 2.0), ood=Uniform(2.0, 4.0)),)

    def make(self, task):
        return CorridorEnv(task["length"])


class CorridorEnv(gymnasium.Env):
    observation_space = gymnasium.spaces.Dict(
        {
            "place": gymnasium.spaces.Box(-10, 10, (1,), np.float32),
            "side": gymnasium.spaces.Discrete(2),
        }
    )
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, length: float):
        self.length = length

    def _observe(self) -> dict[str, object]:
        return {"place": self.place.copy(), "side": int(self.place[0] > 0)}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = self.np_random.uniform(-1, 1, 1).astype(np.float32)
        return self._observe(), {}

    def step(self, action):
        self.place = (self.place + action).clip(-self.length, self.length).astype(np.float32)
        return self._observe(), float(self.place[0]), False, False, {}


@pytest.mark.parametrize("name", [*FAMILIES, "Corridor"])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_revealed_distribution_keeps_the_contract(name: str, check: Callable[[TaskDistribution], None]) -> None:
    check(RevealedTask(Corridor() if name == "Corridor" else load_distribution(name)))


@pytest.mark.parametrize("name", [*FAMILIES, "HalfCheetahDynamics", "TabularMDP"])
def test_tasks_splits_and_description_are_the_inner_ones(name: str) -> None:
    inner = load_distribution(name)
    revealed = pickle.loads(pickle.dumps(RevealedTask(inner)))
    assert revealed.reveals_task
    assert not inner.reveals_task
    for what in ("name", "version", "parameters", "horizon", "anchors", "has_ood", "splits_coincide"):
        assert getattr(revealed, what) == getattr(inner, what), what
    assert revealed.finite_tasks() == inner.finite_tasks()
    for split in (s for s in SPLITS if s != "ood" or inner.has_ood):
        tasks = inner.sample(split, 9, seed=4)
        assert revealed.sample(split, 9, seed=4) == tasks
        assert [revealed.split_of(task) for task in tasks] == [inner.split_of(task) for task in tasks]
        assert revealed.task(**tasks[0].values) == tasks[0]


@pytest.mark.parametrize("name", FAMILIES)
def test_the_inner_columns_are_the_unwrapped_trajectory_and_the_last_the_scaled_parameters(name: str) -> None:
    inner = load_distribution(name)
    revealed = RevealedTask(inner)
    plain, wide = (family.make_batch(inner.sample("train", 4, seed=0)) for family in (inner, revealed))
    (num_plain,), (num_wide,) = plain.single_observation_space.shape or (), wide.single_observation_space.shape or ()
    assert num_wide == num_plain + revealed.columns(wide.tasks).shape[1]
    for seed in (1, 2):  # built with the first tasks, then given others
        tasks = inner.sample("train", 4, seed=seed)
        for batch in (plain, wide):
            batch.set_tasks(tasks)
        assert wide.tasks == tasks
        expected = np.stack([revealed.columns([task])[0] for task in tasks])
        observed = [(plain.reset(seed=seed)[0], wide.reset(seed=seed)[0])]
        plain.action_space.seed(seed)
        for _ in range(5):
            action = plain.action_space.sample()
            (a, *rest), (b, *same) = plain.step(action), wide.step(action)
            observed.append((a, b))
            for one, other in zip(rest[:3], same[:3], strict=True):
                np.testing.assert_array_equal(one, other)
        for narrow, full in observed:
            dim = narrow.shape[1]
            np.testing.assert_array_equal(full[:, :dim], narrow)
            np.testing.assert_array_equal(full[:, dim:], expected)


def test_velocities_by_hand_in_make_and_make_batch_alike() -> None:
    # U[0, 3]: 2 (v - 0) / 3 - 1;   0.75 -> -0.5, 3 -> 1;   ood 3.75 -> 1.5
    family = RevealedTask(load_distribution("HalfCheetahVel"))
    tasks = [family.task(velocity=v) for v in (0.75, 3.0, 3.75)]
    batch = family.make_batch(tasks)
    for obs in (batch.reset(seed=0)[0], batch.step(np.zeros((3, 6), np.float32))[0]):
        np.testing.assert_allclose(obs[:, -1], [-0.5, 1.0, 1.5], atol=1e-15)
    env = family.make(tasks[0])
    for obs in (env.reset(seed=0)[0], env.step(np.zeros(6, np.float32))[0]):
        assert obs[-1] == -0.5
        assert env.observation_space.contains(obs)
    assert env.get_wrapper_attr("task") == tasks[0]


@pytest.mark.parametrize(
    ("prior", "values", "expected"),
    [
        (Uniform(-1.0, 3.0, 2), [[-1, 3], [1, 2]], [[-1, 1], [0, 0.5]]),
        (LogUniform(0.25, 4.0), [[0.25], [1.0], [2.0], [4.0]], [[-1], [0], [0.5], [1]]),
        (LogUniform(0.1, 100.0), [[0.0], [-1.0], [1e-4]], [[-3], [-3], [-3]]),  # no logarithm: as a thousandth of 0.1
        (Choice((-1.0, 1.0)), [[-1], [1]], [[-1], [1]]),
        (Choice((0.0, math.pi)), [[0], [math.pi]], [[-1], [1]]),
        (Choice(((0.0, 5.0), (2.0, 5.0))), [[0, 5], [2, 5]], [[-1, 0], [1, 0]]),  # a component that is always 5
        (Choice((7.0,)), [[7]], [[0]]),
        (InDisc(2.0, inner=1.0), [[2, 0], [0, -1]], [[1, 0], [0, -0.5]]),
        (OnSphere(3, radius=4.0), [[0, 0, -4]], [[0, 0, -1]]),
        (Simplex(3), [[1, 0, 0], [0.5, 0.25, 0.25]], [[1, -1, -1], [0, -0.5, -0.5]]),
        (Mixture(Uniform(0.0, 0.5), Uniform(3.0, 4.0)), [[0], [2], [4]], [[-1], [0], [1]]),
        (Mixture(LogUniform(0.25, 0.5), LogUniform(2.0, 4.0)), [[1], [2]], [[0], [0.5]]),
        (Mixture(Uniform(0.0, 1.0, 2), Choice(((4.0, -1.0),))), [[4, -1]], [[1, -1]]),
    ],
    ids=str,
)
def test_scales_by_hand(prior: Prior, values: list[list[float]], expected: list[list[float]]) -> None:
    np.testing.assert_allclose(Scale.of(prior)(np.array(values, float)), expected, atol=1e-15)


def test_a_prior_of_somebody_elses_is_scaled_by_the_range_of_its_draws() -> None:
    class Normal:
        options = None

        def sample(self, rng: np.random.Generator) -> float:
            return float(rng.normal(10.0, 2.0))

    low, mean, high = Scale.of(Normal())(np.array([[4.0], [10.0], [16.0]]))[:, 0]  # type: ignore[arg-type]
    assert -1.2 < low < -0.8  # 1000 draws reach about 3.2 deviations to either side
    assert abs(mean) < 0.2
    assert 0.8 < high < 1.2


@pytest.mark.parametrize("name", ["HopperRandParams", "HalfCheetahDynamics", "AntGoal", "TabularMDP"])
def test_training_tasks_fill_the_interval(name: str) -> None:
    family = RevealedTask(load_distribution(name))
    columns = family.columns(family.sample("train", 64, seed=0))
    assert columns.shape == (64, len(family.sample("train", 1, seed=0)[0].vector()))
    assert np.abs(columns).max() <= 1 + 1e-12
    assert np.ptp(columns) > 1.5


@pytest.mark.parametrize("name", ["HopperRandParams", "HalfCheetahDynamics", "HalfCheetahVel"])
def test_out_of_distribution_tasks_leave_it(name: str) -> None:
    family = RevealedTask(load_distribution(name))
    assert (np.abs(family.columns(family.sample("ood", 64, seed=0))).max(axis=1) > 1).all()


def test_a_run_that_reveals_the_task_says_so_and_is_no_other_run(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(YAML)
    config = load_config(tmp_path / "config.yaml")
    assert config.task_distribution.reveal_task
    assert train(config, tmp_path / "run", LocalExecutor).iteration == 1
    evaluation = Evaluation.load(tmp_path / "run" / "evaluations" / "validation-000001" / "evaluation.json")
    assert evaluation.distribution == "PointGoal"
    assert NOTE in evaluation.notes
    trained = load_run(tmp_path / "run")
    assert trained.distribution.reveals_task
    assert trained.checkpoint.meta["task_distribution"]["reveals_task"] is True
    assert trained.algorithm.weights()["w0"].shape[-2:] == (4, 4)  # two of position, two of goal -> hidden
    hidden = load_config(tmp_path / "config.yaml", ["task_distribution.reveal_task=false"])
    with pytest.raises(CheckpointError, match="reveals_task"):
        restore(trained.checkpoint, distribution_of(hidden.task_distribution), trained.algorithm)


def test_a_run_that_does_not_reveal_it_has_no_such_note_and_the_identity_of_earlier_runs(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(YAML.replace(", reveal_task: true", ""))
    train(load_config(tmp_path / "config.yaml"), tmp_path / "run", LocalExecutor)
    evaluation = Evaluation.load(tmp_path / "run" / "evaluations" / "validation-000001" / "evaluation.json")
    assert NOTE not in evaluation.notes
    assert load_run(tmp_path / "run").checkpoint.meta["task_distribution"] == {"name": "PointGoal", "version": 1}
