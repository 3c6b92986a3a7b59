"""PEARL: where gradients go, what bootstraps, and acting on a belief."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metarl.algorithms.base import EvaluationSettings
from metarl.algorithms.pearl import PEARL
from metarl.algorithms.pearl.config import PEARLConfig
from metarl.algorithms.pearl.meta_batch import MetaBatch, draw_context
from metarl.algorithms.pearl.objective import gradient
from metarl.algorithms.pearl.policy import context_features
from metarl.algorithms.pearl.replay import Transitions
from metarl.errors import ConfigError
from metarl.rollout.local import LocalExecutor
from metarl.rollout.spaces import Spaces
from metarl.rollout.types import Round, TrialBatch, Unit
from metarl.tasks import TaskDistribution, load_distribution
from tests.toy import Point

CPU = torch.device("cpu")
SMALL = {
    "num_train_tasks": 4,
    "tasks_per_iteration": 2,
    "initial_episodes": 2,
    "gradient_steps": 2,
    "meta_batch": 3,
    "batch_size": 8,
    "context_size": 6,
    "replay_capacity": 100,
    "context_capacity": 50,
    "latent_dim": 2,
    "hidden_dim": 16,
}
CONTRASTIVE: dict[str, Any] = {"contrastive": {"weight": 5.0}}
K, B, C, OBS, ACTIONS, Z = 3, 8, 6, 2, 2, 2
EITHER_ENCODER = pytest.mark.parametrize("encoder", ["permutation_invariant", "recurrent"])


def learner(
    seed: int = 0, spaces: Spaces | None = None, encoder: str = "permutation_invariant", **options: Any
) -> PEARL:
    """`options` are of the configuration; those of the encoder have its name before them."""
    own = {"name": encoder, "hidden_dim": 12}
    own |= {name.removeprefix("encoder_"): options.pop(name) for name in list(options) if name.startswith("encoder_")}
    config = PEARLConfig(**{"name": "pearl", **SMALL, **options, "encoder": own})
    return PEARL(config, spaces or Spaces(OBS, ACTIONS), CPU, seed)


def meta_batch(num_tasks: int = K, features: int = OBS + ACTIONS + 1) -> MetaBatch:
    """With two contexts."""
    g = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(num_tasks, *shape, generator=g)

    observations, actions, rewards, after = normal(B, OBS), normal(B, ACTIONS).tanh(), normal(B), normal(B, OBS)
    transitions = Transitions(observations, actions, rewards, after, torch.zeros(num_tasks, B))
    contexts = normal(C, features), normal(C, features)
    return MetaBatch(transitions, contexts, normal(B, 2 * ACTIONS + Z))


def collect(pearl: PEARL, distribution: TaskDistribution, iteration: int) -> list[TrialBatch]:
    tasks, plan = pearl.tasks(distribution, 0, iteration), pearl.plan(distribution.horizon)
    units = [Unit(i, (task,), plan, (0, iteration, i)) for i, task in enumerate(tasks)]
    return LocalExecutor(distribution, pearl.policy).collect(units, pearl.weights(), iteration)


def gradients(pearl: PEARL, batch: MetaBatch, half_precision: bool = False) -> dict[str, torch.Tensor]:
    losses = pearl.objective.losses
    return gradient(losses, pearl.params, pearl.targets, batch, half_precision=half_precision)[0]


def critic_loss_of(pearl: PEARL, params: dict[str, torch.Tensor], batch: MetaBatch) -> float:
    return float(pearl.objective.losses(params, pearl.targets, batch)[1][0])


@EITHER_ENCODER
def test_gradients_reach_the_encoder_from_the_critics_and_the_kl_only(encoder):
    """With critics that ignore z and no weight on the KL nothing is left, though the actor does see z."""
    pearl = learner(kl_weight=0.0, encoder=encoder)
    latent = slice(OBS + ACTIONS, None)
    for params in (pearl.params, pearl.targets):
        params["critics.w0"][:, latent] = 0
    through_nothing = gradients(pearl, meta_batch())
    assert all((g == 0).all() for name, g in through_nothing.items() if name.startswith("encoder."))
    assert float(through_nothing["actor.w0"].abs().sum()) > 0
    through_kl = gradients(learner(kl_weight=1.0, encoder=encoder), meta_batch())
    through_critics = gradients(learner(kl_weight=0.0, encoder=encoder), meta_batch())
    for found in (through_kl, through_critics):
        assert all((g != 0).any() for name, g in found.items() if name.startswith("encoder."))


def test_the_actors_loss_leaves_the_critics_alone():
    """The critics' gradient is that of the squared error by finite differences, whatever the actor's loss does."""
    pearl = learner(kl_weight=0.0)
    found = gradients(pearl, meta_batch())["critics.b3"]
    losses = []
    for delta in (1e-2, -1e-2):
        moved = {**pearl.params, "critics.b3": pearl.params["critics.b3"] + delta}
        losses.append(critic_loss_of(pearl, moved, meta_batch()))
    assert (losses[0] - losses[1]) / 2e-2 == pytest.approx(float(found.sum()), rel=1e-3)


def twice_mean_square_target(pearl: PEARL, **changes: torch.Tensor) -> float:
    """The critics' loss, where they are zero and the slow ones ten: twice the mean square of y."""
    for params in (pearl.params, pearl.targets):
        for name in params:
            if name.startswith("critics."):
                params[name].zero_()
    pearl.targets["critics.b3"].fill_(10.0)
    batch = meta_batch()
    return critic_loss_of(pearl, pearl.params, replace(batch, transitions=replace(batch.transitions, **changes)))


