"""RL2: credit over the trial, memory over its episodes, and acting equal to learning."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from pydantic import ValidationError

from metarl.algorithms.rl2.learner import RL2, Config, trial_advantages
from metarl.algorithms.rl2.policy import net_of
from metarl.algorithms.rl2.sequences import Sequences
from metarl.errors import ConfigError
from metarl.rollout.local import LocalExecutor
from metarl.rollout.policy import Spaces
from metarl.rollout.types import Round, TrialBatch, Unit
from metarl.tasks import Parameter, Task, TaskDistribution, Uniform

CPU = torch.device("cpu")
HORIZON = 5
SMALL = {"hidden_dim": 8, "encoded_obs_dim": 6, "head_dim": 5, "num_heads": 2, "minibatches": 2}


class Stops(TaskDistribution):
    """Episodes end in a terminal state after `length` steps; the observation is (step, noise), the reward the action
    less the step. What a trial holds can be read off its numbers."""

    name = "Stops"
    horizon = HORIZON

    def __init__(self, discrete: bool = False) -> None:
        self.parameters = (Parameter("length", Uniform(1.0, 9.0)),)
        self.discrete = discrete

    def make(self, task: Task) -> gymnasium.Env:
        return StopsEnv(int(task["length"]), self.discrete)  # type: ignore[arg-type]


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
    settings = {"tasks_per_iteration": 6, "num_streams": 2, **SMALL, **options}
    return RL2(Config(**settings), spaces or Spaces(2, 1), CPU, seed)


def tasks_of(lengths: list[float]) -> tuple[Task, ...]:
    return tuple(Task.of("Stops", {"length": length}) for length in lengths)


def collect(rl2: RL2, lengths: tuple[float, ...] = (2, 9, 4), iteration: int = 0, **options: Any) -> list[TrialBatch]:
    """One unit of three tasks x two streams: episodes of 2, 5 (the horizon) and 4 steps."""
    unit = Unit(0, tasks_of(list(lengths)), rl2.plan(HORIZON), (0, iteration, 0))
    return LocalExecutor(Stops(**options), rl2.policy).collect([unit], rl2.weights(), iteration)


# --- credit ---


def trial_of(rewards: list[list[float]], values: list[list[float]], terminated: list[bool]) -> TrialBatch:
    """One task, one stream; a list of rewards and of logged values per episode."""
    rounds = []
    for episode, logged, is_terminal in zip(rewards, values, terminated, strict=True):
        padding = [0.0] * (HORIZON - len(episode))
        r, v = (np.array([[row + padding]], np.float32) for row in (episode, logged))
        zeros = np.zeros((1, 1, HORIZON, 2), np.float32)
        lengths = np.array([[len(episode)]])
        ends = (np.array([[is_terminal]]), np.array([[not is_terminal]]))
        rounds.append(Round(zeros, zeros[..., :1], r, lengths, *ends, zeros[:, :, 0], {"value": v}))
    return TrialBatch(0, (), tuple(rounds), 0)


def advantages(trial: TrialBatch, last_value: float, gamma: float, gae_lambda: float) -> list[float]:
    result, _ = trial_advantages(Sequences.of([trial]), np.array([last_value], np.float32), gamma, gae_lambda)
    return [round(float(x), 6) for x in result[0]]


def test_a_reward_in_episode_two_reaches_episode_one_across_a_terminal_state():
    trial = trial_of([[0, 0], [0, 8]], [[0, 0], [0, 0]], terminated=[True, True])
    assert advantages(trial, 100.0, gamma=0.5, gae_lambda=1.0) == [1, 2, 4, 8]  # 8 / 2 per step back


def test_the_critic_of_the_next_episodes_first_step_is_the_bootstrap_of_the_last_step_before_it():
    trial = trial_of([[1, 2], [3]], [[10, 20], [40]], terminated=[False, True])
    # lambda 0: r + 0.5 v' - v = 1 + 10 - 10, 2 + 20 - 20, and 3 + 0 - 40 at the terminal end of the trial
    assert advantages(trial, 100.0, gamma=0.5, gae_lambda=0.0) == [1, 2, -37]


def test_a_time_limit_at_the_end_of_the_trial_bootstraps():
    trial = trial_of([[1, 2], [3]], [[10, 20], [40]], terminated=[False, False])
    assert advantages(trial, 100.0, gamma=0.5, gae_lambda=0.0) == [1, 2, 3 + 50 - 40]


def test_the_critics_target_is_the_discounted_return_of_the_trial_for_lambda_one():
    trial = trial_of([[0, 0], [0, 8]], [[3, 5], [7, 9]], terminated=[True, True])
    _, returns = trial_advantages(Sequences.of([trial]), np.zeros(1, np.float32), 0.5, 1.0)
    torch.testing.assert_close(returns[0], torch.tensor([1.0, 2, 4, 8]))


# --- sequences ---


def test_episodes_are_joined_without_gaps_and_padded_at_the_end():
    sequences = Sequences.of(collect(learner()))
    assert sequences.mask.sum(axis=1).tolist() == [4, 4, 10, 10, 8, 8]
    steps = sequences.observations[..., 0]
    assert steps[0].tolist() == [0, 1, 0, 1, 0, 0, 0, 0, 0, 0]
    assert steps[4].tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 0]
    assert np.flatnonzero(sequences.is_first[4]).tolist() == [0, 4]
    assert sequences.ended_by_time.tolist() == [False, False, True, True, False, False]
    assert (sequences.rewards[~sequences.mask] == 0).all()


def test_units_of_different_length_are_padded_alike():
    trials = collect(learner(), (2, 2, 2)) + collect(learner(), (9, 9, 9))
    assert Sequences.of(trials).mask.sum(axis=1).tolist() == [4] * 6 + [10] * 6


# --- acting = learning ---


@pytest.mark.parametrize("core", ["gru", "lstm", "transformer"])
@pytest.mark.parametrize("memory", ["trial", "none"])
@pytest.mark.parametrize("discrete", [False, True])
def test_the_learner_recomputes_what_the_actor_did_at_every_step(core, memory, discrete):
    rl2 = learner(Spaces(2, 3 if discrete else 1, discrete), core=core, memory=memory)
    for iteration in range(2):  # the second time with normalisers that have moved
        trials = collect(rl2, iteration=iteration, discrete=discrete)
        rl2.update(trials)
    trials = collect(rl2, iteration=2, discrete=discrete)
    sequences = Sequences.of(trials)
    data, _ = rl2._tensors(sequences, trials)
    distribution, values = rl2.net.forward(rl2._params, data.inputs)
    weights = rl2.weights()
    logged = torch.from_numpy(sequences.extras["value"])
    recomputed = (weights["value.mean"] + weights["value.std"] * values.detach().numpy()).T
    np.testing.assert_allclose(recomputed[sequences.mask], logged[sequences.mask], atol=1e-4)
    kl = data.behaviour.kl(distribution) * data.mask
    assert float(kl.abs().max()) < 1e-6


def inputs_of(rl2: RL2, trials: list[TrialBatch]) -> np.ndarray:
    """Normalisers are fresh, so that inputs are the raw numbers: [B, T, obs 2 | action 1 | reward | boundary]."""
    return rl2._tensors(Sequences.of(trials), trials)[0].inputs.transpose(0, 1).numpy()


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
        arrays = {n: v[order] for n, v in vars(round_).items() if n not in ("extras", "derived")}
        return Round(
            **arrays,
            extras={n: v[order] for n, v in round_.extras.items()},
            derived={n: v[order] for n, v in round_.derived.items()},
        )

    first = one.update([trial])
    second = other.update([TrialBatch(0, trial.tasks, tuple(permuted(r) for r in trial.rounds), 0)])
    assert first == pytest.approx(second, rel=1e-4, abs=1e-6)
    for name, value in one.weights().items():
        np.testing.assert_allclose(value, other.weights()[name], atol=2e-5, err_msg=name)


# --- learning ---


def test_moving_the_value_normaliser_leaves_the_critic_as_it_was():
    rl2 = learner()
    trials = collect(rl2)
    sequences = Sequences.of(trials)
    data, returns = rl2._tensors(sequences, trials)

    def critic() -> np.ndarray:
        weights = rl2.weights()
        _, values = rl2.net.forward({n: torch.from_numpy(v) for n, v in net_of(weights).items()}, data.inputs)
        return weights["value.mean"] + weights["value.std"] * values.detach().numpy()

    before = critic()
    rl2._move_value_normaliser(returns)
    assert rl2.weights()["value.std"] != 1
    np.testing.assert_allclose(critic(), before, atol=1e-4)


def test_normalisers_hold_the_mean_and_deviation_of_the_real_steps_seen():
    rl2 = learner()
    trials = collect(rl2)
    rl2.update(trials)
    sequences = Sequences.of(trials)
    seen = np.concatenate((sequences.observations[sequences.mask], sequences.rewards[sequences.mask][:, None]), axis=1)
    np.testing.assert_allclose(rl2.weights()["inputs.mean"], seen.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(rl2.weights()["inputs.std"], seen.std(axis=0), atol=1e-5)


def test_the_learning_rate_falls_linearly_to_zero():
    rl2 = learner(lr=0.5, lr_decay_iterations=4)
    rates = []
    for _ in range(5):
        rl2._set_lr()
        rates.append(rl2._optimiser.param_groups[0]["lr"])
        rl2._num_updates += 1
    assert rates == [0.5, 0.375, 0.25, 0.125, 0.0]


def test_an_update_stops_when_the_policy_has_moved_far_enough():
    far, near = learner(epochs=50, lr=0.01, max_kl=1e-3), learner(epochs=50, lr=0.01)
    trials = collect(far)
    assert far.update(trials)["gradient_steps"] < near.update(trials)["gradient_steps"] == 100


def test_means_beyond_the_action_range_are_drawn_back_and_those_within_are_left_alone():
    rl2 = learner(entropy_coef=0.0, value_coef=0.0, bound_coef=1.0)
    trials = collect(rl2)
    data = rl2._tensors(Sequences.of(trials), trials)[0]
    data = replace(data, advantages=torch.zeros_like(data.advantages))

    def largest_mean() -> float:
        return float(rl2.net.forward(rl2._params, data.inputs)[0][0].abs().max())

    rl2._params["policy.b1"].data.fill_(0.5)
    assert rl2._step(data)["gradient_norm"] == 0
    rl2._params["policy.b1"].data.fill_(3.0)
    before = largest_mean()
    assert rl2._step(data)["gradient_norm"] > 0
    assert 1 < largest_mean() < before


def test_truncated_backpropagation_gives_other_gradients_on_the_same_loss():
    whole, cut = learner(), learner(bptt_steps=2)
    trials = collect(whole)
    for rl2 in (whole, cut):
        rl2._step(rl2._tensors(Sequences.of(trials), trials)[0])
    first, second = (rl2._optimiser.param_groups[0]["params"][0].grad for rl2 in (whole, cut))
    assert not torch.allclose(first, second)


def test_fine_tuning_changes_each_tasks_policy_in_evaluation_only():
    rl2 = learner(memory="none", fine_tune_steps=3, fine_tune_lr=0.5)
    assert not any(r.adapt for r in rl2.plan(HORIZON).rounds)
    plan = rl2.plan(HORIZON, evaluation=True)
    unit = Unit(0, tasks_of([9, 9]), plan, (0, 0, 0))
    (trial,) = LocalExecutor(Stops(), rl2.policy).collect([unit], rl2.weights(), 0)
    before, after = (r.derived["log_std"] for r in trial.rounds)
    assert (before[0] == before[1]).all()
    assert (after[0] != after[1]).any()


def test_fine_tuning_raises_the_likelihood_of_what_paid():
    """The reward is the action less the step: after steps on its own episodes the policy's mean must have risen."""
    rl2 = learner(memory="none", fine_tune_steps=20, fine_tune_lr=0.3, num_streams=30)
    unit = Unit(0, tasks_of([9]), rl2.plan(HORIZON, evaluation=True), (0, 0, 0))
    (trial,) = LocalExecutor(Stops(), rl2.policy).collect([unit], rl2.weights(), 0)
    assert trial.rounds[1].extras["mean"].mean() > trial.rounds[0].extras["mean"].mean() + 0.1


