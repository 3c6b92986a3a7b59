"""What the actor does and what the learner repeats are the same; the family's variants keep their promises."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from metarl.algorithms.base import EvaluationSettings
from metarl.algorithms.maml.config import DISCRETE_INNER_LR, MAMLConfig
from metarl.algorithms.maml.learner import MAML
from metarl.algorithms.tensors import RoundTensors
from metarl.errors import ConfigError
from metarl.ops.distributions import Gaussian, kl_divergence
from metarl.ops.functional_sgd import Params
from metarl.rollout.local import LocalExecutor
from metarl.rollout.spaces import Spaces
from metarl.rollout.types import TrialBatch, Unit
from metarl.tasks import load_distribution

CPU = torch.device("cpu")


def config(**options) -> MAMLConfig:
    """`outer` may be given by its name alone."""
    outer = options.get("outer", "ppo")
    return MAMLConfig(name="maml", **{**options, "outer": {"name": outer} if isinstance(outer, str) else outer})


def point_learner(**options) -> MAML:
    settings = {"tasks_per_iteration": 8, "num_streams": 10, "hidden": (16,), **options}
    return MAML(config(**settings), Spaces(2, 2), CPU, seed=0)


def weights_of(maml: MAML) -> Params:
    return {name: torch.from_numpy(value) for name, value in maml.weights().items()}


def adapted_by(maml: MAML, supports: list[RoundTensors]) -> Params:
    return maml.objective.adapt(weights_of(maml), supports).adapted


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
    adapted, weights = adapted_by(maml, data[:-1]), weights_of(maml)
    with torch.no_grad():
        recomputed = maml.net.distribution(adapted, query.observations)
        theta = {name: weights[name].expand_as(value) for name, value in adapted.items()}
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
    maml = point_learner(outer="pg")
    support, query = tensors(collect(maml))
    silent = RoundTensors(**{**vars(query), "advantages": torch.zeros_like(query.advantages)})
    gradient, metrics = maml.objective.gradient(weights_of(maml), [support, silent])
    assert metrics["outer_loss"] == 0
    assert all(float(g.abs().max()) == 0 for g in gradient.values())


def test_each_task_adapts_on_its_own_support_alone():
    maml = point_learner()
    support, _ = tensors(collect(maml))
    changed = support.advantages.clone()
    changed[3] = -changed[3]
    other = RoundTensors(**{**vars(support), "advantages": changed})
    before, after = (adapted_by(maml, [data])["w0"] for data in (support, other))
    differs = (before != after).flatten(1).any(1)
    assert differs.tolist() == [k == 3 for k in range(8)]


def test_anil_moves_the_last_layer_alone():
    maml = point_learner(variant="anil")
    support, _ = tensors(collect(maml))
    adapted, weights = adapted_by(maml, [support]), weights_of(maml)
    moved = {name for name, value in adapted.items() if not torch.equal(value, weights[name].expand_as(value))}
    assert moved == {"w1", "b1"}


def test_meta_sgd_learns_a_rate_for_every_parameter():
    maml = point_learner(variant="meta_sgd")
    before = maml.weights()
    maml.update(collect(maml), 0.0)
    rates = {name: value for name, value in maml.weights().items() if name.startswith("rate.")}
    assert {name.removeprefix("rate.") for name in rates} == {"w0", "b0", "w1", "b1", "log_std"}
    assert all((value != before[name]).any() for name, value in rates.items())
    policy_rates = maml.policy.begin_trial(maml.weights(), 2, 1, np.random.default_rng(0)).rates
    np.testing.assert_array_equal(policy_rates["w0"], rates["rate.w0"])


def test_reptile_moves_towards_the_adapted_parameters():
    maml = point_learner(outer="reptile")
    data, weights = tensors(collect(maml)), weights_of(maml)
    direction, _ = maml.objective.gradient(weights, data)
    adapted = adapted_by(maml, data)
    for name, value in direction.items():
        expected = (weights[name] - adapted[name].mean(0)) / 0.1
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
    with pytest.raises(ValidationError, match=r"variant \(fomaml\) does not apply to outer.name reptile"):
        config(variant="fomaml", outer="reptile")
    with pytest.raises(ValidationError, match="exploration_coef"):
        config(exploration_coef=1.0, outer="reptile")
    with pytest.raises(ValidationError, match="min_std"):
        config(init_std=0.01, min_std=0.1)


def test_evaluations_that_leave_nothing_to_adapt_to_are_refused():
    maml = point_learner()
    with pytest.raises(ConfigError, match="support_episodes = 0"):
        maml.evaluation_plan(10, EvaluationSettings(support_episodes=0))
    with pytest.raises(ConfigError, match="rounds = 1"):
        maml.evaluation_plan(10, EvaluationSettings(rounds=1, support_episodes=3))


@pytest.mark.parametrize(("discrete", "expected"), [(False, 0.1), (True, DISCRETE_INNER_LR)])
def test_an_inner_lr_of_null_depends_on_the_kind_of_actions(discrete, expected):
    maml = MAML(config(hidden=()), Spaces(2, 2, discrete), CPU, seed=0)
    rates = maml.policy.begin_trial(maml.weights(), 2, 1, np.random.default_rng(0)).rates
    assert maml.config.inner_lr == expected
    assert {float(rate) for rate in rates.values()} == {np.float32(expected)}
    assert MAML(config(inner_lr=0.3), Spaces(2, 2, discrete), CPU, seed=0).config.inner_lr == 0.3


@pytest.mark.parametrize("outer", ["ppo", "trpo", "pg", "reptile"])
def test_inner_kl_is_the_distance_between_the_policies_before_and_after_adaptation(outer):
    maml = point_learner(outer=outer)
    batches, weights = collect(maml), weights_of(maml)
    support, query = tensors(batches)
    metrics = maml.update(batches, 0.0)
    adapted = adapted_by(maml_like(maml, weights), [support])
    before, after = (
        maml.net.distribution(params, query.observations)
        for params in ({name: weights[name].expand_as(value) for name, value in adapted.items()}, adapted)
    )
    with torch.no_grad():
        expected = kl_divergence(before, after).mean()
    assert metrics["inner_kl"] == pytest.approx(float(expected), rel=1e-3)
    assert metrics["inner_kl"] > 1e-4


def maml_like(maml: MAML, weights: Params) -> MAML:
    """A learner of the same configuration with other weights."""
    other = MAML(maml.config, Spaces(2, 2), CPU, seed=0)
    other.load_state_dict({f"weights.{name}": value for name, value in weights.items()})
    return other


# --- the floor under the standard deviation ----------------------------------------------------------


def log_std(maml: MAML) -> np.ndarray:
    return maml.weights()["log_std"]


@pytest.mark.parametrize("outer", [{"name": "ppo", "lr": 0.1}, {"name": "pg", "lr": 0.1}, {"name": "trpo"}])
@pytest.mark.parametrize("init_std", [0.3, 0.30001])
def test_no_outer_step_ends_below_the_floor(outer, init_std):
    maml = point_learner(outer=outer, init_std=init_std, min_std=0.3)
    for i in range(3):
        maml.update(collect(maml, i), 0.0)
        assert (log_std(maml) >= np.float32(np.log(0.3))).all()


def pushed(data: list[RoundTensors], towards: float) -> list[RoundTensors]:
    """The same rounds with advantages that reward actions far from the mean (1), or close to it (-1)."""
    result = []
    for r in data:
        assert isinstance(r.behaviour, Gaussian)
        z = ((r.actions - r.behaviour.mean) / r.behaviour.log_std.exp()).square().mean(-1).view_as(r.mask)
        result.append(replace(r, advantages=towards * (z - z.mean())))
    return result


@pytest.mark.parametrize("inner", [1.0, -1.0], ids=["adaptation widens", "adaptation narrows"])
@pytest.mark.parametrize("variant", ["maml", "fomaml", "meta_sgd"])
def test_a_standard_deviation_at_the_floor_grows_where_that_pays(variant, inner):
    """Also where the inner step of every task would have ended below the floor."""
    maml = point_learner(variant=variant, init_std=0.3, min_std=0.3, outer="pg")
    data = tensors(collect(maml))
    data = [*pushed(data[:1], inner), *pushed(data[1:], 1.0)]
    adapted = adapted_by(maml, data[:1])["log_std"]
    assert (adapted >= np.float32(np.log(0.3))).all()
    assert bool((adapted > np.float32(np.log(0.3))).all()) == (inner > 0)
    gradient, _ = maml.objective.gradient(weights_of(maml), data)
    assert (gradient["log_std"] < -0.1).all()


def test_a_checkpoint_whose_log_std_lies_below_the_floor_evaluates_as_it_always_did():
    """Earlier versions let it sink: the policy acts at the floor, and adaptation leaves it alone."""
    maml = point_learner(min_std=0.2)
    state = maml.state_dict()
    state["weights.log_std"].fill_(np.log(0.198))
    maml.load_state_dict(state)
    assert log_std(maml) == pytest.approx(np.log(0.198))
    (batch, _) = collect(maml)
    for round_ in batch.rounds:
        assert round_.derived["log_std"] == pytest.approx(np.log(0.2))
    assert (adapted_by(maml, tensors([batch])[:1])["log_std"] == torch.tensor(np.log(0.198)).float()).all()
    maml.update(collect(maml), 0.0)
    assert (log_std(maml) >= np.float32(np.log(0.2))).all()


# --- learning ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "threshold"),
    [
        ({"outer": {"name": "ppo", "lr": 5e-3}}, 0.35),
        ({"outer": {"name": "trpo"}}, 0.5),
        ({"variant": "fomaml", "outer": {"name": "ppo", "lr": 5e-3}}, 0.3),
        ({"variant": "meta_sgd", "outer": {"name": "ppo", "lr": 5e-3}}, 1.0),
        ({"outer": {"name": "pg", "lr": 2e-2}, "inner_objective": "dice"}, 0.25),
        ({"outer": {"name": "reptile", "lr": 2e-2}}, 0.2),
    ],
    ids=["promp", "trpo", "fomaml", "meta_sgd", "dice", "reptile"],
)
def test_training_makes_adaptation_on_held_out_goals_gain_more(options, threshold):
    """Before training one inner step gains 0.16 +- 0.05 here."""
    maml = point_learner(tasks_per_iteration=12, **options)
    for i in range(30):
        maml.update(collect(maml, i), i / 30)
    distribution, plan = load_distribution("PointGoal", horizon=10), replace(maml.plan(10), num_streams=100)
    unit = Unit(0, distribution.sample("test", 100, 5), plan, (7,))
    (trial,) = LocalExecutor(distribution, maml.policy).collect([unit], maml.weights(), 0)
    assert (trial.returns[-1] - trial.returns[0]).mean() > threshold