def test_terminated_stops_the_bootstrap():
    found = twice_mean_square_target(
        learner(reward_scale=3.0), rewards=torch.full((K, B), 2.0), terminated=torch.ones(K, B)
    )
    assert found == pytest.approx(2 * 6.0**2)  # y = 3 * 2


def test_what_has_not_terminated_bootstraps_from_the_slow_critics():
    pearl = learner(reward_scale=3.0, gamma=0.5, temperature=1e-6)
    found = twice_mean_square_target(pearl, rewards=torch.full((K, B), 2.0))
    assert found == pytest.approx(2 * (6 + 0.5 * 10) ** 2, rel=1e-3)


def test_an_episode_that_ran_out_of_time_is_stored_as_not_terminated():
    pearl = learner(spaces=Spaces(2, 1))
    distribution = Point()
    pearl.update(collect(pearl, distribution, 0), 0.0)
    generator = torch.Generator().manual_seed(0)
    sample = pearl.replay.sample(torch.arange(4), 50, generator)
    assert (sample.terminated == 0).all()


@EITHER_ENCODER
def test_the_weight_of_the_kl_does_not_depend_on_the_number_of_tasks(encoder):
    """The same task three times over gives the gradient of the task once."""
    batch = meta_batch(1)
    once = gradients(learner(encoder=encoder), batch)
    thrice = Transitions(*(value.repeat(3, *[1] * (value.ndim - 1)) for value in vars(batch.transitions).values()))
    contexts = tuple(context.repeat(3, 1, 1) for context in batch.contexts)
    many = gradients(learner(encoder=encoder), MetaBatch(thrice, contexts, batch.noise.repeat(3, 1, 1)))
    for name, value in once.items():
        torch.testing.assert_close(value, many[name], rtol=1e-4, atol=1e-6, msg=name)


@EITHER_ENCODER
def test_a_step_in_pieces_is_the_step_as_a_whole(encoder):
    pearl, batch = learner(encoder=encoder), meta_batch()
    pearl.step(batch)
    whole = gradients(learner(encoder=encoder), batch)
    for name, value in pearl.params.items():
        assert value.grad is not None
        torch.testing.assert_close(value.grad, whole[name], rtol=1e-4, atol=1e-6, msg=name)


def test_targets_move_slowly_towards_the_critics():
    pearl = learner(target_rate=0.25)
    before = pearl.targets["critics.w1"].clone()
    pearl.step(meta_batch())
    expected = before + 0.25 * (pearl.params["critics.w1"] - before)
    torch.testing.assert_close(pearl.targets["critics.w1"], expected)


def test_the_temperature_is_learnt_only_where_asked_for():
    fixed, learnt = learner(), learner(learn_temperature=True)
    for pearl in (fixed, learnt):
        pearl.step(meta_batch())
    assert float(fixed.params["log_temperature"]) == 0
    assert float(learnt.params["log_temperature"]) != 0


@EITHER_ENCODER
def test_a_contrastive_loss_reaches_the_encoder(encoder):
    with_it, without = learner(**CONTRASTIVE, encoder=encoder), learner(encoder=encoder)
    one, other = (gradients(pearl, meta_batch()) for pearl in (with_it, without))
    first_layer = next(name for name in one if name.startswith("encoder."))
    assert not torch.allclose(one[first_layer], other[first_layer])


