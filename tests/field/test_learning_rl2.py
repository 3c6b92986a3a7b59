"""RL2 on what users bring: rewards of any scale, any number of threads, actions without a range, longer runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from metarl_envs.point import PointGoal

from metarl.algorithms.base import EvaluationSettings
from metarl.algorithms.rl2 import RL2
from metarl.algorithms.rl2.config import RL2Config
from metarl.algorithms.rl2.policy import sequence_inputs
from metarl.algorithms.rl2.sequences import Sequences
from metarl.config import load_config
from metarl.errors import ConfigError
from metarl.evaluation.evaluate import evaluation_units
from metarl.rollout.local import LocalExecutor
from metarl.rollout.policy import context_sources
from metarl.rollout.spaces import Spaces
from metarl.rollout.types import TrialBatch, Unit
from metarl.runs.records import read_records
from metarl.tasks import Anchors, Choice, Parameter, TaskDistribution, Uniform
from metarl.tasks.arrays import ArrayTaskDistribution
from metarl.training.loop import train

CPU = torch.device("cpu")
SMALL = {"core": {"name": "gru", "hidden_dim": 8}, "encoded_obs_dim": 8, "head_dim": 8, "tasks_per_iteration": 4}


def learner(spaces: Spaces | None = None, seed: int = 1, **options: Any) -> RL2:
    return RL2(RL2Config.model_validate({"name": "rl2", **SMALL, **options}), spaces or Spaces(2, 2), CPU, seed)


def collect(rl2: RL2, distribution: TaskDistribution, iteration: int) -> list[TrialBatch]:
    tasks = rl2.tasks(distribution, 1, iteration)
    unit = Unit(0, tasks, rl2.plan(distribution.horizon), (1, 0, iteration, 0))
    return LocalExecutor(distribution, rl2.policy).collect([unit], rl2.weights(), iteration)


def train_on(rl2: RL2, distribution: TaskDistribution, iterations: int) -> list[dict[str, float]]:
    return [rl2.update(collect(rl2, distribution, i), i / iterations) for i in range(iterations)]


# --- rewards of any scale ---


class Scaled(PointGoal):
    """PointGoal with its rewards times `scale`."""

    name = "Scaled"

    def __init__(self, horizon: int = 20, scale: float = 1.0):
        super().__init__(horizon)
        self.scale = scale

    @property
    def anchors(self) -> Anchors:
        return Anchors()

    def transition(self, rng: Any, state: Any, action: Any, params: Any) -> tuple[np.ndarray, np.ndarray]:
        state, reward = super().transition(rng, state, action, params)
        return state, self.scale * reward


@pytest.mark.parametrize("exponent", [-40, -17, 20])
def test_the_scale_of_rewards_makes_no_difference_to_the_policy(exponent):
    """A power of two, so that float32 numbers are the same but for their exponents. Without memory: the rewards that
    a memory sees have no scale to be brought to before the first update."""
    scale = 2.0**exponent
    plain, scaled = learner(memory="none"), learner(memory="none")
    first, second = (train_on(rl2, Scaled(5, factor), 4) for rl2, factor in ((plain, 1.0), (scaled, scale)))
    for one, other in zip(first, second, strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-6)
    weights, others = plain.weights(), scaled.weights()
    for name in ("value.mean", "value.std"):
        np.testing.assert_allclose(scale * weights.pop(name), others[name], rtol=1e-4)
    for name in ("inputs.mean", "inputs.std"):  # the reward is the last one
        np.testing.assert_allclose(weights.pop(name) * [1, 1, scale], others[name], rtol=1e-4)
    for name, value in weights.items():
        np.testing.assert_allclose(value, others[name], rtol=1e-3, atol=1e-5, err_msg=name)


def test_the_first_scale_of_the_critic_is_that_of_the_returns_and_not_of_the_untrained_critic():
    rl2, distribution = learner(gamma=0.9), Scaled(5, 1e-5)
    trials = collect(rl2, distribution, 0)
    rewards = Sequences.of([batch.rounds for batch in trials]).rewards.astype(np.float64)
    returns = np.zeros_like(rewards)
    following = np.zeros(len(rewards))
    for t in reversed(range(rewards.shape[1])):
        returns[:, t] = following = rewards[:, t] + 0.9 * following
    rl2.update(trials, 0.0)
    weights = rl2.weights()  # after the targets of the first update came in too, of the same size
    assert 0.5 < float(weights["value.std"][0]) / returns.std() < 2
    assert abs(float(weights["value.mean"][0]) - returns.mean()) < 2 * returns.std()


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e6])
def test_rewards_reach_the_memory_on_the_scale_of_their_deviation(scale):
    rl2, distribution = learner(), Scaled(5, scale)
    train_on(rl2, distribution, 1)
    data = Sequences.of([batch.rounds for batch in collect(rl2, distribution, 1)])
    rewards = sequence_inputs(rl2.weights(), rl2.net, data)[:, 1:, -2]
    assert 0.3 < rewards.std() < 3
    assert abs(rewards.mean()) < 1.5


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1.0, 1e-5])
def test_rl2_learns_as_well_from_rewards_of_size_a_hundred_thousandth(scale):
    """Standing still earns -24; -18 after 80 iterations is far from it."""
    distribution = Scaled(20, scale)
    rl2 = RL2(
        RL2Config.model_validate({"name": "rl2", "tasks_per_iteration": 64, "core": {"name": "gru", "hidden_dim": 64}}),
        Spaces(2, 2),
        CPU,
        seed=1,
    )
    train_on(rl2, distribution, 80)
    units = evaluation_units(distribution, rl2.evaluation_plan(20, EvaluationSettings()), "test", 100, 1, 10)
    trials = LocalExecutor(distribution, rl2.policy).collect(units, rl2.weights(), 80)
    judged = np.concatenate([trial.returns[-1] for trial in trials])
    assert judged.mean() / scale > -18


# --- threads ---


def test_a_run_begins_with_the_same_weights_on_any_number_of_threads():
    before, drawn = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            drawn.append(learner(core={"name": "gru", "hidden_dim": 128}, encoded_obs_dim=64, head_dim=64).weights())
    finally:
        torch.set_num_threads(before)
    for name, value in drawn[0].items():
        np.testing.assert_array_equal(value, drawn[1][name], err_msg=name)


# --- another task's context ---


class TwoWay(ArrayTaskDistribution):
    """Reward d a, a in [-1, 1]; the two tasks are d = -1 and d = 1. Observation: 0."""

    name, version = "TwoWay", 1

    def __init__(self, horizon: int = 10):
        super().__init__(horizon)
        self.parameters = (Parameter("d", Choice((-1.0, 1.0))),)
        self.single_observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float64)
        self.single_action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def initial_state(self, rng: np.random.Generator, n: int) -> np.ndarray:
        return np.zeros((n, 1))

    def transition(self, rng: Any, state: Any, action: Any, params: Any) -> tuple[np.ndarray, np.ndarray]:
        return state.copy(), params["d"] * np.clip(action[:, 0], -1, 1)


def test_a_shuffled_context_is_always_that_of_a_task_that_differs():
    rl2, distribution = learner(Spaces(1, 1)), TwoWay()
    plan = rl2.evaluation_plan(10, EvaluationSettings(context="shuffled"))
    units = evaluation_units(distribution, plan, "test", 200, 1, 10)
    neighbours = 0
    for unit in units:
        sources = context_sources(unit.tasks, "shuffled")
        assert sources is not None
        assert all(unit.tasks[k] != unit.tasks[source] for k, source in enumerate(sources))
        neighbours += sum(unit.tasks[k] == unit.tasks[(k + 1) % 10] for k in range(10))
    assert neighbours > 50  # the next task of the unit will not do


def test_the_memory_that_a_task_reads_is_the_one_of_the_task_that_differs():
    """After one step the memory holds whether action and reward had the same sign. A unit (a, a, b): what tasks 0 and 1
    do with shuffled contexts is what task 2 does with its own, and the other way round."""
    rl2, rng = learner(Spaces(1, 1)), np.random.default_rng(0)
    a, b = TwoWay().finite_tasks()  # type: ignore[misc]
    sources = context_sources((a, a, b), "shuffled")
    assert sources is not None
    assert sources.tolist() == [2, 2, 0]

    def means(context_of: np.ndarray | None) -> np.ndarray:
        state = rl2.policy.begin_trial(rl2.weights(), 3, 1, rng, context_of)
        state.previous[:] = [[1, 1], [1, 1], [1, -1]]
        return rl2.policy.act(state, np.zeros((3, 1, 1), np.float32), rng, True)[0][:, 0, 0]

    own, shuffled = means(None), means(sources)
    assert own[0] == own[1] != own[2]
    np.testing.assert_array_equal(shuffled, own[[2, 2, 0]])


def test_where_all_tasks_are_equal_a_shuffled_context_is_refused():
    (a, _) = TwoWay().finite_tasks()  # type: ignore[misc]
    with pytest.raises(ConfigError, match="all 3 tasks of a unit equal"):
        context_sources((a, a, a), "shuffled")


# --- actions without a range ---


class Dial(ArrayTaskDistribution):
    """Reward -|a - target|, target in [4, 5]; any action is allowed. Observation: 0."""

    name, version = "Dial", 1

    def __init__(self, horizon: int = 6):
        super().__init__(horizon)
        self.parameters = (Parameter("target", Uniform(4.0, 5.0)),)
        self.single_observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float64)
        self.single_action_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32)

    def initial_state(self, rng: np.random.Generator, n: int) -> np.ndarray:
        return np.zeros((n, 1))

    def transition(self, rng: Any, state: Any, action: Any, params: Any) -> tuple[np.ndarray, np.ndarray]:
        return state.copy(), -np.abs(action[:, 0] - params["target"])


def test_the_memory_sees_actions_without_a_range_as_they_were_and_others_as_the_environment_clipped_them():
    rl2 = learner(Spaces(1, 2, is_bounded=(True, False)))
    data = Sequences(
        observations=np.zeros((1, 2, 1), np.float32),
        actions=np.array([[[3.0, 4.5], [0.0, 0.0]]], np.float32),
        rewards=np.zeros((1, 2), np.float32),
        is_first=np.array([[True, False]]),
        mask=np.ones((1, 2), bool),
        extras={},
        lengths=np.array([[2]]),
        terminated=np.array([[False]]),
    )
    assert sequence_inputs(rl2.weights(), rl2.net, data)[0, 1].tolist() == [0, 1, 4.5, 0, 0]


def test_means_without_a_range_are_not_penalised():
    def after(bound_coef: float, spaces: Spaces) -> dict[str, np.ndarray]:
        rl2 = learner(spaces, bound_coef=bound_coef, max_grad_norm=1e9)
        state = rl2.state_dict()
        state["params.policy.b1"].fill_(4.0)
        rl2.load_state_dict(state)
        train_on(rl2, Dial(), 2)
        return rl2.weights()

    free, penalised = after(0.0, Spaces(1, 1, is_bounded=(False,))), after(100.0, Spaces(1, 1, is_bounded=(False,)))
    for name, value in free.items():
        np.testing.assert_array_equal(value, penalised[name], err_msg=name)
    assert (after(100.0, Spaces(1, 1))["net.policy.b1"] < free["net.policy.b1"]).all()


# --- longer runs than planned ---

YAML = """
seed: 3
task_distribution: {name: PointGoal, options: {horizon: 3}}
algorithm:
  {name: rl2, lr: 0.01, lr_schedule: linear, tasks_per_iteration: 4, core: {name: gru, hidden_dim: 4}}
training: {iterations: ITERATIONS, evaluate_every: 0, tasks_per_unit: 4, checkpoint_every: 1}
executor: {backend: local}
device: cpu
"""


def test_a_run_resumed_beyond_its_end_goes_on_learning_and_logs_its_learning_rate(tmp_path: Path):
    for iterations in (4, 8):
        (tmp_path / "config.yaml").write_text(YAML.replace("ITERATIONS", str(iterations)))
        train(load_config(tmp_path / "config.yaml"), tmp_path / "run", LocalExecutor, resume=iterations > 4)
    rates = [record["lr"] for record in read_records(tmp_path / "run" / "metrics.jsonl")]
    assert rates == pytest.approx([0.01, 0.0075, 0.005, 0.0025, 0.005, 0.00375, 0.0025, 0.00125])


# --- the smallest trial ---


def test_one_task_one_stream_and_one_step_give_finite_metrics():
    rl2 = learner(tasks_per_iteration=1, num_streams=1, episodes_per_trial=1, minibatches=1)
    metrics = train_on(rl2, PointGoal(horizon=1), 2)
    assert all(np.isfinite(list(record.values())).all() for record in metrics)
    assert all(np.isfinite(value).all() for value in rl2.weights().values())
