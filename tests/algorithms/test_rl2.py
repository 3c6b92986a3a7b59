"""RL2: credit over the trial, memory over its episodes, and acting equal to learning."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from pydantic import ValidationError

from metarl.algorithms.base import EvaluationSettings
from metarl.algorithms.rl2 import RL2
from metarl.algorithms.rl2.config import RL2Config
from metarl.algorithms.rl2.policy import net_of, sequence_inputs
from metarl.algorithms.rl2.sequences import Sequences
from metarl.algorithms.rl2.tensors import TrialTensors
from metarl.errors import ConfigError
from metarl.ops.distributions import kl_divergence
from metarl.rollout.local import LocalExecutor
from metarl.rollout.spaces import Spaces
from metarl.rollout.types import Context, Round, TrialBatch, Unit
from metarl.tasks import Parameter, Task, TaskDistribution, Uniform
from tests.toy import number

CPU = torch.device("cpu")
HORIZON = 5
SMALL = {"encoded_obs_dim": 6, "head_dim": 5, "minibatches": 2}
CORES = {
    "gru": {"name": "gru", "hidden_dim": 8},
    "lstm": {"name": "lstm", "hidden_dim": 8},
    "transformer": {"name": "transformer", "hidden_dim": 8, "num_heads": 2},
}


class Stops(TaskDistribution):
    """Episodes end in a terminal state after `length` steps; the observation is (step, noise), the reward the action
    less the step. What a trial holds can be read off its numbers."""

    name = "Stops"
    horizon = HORIZON

    def __init__(self, discrete: bool = False) -> None:
        self.parameters = (Parameter("length", Uniform(1.0, 9.0)),)
        self.discrete = discrete

    def make(self, task: Task) -> gymnasium.Env:
        return StopsEnv(int(number(task["length"])), self.discrete)


class StopsEnv(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)

    def __init__(self, length: int, discrete: bool):
        box = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
        self.length, self.action_space = length, gymnasium.spaces.Discrete(3) if discrete else box

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.t = 0
        return np.array([0.0, self.np_random.normal()]), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.t += 1
        reward = float(np.sum(action)) - self.t
        return np.array([self.t, self.np_random.normal()]), reward, self.t == self.length, False, {}


def learner(spaces: Spaces | None = None, seed: int = 0, **options: Any) -> RL2:
    settings = {"core": CORES["gru"], "tasks_per_iteration": 6, "num_streams": 2, **SMALL, **options}
    return RL2(RL2Config(name="rl2", **settings), spaces or Spaces(2, 1), CPU, seed)


def tasks_of(lengths: list[float]) -> tuple[Task, ...]:
    return tuple(Task.of("Stops", {"length": length}) for length in lengths)


def collect(rl2: RL2, lengths: tuple[float, ...] = (2, 9, 4), iteration: int = 0, **options: Any) -> list[TrialBatch]:
    """One unit of three tasks x two streams: episodes of 2, 5 (the horizon) and 4 steps."""
    unit = Unit(0, tasks_of(list(lengths)), rl2.plan(HORIZON), (0, iteration, 0))
    return LocalExecutor(Stops(**options), rl2.policy).collect([unit], rl2.weights(), iteration)


def sequences_of(batches: list[TrialBatch]) -> Sequences:
    return Sequences.of([batch.rounds for batch in batches])


# --- sequences ---


def test_episodes_are_joined_without_gaps_and_padded_at_the_end():
    sequences = sequences_of(collect(learner()))
    assert sequences.mask.sum(axis=1).tolist() == [4, 4, 10, 10, 8, 8]
    steps = sequences.observations[..., 0]
    assert steps[0].tolist() == [0, 1, 0, 1, 0, 0, 0, 0, 0, 0]
    assert steps[4].tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 0]
    assert np.flatnonzero(sequences.is_first[4]).tolist() == [0, 4]
    assert sequences.lengths.tolist() == [[2, 2]] * 2 + [[5, 5]] * 2 + [[4, 4]] * 2
    assert sequences.terminated.tolist() == [[True, True]] * 2 + [[False, False]] * 2 + [[True, True]] * 2
    assert (sequences.rewards[~sequences.mask] == 0).all()


def test_units_of_different_length_are_padded_alike():
    trials = collect(learner(), (2, 2, 2)) + collect(learner(), (9, 9, 9))
    assert sequences_of(trials).mask.sum(axis=1).tolist() == [4] * 6 + [10] * 6


# --- acting = learning ---


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("memory", ["trial", "none"])
@pytest.mark.parametrize("discrete", [False, True])
def test_the_learner_recomputes_what_the_actor_did_at_every_step(core, memory, discrete):
    rl2 = learner(Spaces(2, 3 if discrete else 1, discrete), core=CORES[core], memory=memory)
    for iteration in range(2):  # the second time with normalisers that have moved
        trials = collect(rl2, iteration=iteration, discrete=discrete)
        rl2.update(trials, 0.0)
    trials = collect(rl2, iteration=2, discrete=discrete)
    sequences, weights = sequences_of(trials), rl2.weights()
    unused = torch.zeros(sequences.mask.shape)
    data = TrialTensors.of(rl2.net, weights, sequences, unused, unused, CPU)
    distribution, values = rl2.net.forward(parameters(rl2), data.inputs)
    logged = torch.from_numpy(sequences.extras["value"])
    recomputed = (weights["value.mean"] + weights["value.std"] * values.numpy()).T
    np.testing.assert_allclose(recomputed[sequences.mask], logged[sequences.mask], atol=1e-4)
    divergence = kl_divergence(data.batch.behaviour, distribution) * data.batch.mask
    assert float(divergence.abs().max()) < 1e-6


def parameters(rl2: RL2) -> dict[str, torch.Tensor]:
    """The net's parameters, from the weights that actors are given."""
    return {name: torch.from_numpy(value) for name, value in net_of(rl2.weights()).items()}