@EITHER_ENCODER
def test_steps_pull_two_contexts_of_a_task_together_and_tasks_apart(encoder):
    pearl = learner(**CONTRASTIVE, kl_weight=0.0, lr=3e-3, encoder=encoder)
    batch = meta_batch()
    batch = replace(batch, contexts=(batch.contexts[0], batch.contexts[0] + 0.01))
    contrastive_losses = [float(pearl.step(batch)[4]) for _ in range(120)]
    assert contrastive_losses[0] == pytest.approx(np.log(K), abs=0.05)  # all means near 0: no task is told from another
    assert contrastive_losses[-1] < 0.5 * contrastive_losses[0]


def test_tasks_that_differ_in_the_order_of_their_transitions_are_told_apart_by_the_recurrent_encoder_alone():
    batch = meta_batch(2)
    one = batch.contexts[0][0]
    forwards_and_backwards = torch.stack((one, one.flip(0)))
    batch = replace(batch, contexts=(forwards_and_backwards,) * 2)
    last = {}
    for encoder in ("recurrent", "permutation_invariant"):
        pearl = learner(**CONTRASTIVE, kl_weight=0.0, lr=3e-3, encoder=encoder)
        for _ in range(150):
            last[encoder] = float(pearl.step(batch)[4])
    assert last["permutation_invariant"] == pytest.approx(np.log(2), abs=1e-4)
    assert last["recurrent"] < 0.5 * np.log(2)


@EITHER_ENCODER
def test_half_precision_stays_near_the_full_one(encoder):
    pearl, batch = learner(encoder=encoder), meta_batch()
    full, half = (gradients(pearl, batch, half_precision=on) for on in (False, True))
    assert not torch.equal(full["actor.w1"], half["actor.w1"])
    for name in ("actor.w1", *(name for name in full if name.startswith("encoder."))):
        assert float((full[name] - half[name]).norm() / full[name].norm()) < 0.1, name


# --- acting ---


def trials_of(pearl: PEARL, distribution: TaskDistribution, tasks: int = 2, **settings: Any) -> TrialBatch:
    plan = pearl.evaluation_plan(distribution.horizon, EvaluationSettings(**settings))
    unit = Unit(0, distribution.sample("test", tasks, 0), plan, (0, 0, 0))
    return LocalExecutor(distribution, pearl.policy).collect([unit], pearl.weights(), 0)[0]


@EITHER_ENCODER
def test_the_belief_stays_the_prior_until_a_round_is_adapted_to(encoder):
    pearl = learner(encoder=encoder)
    first, second, _ = trials_of(pearl, load_distribution("PointGoal")).rounds
    assert (first.derived["belief_mean"] == 0).all()
    assert (first.derived["belief_var"] == 1).all()
    assert (second.derived["belief_var"] < 1).all()


def test_exploration_by_the_posterior_believes_after_its_first_episode():
    first, second, judged = (
        round_.derived["belief_var"]
        for round_ in trials_of(
            learner(exploration="posterior", context_size=1000), load_distribution("PointGoal")
        ).rounds
    )
    assert (first < 1).all()
    assert (second < first).all()
    np.testing.assert_array_equal(judged, second)


@EITHER_ENCODER
def test_the_actors_belief_is_the_learners_posterior_of_the_same_transitions(encoder):
    pearl = learner(context_size=1000, spaces=Spaces(2, 1), encoder=encoder)
    trial = trials_of(pearl, Point())
    features = np.concatenate([context_features(r, False) for r in trial.rounds[:2]], axis=1)
    mean, var = pearl.objective.posterior(pearl.params, torch.from_numpy(features))
    np.testing.assert_allclose(trial.rounds[1].derived["belief_mean"][:, 0], mean.detach(), atol=1e-5)
    np.testing.assert_allclose(trial.rounds[1].derived["belief_var"][:, 0], var.detach(), atol=1e-5)


def ragged_rounds(*lengths: tuple[int, int], horizon: int = 5) -> list[Round]:
    """Rounds of one task and two streams whose episodes end early, as many as lengths; padding is zero."""
    rng = np.random.Generator(np.random.Philox(0))
    rounds = []
    for each in lengths:
        real = (np.arange(horizon) < np.array([each]).T)[None]
        o, a = (rng.standard_normal((1, 2, horizon, n)).astype(np.float32) * real[..., None] for n in (OBS, ACTIONS))
        last = rng.standard_normal((1, 2, OBS)).astype(np.float32)
        flags = np.ones((1, 2), bool)
        rounds.append(Round(o, a, o[..., 0] * real, np.array([each]), flags, ~flags, last, extras={}, derived={}))
    return rounds


