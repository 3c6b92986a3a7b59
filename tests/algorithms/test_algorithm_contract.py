"""What every algorithm must keep, run over every registered one and over some variants."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from metarl.algorithms import ALGORITHMS, build_algorithm, config_class
from metarl.algorithms.base import Algorithm
from metarl.rollout.local import LocalExecutor
from metarl.rollout.policy import Spaces
from metarl.rollout.types import TrialBatch, Unit
from metarl.tasks import load_distribution

TASKS = 3
SMALL = {
    "maml": {"hidden": (8, 8)},
    "rl2": {"hidden_dim": 8, "encoded_obs_dim": 8, "head_dim": 8},
    "pearl": {"num_train_tasks": 4, "gradient_steps": 2, "batch_size": 8, "hidden_dim": 8, "encoder_dim": 8},
}
SMALL["pearl recurrent"] = {**SMALL["pearl"], "encoder": "recurrent", "contrastive_weight": 1.0}
EACH = (*ALGORITHMS, *(variant for variant in SMALL if variant not in ALGORITHMS))


def make(variant: str, seed: int = 0) -> Algorithm:
    """An algorithm by its name, or a variant of it: the name, a space and what is special."""
    name = variant.split()[0]
    config = config_class(name)(name=name, tasks_per_iteration=TASKS, num_streams=4, **SMALL[variant])
    return build_algorithm(config, Spaces(2, 2), torch.device("cpu"), seed)


def collect(algorithm: Algorithm, iteration: int) -> list[TrialBatch]:
    distribution = load_distribution("PointGoal", horizon=6)
    tasks = algorithm.tasks(distribution, 0, iteration)
    units = [Unit(i, (task,), algorithm.plan(6), (0, iteration, i)) for i, task in enumerate(tasks)]
    return LocalExecutor(distribution, algorithm.policy).collect(units, algorithm.weights(), iteration)


def train(algorithm: Algorithm, iterations: range) -> None:
    for i in iterations:
        metrics = algorithm.update(collect(algorithm, i))
        assert all(np.isfinite(value) for value in metrics.values())


def assert_equal(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.mark.parametrize("name", EACH)
def test_an_update_changes_the_weights_and_keeps_them_finite(name):
    algorithm = make(name)
    before = algorithm.weights()
    train(algorithm, range(1))
    after = algorithm.weights()
    assert all(np.isfinite(value).all() for value in after.values())
    assert any((after[key] != before[key]).any() for key in before)


@pytest.mark.parametrize("name", EACH)
def test_weights_are_copies_that_later_updates_leave_alone(name):
    algorithm = make(name)
    taken = algorithm.weights()
    kept = {key: value.copy() for key, value in taken.items()}
    train(algorithm, range(1))
    assert_equal(taken, kept)


@pytest.mark.parametrize("name", EACH)
def test_two_iterations_with_a_restored_state_between_equal_two_in_a_row(name):
    straight, before, after = make(name), make(name), make(name, seed=99)
    train(straight, range(2))
    train(before, range(1))
    after.load_state_dict(before.state_dict())
    train(after, range(1, 2))
    assert_equal(straight.weights(), after.weights())
    for key, value in straight.state_dict().items():
        assert torch.equal(value, after.state_dict()[key]), key


@pytest.mark.parametrize("name", EACH)
def test_the_policy_can_be_pickled_and_knows_no_optimiser(name):
    policy = make(name).policy
    assert pickle.loads(pickle.dumps(policy)) == policy
    assert len(pickle.dumps(policy)) < 10_000


@pytest.mark.parametrize("name", EACH)
def test_equal_seeds_give_equal_and_other_seeds_other_weights(name):
    assert_equal(make(name).weights(), make(name).weights())
    other = make(name, seed=1).weights()
    assert any((other[key] != value).any() for key, value in make(name).weights().items())


@pytest.mark.parametrize("name", EACH)
def test_training_touches_no_global_generator(name):
    numpy_state, torch_state = np.random.get_state()[1].copy(), torch.random.get_rng_state()  # type: ignore[index]
    train(make(name), range(1))
    assert (numpy_state == np.random.get_state()[1]).all()  # type: ignore[index]
    assert torch.equal(torch_state, torch.random.get_rng_state())


@pytest.mark.parametrize("name", EACH)
def test_a_plan_ends_with_a_judged_round_after_rounds_to_adapt_on(name):
    plan = make(name).plan(6, evaluation=True)
    assert plan.horizon == 6
    assert plan.rounds[-1].role == "query"
    assert any(round_.adapt for round_ in plan.rounds[:-1])