def inputs_of(rl2: RL2, trials: list[TrialBatch]) -> np.ndarray:
    """Normalisers are fresh, so that inputs are the raw numbers: [B, T, obs 2 | action 1 | reward | boundary]."""
    return sequence_inputs(rl2.weights(), rl2.net, sequences_of(trials))


def test_the_first_input_of_an_episode_is_its_first_observation_with_flag_and_the_last_action_and_reward():
    rl2 = learner()
    trials = collect(rl2)
    first, second = trials[0].rounds
    x = inputs_of(rl2, trials)[2]  # the task that runs to the horizon
    np.testing.assert_array_equal(x[0], [*first.observations[1, 0, 0], 0, 0, 1])
    action, reward = first.actions[1, 0, -1].clip(-1, 1), first.rewards[1, 0, -1]
    np.testing.assert_array_equal(x[HORIZON], [*second.observations[1, 0, 0], *action, reward, 1])
    assert x[:, -1].tolist() == [1, 0, 0, 0, 0, 1, 0, 0, 0, 0]


def test_the_memory_lives_through_an_episodes_end_and_is_cleared_with_the_trial():
    policy, weights = learner().policy, learner().weights()
    rng = np.random.default_rng(0)
    state = policy.begin_trial(weights, 1, 2, rng)
    assert not state.memory.any()
    _, state, _ = policy.act(state, np.ones((1, 2, 2), np.float32), rng, False)
    before = state.memory.copy()
    assert before.any()
    round_ = collect(learner(), (2,))[0].rounds[0]
    after, _ = policy.end_round(state, round_, adapt=True)
    np.testing.assert_array_equal(after.memory, before)
    assert after.boundary.all()
    assert not policy.begin_trial(weights, 1, 2, rng).memory.any()


def test_a_task_blind_policy_is_given_nothing_but_the_observation():
    rl2 = learner(memory="none")
    assert not inputs_of(rl2, collect(rl2))[..., 2:].any()


def test_permuting_tasks_permutes_what_is_learnt_from_them():
    one, other = learner(minibatches=1, epochs=1), learner(minibatches=1, epochs=1)
    (trial,) = collect(one)
    order = [2, 0, 1]

    def permuted(round_: Round) -> Round:
        arrays = {n: v[order] for n, v in vars(round_).items() if isinstance(v, np.ndarray)}
        return Round(
            **arrays,
            extras={n: v[order] for n, v in round_.extras.items()},
            derived={n: v[order] for n, v in round_.derived.items()},
        )

    first = one.update([trial], 0.0)
    second = other.update([TrialBatch(0, trial.tasks, tuple(permuted(r) for r in trial.rounds), 0)], 0.0)
    assert first == pytest.approx(second, rel=1e-4, abs=1e-6)
    for name, value in one.weights().items():
        np.testing.assert_allclose(value, other.weights()[name], atol=2e-5, err_msg=name)


# --- learning ---


def test_moving_the_value_normaliser_leaves_the_critic_as_it_was():
    rl2 = learner()
    trials = collect(rl2)
    rl2.update(trials, 0.0)
    data = torch.from_numpy(inputs_of(rl2, trials)).transpose(0, 1)

    def critic() -> np.ndarray:
        weights = rl2.weights()
        _, values = rl2.net.forward(parameters(rl2), data)
        return weights["value.mean"] + weights["value.std"] * values.numpy()

    before, std = critic(), rl2.weights()["value.std"]
    frozen = learner(lr=1e-30)
    frozen.load_state_dict(rl2.state_dict())
    rl2 = frozen
    rl2.update(collect(rl2, (9, 9, 9), 1), 0.0)  # longer episodes: other returns
    assert rl2.weights()["value.std"] != std
    np.testing.assert_allclose(critic(), before, atol=1e-4)


