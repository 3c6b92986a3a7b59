"""What the actor does and what the learner repeats are the same; the family's variants keep their promises."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from metarl.algorithms.maml.learner import MAML, Config
from metarl.algorithms.tensors import RoundTensors
from metarl.rollout.local import LocalExecutor
from metarl.rollout.policy import Spaces
from metarl.rollout.types import TrialBatch, Unit
from metarl.tasks import load_distribution

CPU = torch.device("cpu")


def point_learner(**options) -> MAML:
    settings = {"tasks_per_iteration": 8, "num_streams": 10, "hidden": (16,), **options}
    return MAML(Config(**settings), Spaces(2, 2), CPU, seed=0)


def collect(maml: MAML, iteration: int = 0, horizon: int = 10) -> list[TrialBatch]:
    distribution = load_distribution("PointGoal", horizon=horizon)
    tasks = maml.tasks(distribution, 0, iteration)
    units = [Unit(i, tasks[4 * i : 4 * i + 4], maml.plan(horizon), (0, iteration, i)) for i in range(len(tasks) // 4)]
    return LocalExecutor(distribution, maml.policy).collect(units, maml.weights(), iteration)


def tensors(trials: list[TrialBatch]) -> list[RoundTensors]:
    return [RoundTensors.of(group, CPU) for group in zip(*(t.rounds for t in trials), strict=True)]


@pytest.mark.parametrize("variant", ["maml", "fomaml", "meta_sgd", "anil"])
@pytest.mark.parametrize("inner_objective", ["likelihood_ratio", "dice", "plain"])
@pytest.mark.parametrize("inner_steps", [1, 3])
def test_the_learner_repeats_the_actors_adaptation(variant, inner_objective, inner_steps):
    maml = point_learner(variant=variant, inner_objective=inner_objective, inner_steps=inner_steps, outer="pg")
    data = tensors(collect(maml))
    query = data[-1]
    adapted = maml._adapt(data[:-1], torch.zeros(8)).adapted
    with torch.no_grad():
        recomputed = maml.net.distribution(adapted, query.observations)
        theta = {name: maml._weights[name].expand_as(value) for name, value in adapted.items()}
        unadapted = maml.net.distribution(theta, query.observations)
    assert float(query.kl_from_behaviour(recomputed).max()) < 1e-8
    assert float(query.kl_from_behaviour(unadapted).min()) > 1e-5


def test_old_log_probs_are_those_the_actor_logged():
    maml = point_learner()
    trials = collect(maml)
    round_ = trials[0].rounds[0]
    mean, log_std = round_.extras["mean"], round_.derived["log_std"][:, None, None]
    z = (round_.actions - mean) / np.exp(log_std)
    expected = (-0.5 * z**2 - log_std - 0.5 * np.log(2 * np.pi)).sum(-1)
    np.testing.assert_allclose(tensors(trials)[0].old_log_prob[:4].numpy(), expected, atol=1e-4)


def test_outer_loss_reads_the_query_episodes_and_not_the_support():
    maml = point_learner(outer="pg", inner_kl_coef=0.0)
    support, query = tensors(collect(maml))
    silent = RoundTensors(**{**vars(query), "advantages": torch.zeros_like(query.advantages)})
    gradient, metrics = maml.meta_gradient([support, silent])
    assert metrics["outer_loss"] == 0
    assert all(float(g.abs().max()) == 0 for g in gradient.values())


def test_each_task_adapts_on_its_own_support_alone():
    maml = point_learner()
    support, _ = tensors(collect(maml))
    changed = support.advantages.clone()
    changed[3] = -changed[3]
    other = RoundTensors(**{**vars(support), "advantages": changed})
    before, after = (maml._adapt([data], torch.zeros(8)).adapted["w0"] for data in (support, other))
    differs = (before != after).flatten(1).any(1)
    assert differs.tolist() == [k == 3 for k in range(8)]


def test_anil_moves_the_last_layer_alone():
    maml = point_learner(variant="anil")
    support, _ = tensors(collect(maml))
    adapted = maml._adapt([support], torch.zeros(8)).adapted
    moved = {name for name, value in adapted.items() if not torch.equal(value, maml._weights[name].expand_as(value))}
    assert moved == {"w1", "b1"}


def test_meta_sgd_learns_a_rate_for_every_parameter():
    maml = point_learner(variant="meta_sgd")
    before = maml.weights()
    maml.update(collect(maml))
    rates = {name: value for name, value in maml.weights().items() if name.startswith("rate.")}
    assert {name.removeprefix("rate.") for name in rates} == {"w0", "b0", "w1", "b1", "log_std"}
    assert all((value != before[name]).any() for name, value in rates.items())
    policy_rates = maml.policy.begin_trial(maml.weights(), 2, 1, np.random.default_rng(0)).rates
    np.testing.assert_array_equal(policy_rates["w0"], rates["rate.w0"])


def test_reptile_moves_towards_the_adapted_parameters():
    maml = point_learner(variant="reptile", outer="pg")
    data = tensors(collect(maml))
    direction, _ = maml.meta_gradient(data)
    adapted = maml._adapt(data, torch.zeros(8)).adapted
    for name, value in direction.items():
        expected = (maml._weights[name] - adapted[name].mean(0)) / 0.1
        torch.testing.assert_close(value, expected, atol=1e-5, rtol=1e-4)


def test_deterministic_acting_gives_the_mean_and_draws_nothing():
    maml = point_learner()
    policy, rng = maml.policy, np.random.default_rng(0)
    state = policy.begin_trial(maml.weights(), 2, 3, rng)
    before = rng.bit_generator.state
    observations = np.ones((2, 3, 2), np.float32)
    action, _, extras = policy.act(state, observations, rng, deterministic=True)
    np.testing.assert_array_equal(action, extras["mean"])
    assert rng.bit_generator.state == before


def test_impossible_combinations_are_refused():
    with pytest.raises(ValidationError, match="reptile"):
        Config(variant="reptile", outer="ppo")
    with pytest.raises(ValidationError, match="min_std"):
        Config(init_std=0.01, min_std=0.1)


@pytest.mark.parametrize(
    ("options", "threshold"),
    [
        ({"outer_lr": 5e-3}, 0.35),
        ({"outer": "trpo"}, 0.5),
        ({"variant": "fomaml", "outer_lr": 5e-3}, 0.3),
        ({"variant": "meta_sgd", "outer_lr": 5e-3}, 1.0),
        ({"outer": "pg", "inner_objective": "dice", "outer_lr": 2e-2}, 0.25),
        ({"variant": "reptile", "outer": "pg", "outer_lr": 2e-2}, 0.2),
    ],
    ids=["promp", "trpo", "fomaml", "meta_sgd", "dice", "reptile"],
)
def test_training_makes_adaptation_on_held_out_goals_gain_more(options, threshold):
    """Before training one inner step gains 0.16 +- 0.05 here."""
    maml = point_learner(tasks_per_iteration=12, **options)
    for i in range(30):
        maml.update(collect(maml, i))
    distribution, plan = load_distribution("PointGoal", horizon=10), replace(maml.plan(10), num_streams=100)
    unit = Unit(0, distribution.sample("test", 100, 5), plan, (7,))
    (trial,) = LocalExecutor(distribution, maml.policy).collect([unit], maml.weights(), 0)
    assert (trial.returns[-1] - trial.returns[0]).mean() > threshold