# --- context at test ---


def means(rl2: RL2, context: str, **options: Any) -> np.ndarray:
    """What a policy with the same weights and this context does in its second episode."""
    unit = Unit(0, tasks_of([9, 9, 9]), rl2.plan(HORIZON, evaluation=True), (0, 0, 0))
    policy = learner(context=context, **options).policy
    (trial,) = LocalExecutor(Stops(), policy).collect([unit], rl2.weights(), 0)
    return trial.rounds[1].extras["mean"]


def test_blank_and_shuffled_contexts_change_what_the_policy_does():
    rl2 = learner()
    for iteration in range(3):
        rl2.update(collect(rl2, iteration=iteration))
    own, blank, shuffled = (means(rl2, context) for context in ("own", "blank", "shuffled"))
    assert np.abs(own - blank).max() > 1e-4
    assert np.abs(own - shuffled).max() > 1e-4
    assert np.abs(blank - shuffled).max() > 1e-4


def test_a_context_means_nothing_to_a_policy_without_memory():
    rl2 = learner(memory="none")
    own, blank = (means(rl2, context, memory="none") for context in ("own", "blank"))
    np.testing.assert_array_equal(own, blank)


def test_shuffling_needs_another_task():
    unit = Unit(0, tasks_of([9]), learner().plan(HORIZON, evaluation=True), (0, 0, 0))
    with pytest.raises(ConfigError, match="needs two tasks or more"):
        LocalExecutor(Stops(), learner(context="shuffled").policy).collect([unit], learner().weights(), 0)


def test_training_with_a_context_that_is_for_evaluations_is_refused():
    with pytest.raises(ConfigError, match="is for evaluations"):
        learner(context="blank").update(collect(learner()))


# --- input ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"init_std": 0.01}, "must not be below min_std"),
        ({"core": "transformer", "bptt_steps": 5}, "not for core: transformer"),
        ({"core": "transformer", "num_heads": 3}, "must divide hidden_dim"),
        ({"fine_tune_steps": 1}, "set memory: none"),
        ({"minibatches": 13}, "must not exceed the trials of an iteration"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(options, message):
    with pytest.raises(ValidationError, match=message):
        learner(**options)