def test_normalisers_hold_the_mean_and_deviation_of_the_real_steps_seen():
    rl2 = learner()
    trials = collect(rl2)
    rl2.update(trials, 0.0)
    sequences = sequences_of(trials)
    seen = np.concatenate((sequences.observations[sequences.mask], sequences.rewards[sequences.mask][:, None]), axis=1)
    np.testing.assert_allclose(rl2.weights()["inputs.mean"], seen.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(rl2.weights()["inputs.std"], seen.std(axis=0), atol=1e-5)


def test_the_learning_rate_falls_linearly_over_the_run_and_is_logged():
    rl2 = learner(lr=0.01, lr_schedule="linear")
    rates = [rl2.update(collect(rl2, iteration=i), i / 4)["lr"] for i in range(4)]
    assert rates == pytest.approx([0.01, 0.0075, 0.005, 0.0025])


def test_an_update_stops_when_the_policy_has_moved_far_enough():
    far, near = learner(epochs=50, lr=0.01, max_kl=1e-3), learner(epochs=50, lr=0.01)
    trials = collect(far)
    assert far.update(trials, 0.0)["gradient_steps"] < near.update(trials, 0.0)["gradient_steps"] == 100


def with_means_near(rl2: RL2, mean: float) -> RL2:
    """The same learner, its means shifted: the policy's last layer is close to 0 at first."""
    state = rl2.state_dict()
    state["params.policy.b1"].fill_(mean)
    rl2.load_state_dict(state)
    return rl2


@pytest.mark.parametrize(("mean", "is_penalised"), [(0.5, False), (3.0, True), (-3.0, True)])
def test_means_beyond_the_action_range_are_drawn_back_and_those_within_are_left_alone(mean, is_penalised):
    with_penalty, without = (with_means_near(learner(bound_coef=c, max_grad_norm=1e9), mean) for c in (100.0, 0.0))
    trials = collect(without)
    for rl2 in (with_penalty, without):
        rl2.update(trials, 0.0)
    drawn, free = (abs(float(rl2.weights()["net.policy.b1"][0])) for rl2 in (with_penalty, without))
    assert (drawn < min(free, abs(mean))) if is_penalised else (drawn == free)


def test_truncated_backpropagation_gives_other_gradients_on_the_same_loss():
    whole, cut = (learner(core={**CORES["gru"], "bptt_steps": steps}, epochs=1, minibatches=1) for steps in (None, 2))
    trials = collect(whole)
    first, second = (rl2.update(trials, 0.0) for rl2 in (whole, cut))
    for name in ("policy_loss", "value_loss", "entropy"):
        assert first[name] == pytest.approx(second[name])
    assert first["gradient_norm"] != pytest.approx(second["gradient_norm"])


def test_a_standard_deviation_below_its_floor_is_raised_to_it_and_can_rise_further():
    rl2 = learner(min_std=0.5, init_std=0.5, entropy_coef=10.0, epochs=1, minibatches=1)
    state = rl2.state_dict()
    state["params.log_std"].fill_(-5.0)
    rl2.load_state_dict(state)
    assert rl2.update(collect(rl2), 0.0)["policy_std"] == pytest.approx(0.5)
    assert rl2.update(collect(rl2, iteration=1), 0.0)["policy_std"] > 0.5


def weights_after(trials: list[TrialBatch], planned_horizon: int = HORIZON, **options: Any) -> dict[str, np.ndarray]:
    rl2 = learner(**options)
    rl2.plan(planned_horizon)
    rl2.update(trials, 0.0)
    return rl2.weights()


def test_the_horizon_that_trials_were_planned_with_counts_where_episodes_reach_a_terminal_state():
    ended, cut = collect(learner(), (2, 2, 2)), collect(learner(), (9, 9, 9))
    for trials, matters in ((ended, True), (cut, False)):
        near, far, elapsed = (
            weights_after(trials),
            weights_after(trials, planned_horizon=50),
            weights_after(trials, episode_credit="elapsed"),
        )
        for other in (far, elapsed):
            assert any((near[name] != value).any() for name, value in other.items()) is matters


def test_a_policy_without_memory_is_credited_with_its_own_episode_alone():
    assert learner(memory="none").config.credit_across == "none"
    trials = collect(learner(memory="none"))
    one, other = (weights_after(trials, memory="none", episode_credit=credit) for credit in (None, "none"))
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)


# --- fine-tuning ---


def evaluate(rl2: RL2, lengths: list[float], context: Context = "own") -> TrialBatch:
    plan = rl2.evaluation_plan(HORIZON, EvaluationSettings(context=context))
    (batch,) = LocalExecutor(Stops(), rl2.policy).collect(
        [Unit(0, tasks_of(lengths), plan, (0, 0, 0))], rl2.weights(), 0
    )
    return batch