@EITHER_ENCODER
@pytest.mark.parametrize("next_observation", [False, True])
def test_acting_reads_the_real_steps_of_all_rounds_as_learning_does_whatever_their_lengths(encoder, next_observation):
    pearl = learner(context_size=1000, encoder=encoder, next_observation=next_observation)
    rounds = ragged_rounds((3, 5), (1, 2), (5, 4))
    state = pearl.policy.begin_trial(pearl.weights(), 1, 2, np.random.Generator(np.random.Philox(0)))
    for round_ in rounds:
        state, derived = pearl.policy.end_round(state, round_, adapt=True)
    for n in range(2):
        real = [context_features(r, next_observation)[n, : r.lengths[0, n]] for r in rounds]
        mean, var = pearl.objective.posterior(pearl.params, torch.from_numpy(np.concatenate(real))[None])
        np.testing.assert_allclose(derived["belief_mean"][0, n], mean[0].detach(), atol=1e-5)
        np.testing.assert_allclose(derived["belief_var"][0, n], var[0].detach(), atol=1e-5)


@EITHER_ENCODER
def test_a_round_costs_the_same_however_many_came_before(encoder, monkeypatch):
    pearl = learner(encoder=encoder)
    policy, rows_read, read = pearl.policy, [], type(pearl.objective.encoder).read

    def counting(self: Any, params: Any, x: torch.Tensor, *rest: Any) -> Any:
        rows_read.append(x.shape[1])
        return read(self, params, x, *rest)

    monkeypatch.setattr(type(pearl.objective.encoder), "read", counting)
    state = policy.begin_trial(pearl.weights(), 1, 2, np.random.Generator(np.random.Philox(0)))
    for round_ in ragged_rounds((5, 5), (5, 5), (5, 5)):
        state, _ = policy.end_round(state, round_, adapt=True)
    assert rows_read == [5, 5, 5]


def test_the_next_observation_follows_its_step_and_ends_with_the_last_one():
    observations = np.arange(4, dtype=np.float32).reshape(1, 1, 4, 1)
    observations[0, 0, 3] = 0  # padding
    zeros = np.zeros((1, 1, 4), np.float32)
    flags = np.array([[True]])
    last = np.array([[[9.0]]], np.float32)
    round_ = Round(observations, zeros[..., None], zeros, np.array([[3]]), flags, ~flags, last, extras={}, derived={})
    assert round_.next_observations[0, 0, :3, 0].tolist() == [1, 2, 9]


def test_the_context_holds_the_next_observation_where_asked_for():
    pearl = learner(next_observation=True, spaces=Spaces(2, 1))
    distribution = Point()
    for iteration in range(2):
        metrics = pearl.update(collect(pearl, distribution, iteration), 0.0)
    assert len(pearl.params["encoder.w0"]) == 2 + 1 + 1 + 2
    assert np.isfinite(metrics["critic_loss"])


@EITHER_ENCODER
def test_a_blank_context_stays_at_the_prior_and_a_shuffled_one_believes_the_other_tasks_evidence(encoder):
    distribution = load_distribution("PointGoal")
    own, blank, shuffled = (
        trials_of(learner(encoder=encoder), distribution, context=context).rounds[1].derived["belief_mean"]
        for context in ("own", "blank", "shuffled")
    )
    assert (blank == 0).all()
    np.testing.assert_array_equal(shuffled, own[::-1])  # of two tasks


# --- collection ---


def test_the_pool_is_visited_whole_and_then_in_parts():
    pearl, distribution = learner(), load_distribution("PointGoal")
    pool = pearl.tasks(distribution, 0, 0)
    assert len(pool) == 4
    assert {len(pearl.tasks(distribution, 0, i)) for i in range(1, 9)} == {2}
    assert set().union(*(pearl.tasks(distribution, 0, i) for i in range(1, 9))) == set(pool)


@pytest.mark.parametrize(("exploration", "rounds"), [("prior", 1), ("posterior", 2)])
def test_contexts_come_from_episodes_like_those_of_an_evaluations_exploration(exploration, rounds):
    pearl = learner(exploration=exploration, posterior_episodes=2)
    distribution = load_distribution("PointGoal", horizon=5)
    pearl.update(collect(pearl, distribution, 0), 0.0)
    assert (pearl.replay.num_stored, pearl.contexts.num_stored) == (4 * 2 * 5, 4 * 2 * 5)
    # Two tasks, one prior and two posterior episodes, the last of which is judged:
    pearl.update(collect(pearl, distribution, 1), 0.0)
    assert (pearl.replay.num_stored, pearl.contexts.num_stored) == (40 + 2 * 3 * 5, 40 + 2 * rounds * 5)