def test_fine_tuning_changes_each_tasks_policy_in_evaluation_only():
    rl2 = learner(memory="none", fine_tuning={"steps": 3, "lr": 0.5})
    assert not any(r.adapt for r in rl2.plan(HORIZON).rounds)
    before, after = (r.derived["log_std"] for r in evaluate(rl2, [9, 9]).rounds)
    assert (before[0] == before[1]).all()
    assert (after[0] != after[1]).any()


def test_fine_tuning_raises_the_likelihood_of_what_paid():
    """The reward is the action less the step: after steps on its own episodes the policy's mean must have risen."""
    rl2 = learner(memory="none", fine_tuning={"steps": 20, "lr": 0.3}, num_streams=30)
    first, second = evaluate(rl2, [9]).rounds
    assert second.extras["mean"].mean() > first.extras["mean"].mean() + 0.1


# --- context at test ---


def test_blank_and_shuffled_contexts_change_what_the_policy_does():
    rl2 = learner()
    for iteration in range(3):
        rl2.update(collect(rl2, iteration=iteration), 0.0)
    own, blank, shuffled = (
        evaluate(rl2, [9, 8, 7], context).rounds[1].extras["mean"] for context in ("own", "blank", "shuffled")
    )
    assert np.abs(own - blank).max() > 1e-4
    assert np.abs(own - shuffled).max() > 1e-4
    assert np.abs(blank - shuffled).max() > 1e-4


@pytest.mark.parametrize("core", CORES)
def test_with_a_blank_context_the_first_action_is_that_of_the_policy_and_later_ones_know_of_no_step(core):
    rl2, rng = learner(core=CORES[core]), np.random.default_rng(0)
    observations = np.ones((2, 1, 2), np.float32)
    own, blank = (rl2.policy.begin_trial(rl2.weights(), 2, 1, rng, context_of) for context_of in (None, np.full(2, -1)))
    first, state, _ = rl2.policy.act(own, observations, rng, True)
    found, blank, _ = rl2.policy.act(blank, observations, rng, True)
    np.testing.assert_array_equal(found, first)
    np.testing.assert_array_equal(rl2.policy.act(blank, observations, rng, True)[0], first)
    assert np.abs(rl2.policy.act(state, observations, rng, True)[0] - first).max() > 1e-6


@pytest.mark.parametrize("core", CORES)
def test_with_a_shuffled_context_a_task_reads_the_memory_of_the_one_it_is_given(core):
    """Both tasks see the same observation, and the memory is one value per task, of another action before."""
    rl2, rng = learner(core=CORES[core]), np.random.default_rng(0)
    observations = np.ones((2, 1, 2), np.float32)

    def second_means(context_of: np.ndarray | None) -> np.ndarray:
        state = rl2.policy.begin_trial(rl2.weights(), 2, 1, rng, context_of)
        state = replace(state, previous=np.array([[1.0, 1.0], [-1.0, -1.0]], np.float32))
        return rl2.policy.act(state, observations, rng, True)[0]

    own, swapped = second_means(None), second_means(np.array([1, 0]))
    assert np.abs(own[0] - own[1]).max() > 1e-5
    np.testing.assert_array_equal(own[::-1], swapped)


@pytest.mark.parametrize("context", ["blank", "shuffled"])
def test_a_context_is_refused_for_a_policy_without_memory(context):
    with pytest.raises(ConfigError, match="memory: none has no context; allowed: own"):
        learner(memory="none").evaluation_plan(HORIZON, EvaluationSettings(context=context))


def test_shuffling_needs_another_task():
    with pytest.raises(ConfigError, match="none has another task's context"):
        evaluate(learner(), [9], "shuffled")


def test_training_knows_no_context_but_a_tasks_own():
    assert learner().plan(HORIZON).context == "own"


# --- input ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"init_std": 0.01}, "must not be below min_std"),
        ({"core": {**CORES["transformer"], "bptt_steps": 5}}, "bptt_steps"),
        ({"core": {**CORES["transformer"], "num_heads": 3}}, "must divide hidden_dim"),
        ({"fine_tuning": {"steps": 1}}, "set memory: none"),
        ({"minibatches": 13}, "must not exceed the trials of an iteration"),
        ({"memory": "none", "episode_credit": "horizon"}, "does not apply to memory none"),
        ({"episode_credit": "none", "episode_gamma": 0.5}, "does not apply to episode_credit none"),
        ({"memory": "none", "episode_gamma": 0.5}, "nor to memory none"),
        ({"episodes_per_trial": 1, "episode_gamma": 0.5}, "do not apply to episodes_per_trial 1"),
        ({"episodes_per_trial": 1, "episode_credit": "elapsed"}, "do not apply to episodes_per_trial 1"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(options, message):
    with pytest.raises(ValidationError, match=message):
        learner(**options)