@pytest.mark.parametrize(
    ("options", "in_order"),
    [
        ({"encoder": "recurrent"}, True),
        ({"encoder_context_sampling": "runs"}, True),
        ({"encoder_context_sampling": "transitions"}, False),
    ],
)
def test_contexts_follow_time_where_they_are_runs_and_else_do_not(options, in_order):
    """Horizon 5, runs of 6 or fewer: where a transition does not begin as the one before it ended, an episode did."""
    distribution = load_distribution("PointGoal", horizon=5)
    pearl = learner(**options, next_observation=True, context_size=6)
    pearl.update(collect(pearl, distribution, 0), 0.0)
    generator = torch.Generator().manual_seed(0)
    context = draw_context(pearl.contexts, torch.arange(4), pearl.config, generator)
    follows = context[:, :-1, -OBS:] == context[:, 1:, :OBS]
    share = float(follows.all(-1).float().mean())
    assert context.shape == (4, 6, 2 * OBS + ACTIONS + 1)
    if in_order:
        assert share == pytest.approx(4 / 5)  # five joints, one of them from an episode to the next
    else:
        assert share < 0.5


@EITHER_ENCODER
def test_without_its_replay_in_the_checkpoint_it_collects_on_the_whole_pool_before_it_learns(encoder):
    before, after = (learner(save_replay=False, encoder=encoder, seed=seed) for seed in (0, 5))
    distribution = load_distribution("PointGoal", horizon=5)
    before.update(collect(before, distribution, 0), 0.0)
    state = before.state_dict()
    assert not any(name.startswith("replay.") for name in state)
    after.load_state_dict(state)
    assert after.tasks(distribution, 0, 1) == before.tasks(distribution, 0, 0)
    after.update(collect(after, distribution, 1), 0.0)
    assert (after.replay.num_stored, after.contexts.num_stored) == (4 * 2 * 5, 4 * 2 * 5)  # as the first iteration
    assert after.tasks(distribution, 0, 2) == before.tasks(distribution, 0, 2)  # some of the pool again
    after.update(collect(after, distribution, 2), 0.0)
    assert (after.replay.num_stored, after.contexts.num_stored) == (40 + 2 * 2 * 5, 40 + 2 * 5)


def test_a_checkpoint_that_does_not_name_the_tasks_of_its_replay_has_them_in_the_pools_order():
    """Earlier versions wrote such checkpoints."""
    distribution = load_distribution("PointGoal", horizon=5)
    straight, restored = learner(), learner(seed=5)
    straight.update(collect(straight, distribution, 0), 0.0)
    state = straight.state_dict()
    earlier = {name: value for name, value in state.items() if name != "slots" and not name.endswith(".streams")}
    restored.load_state_dict(earlier)
    for pearl in (straight, restored):
        pearl.update(collect(pearl, distribution, 1), 0.0)
    for name, value in straight.state_dict().items():
        assert torch.equal(value, restored.state_dict()[name]), name


def test_discrete_actions_are_refused_with_what_is_allowed():
    with pytest.raises(ConfigError, match="needs continuous actions"):
        learner(spaces=Spaces(2, 3, discrete=True))


def test_the_losses_are_one_graph_for_the_compiler():
    """In a process of its own: the compiler cannot see through the type checks that tests run with."""
    script = """if True:
        import torch
        from metarl.algorithms.pearl.objective import gradient
        from tests.algorithms.test_pearl import gradients, learner, meta_batch

        pearl = learner()
        expected = gradients(pearl, meta_batch())
        compiled = torch.compile(pearl.objective.losses, backend="aot_eager", fullgraph=True)
        for name, found in gradient(compiled, pearl.params, pearl.targets, meta_batch())[0].items():
            torch.testing.assert_close(found, expected[name])
    """
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "tests")])}
    subprocess.run([sys.executable, "-c", script], env=environment, cwd=root, check=True, timeout=300)


@pytest.mark.parametrize("pays", [True, False])
def test_half_precision_is_warned_of_where_it_cannot_pay(pays, monkeypatch, caplog):
    monkeypatch.setattr("metarl.algorithms.pearl.learner.bfloat16_pays", lambda: pays)
    learner(autocast=False)
    assert not caplog.records
    learner(autocast=True)
    assert [record.levelname for record in caplog.records] == ([] if pays else ["WARNING"])
    assert pays or "autocast = False is faster" in caplog.text


def test_compiling_on_a_cpu_is_refused():
    with pytest.raises(ConfigError, match="compile"):
        learner(compile=True)
