"""The one loop, on environments whose numbers say where they come from."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest

from metarl.errors import ConfigError, EnvironmentFault, TrainingError
from metarl.rollout.collect import collect_trials, env_action_map
from metarl.rollout.types import Adapts, Context, Episodes, Extras, Round, RoundPlan, Transition, TrialPlan
from metarl.tasks import Parameter, Task, TaskDistribution, Uniform
from tests.toy import number


class Counter(gymnasium.Env):
    """Observation (episode, step); reward 10 * episode + step; ends in a terminal state after `length` steps."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,))
    action_space = gymnasium.spaces.Box(0.0, 4.0, (1,))

    def __init__(self, length: int, nan_at: int = -1, truncates: bool = False):
        self.length, self.nan_at, self.truncates, self.episode = length, nan_at, truncates, 0
        self.actions: list[float] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        self.episode, self.t = self.episode + 1, 0
        return np.array([self.episode, 0.0]), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.t += 1
        self.actions.append(float(action[0]))
        reward = np.nan if self.t == self.nan_at else 10.0 * self.episode + self.t
        is_over = self.t == self.length
        return np.array([self.episode, self.t]), reward, is_over and not self.truncates, is_over and self.truncates, {}


class Counters(TaskDistribution):
    name = "Counters"

    def __init__(self, nan_at: int = -1, truncates: bool = False):
        self.parameters, self.horizon = (Parameter("length", Uniform(1, 99)),), 5
        self.nan_at, self.truncates = nan_at, truncates
        self.made: list[Counter] = []

    def make(self, task: Task) -> gymnasium.Env:
        self.made.append(Counter(int(number(task["length"])), self.nan_at, self.truncates))
        return self.made[-1]


class Recorder:
    """A policy that acts 0.5 always and remembers how it was called. Its state counts calls."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def begin_trial(self, weights: Any, num_tasks: int, num_streams: int, rng: Any) -> int:
        self.calls.append(("begin", num_tasks, num_streams))
        return 0

    def act(
        self, state: int, observations: np.ndarray, rng: Any, deterministic: bool
    ) -> tuple[np.ndarray, int, Extras]:
        self.calls.append(("act", observations[:, :, :].copy(), deterministic))
        return (
            np.full((*observations.shape[:2], 1), 0.5, np.float32),
            state + 1,
            {"count": np.full(observations.shape[:2], state)},
        )

    def observe(self, state: int, transition: Transition) -> int:
        self.calls.append(("observe", transition))
        return state

    def end_round(self, state: int, episodes: Episodes, adapt: bool) -> tuple[int, Extras]:
        self.calls.append(("end", adapt))
        return state, {"state": np.full(episodes.rewards.shape[0], state)}


def run(
    lengths: list[int],
    streams: int = 1,
    rounds: int = 2,
    context: Context = "own",
    adapts: Adapts = "between",
    **options: Any,
) -> tuple[tuple[Round, ...], Recorder, Counters]:
    distribution, policy = Counters(**options), Recorder()
    tasks = [Task.of("Counters", {"length": float(length)}) for length in lengths]
    plans = (RoundPlan("support"),) * (rounds - 1) + (RoundPlan("query", adapt=False, deterministic=True),)
    batch = distribution.make_batch(tasks)
    plan = TrialPlan(streams, 5, plans, context, adapts)
    trial = collect_trials(policy, {}, batch, plan, np.random.default_rng(0), np.random.default_rng(1))
    return trial, policy, distribution


def test_rewards_observations_and_padding_stand_where_they_belong():
    (first, second), _, _ = run([3, 9])
    assert first.lengths.tolist() == [[3], [5]]
    assert first.rewards[:, 0].tolist() == [[11, 12, 13, 0, 0], [11, 12, 13, 14, 15]]
    assert second.rewards[1, 0].tolist() == [21, 22, 23, 24, 25]
    assert first.observations[0, 0].tolist() == [[1, 0], [1, 1], [1, 2], [0, 0], [0, 0]]
    assert first.mask.sum(axis=2).tolist() == [[3], [5]]
    assert first.returns.tolist() == [[36.0], [65.0]]
    assert first.num_steps == 8


def test_a_terminal_state_and_the_horizon_are_told_apart():
    (first, _), _, _ = run([3, 9])
    assert first.terminated.tolist() == [[True], [False]]
    assert first.truncated.tolist() == [[False], [True]]
    assert first.last_observations.tolist() == [[[1, 3]], [[1, 5]]]


def test_an_environments_own_time_limit_is_a_truncation():
    (first, _), _, _ = run([3, 9], truncates=True)
    assert first.lengths.tolist() == [[3], [5]]
    assert not first.terminated.any()
    assert first.truncated.all()


def test_termination_on_the_very_last_step_is_not_a_truncation():
    (first, _), _, _ = run([5])
    assert first.terminated.all()
    assert not first.truncated.any()


def test_a_new_round_shows_the_policy_the_new_episodes_first_observation():
    _, policy, _ = run([3, 3])
    acts = [call[1] for call in policy.calls if call[0] == "act"]
    assert acts[3][:, 0].tolist() == [[2, 0], [2, 0]]  # episodes of 3 steps: the fourth act opens round 2
    assert len(acts) == 6  # nobody is stepped once every stream has finished


def test_observe_marks_finished_streams_as_not_running():
    _, policy, _ = run([2, 4], rounds=1)
    running = [call[1].running[:, 0].tolist() for call in policy.calls if call[0] == "observe"]
    assert running == [[True, True], [True, True], [False, True], [False, True]]
    assert [call[1].truncated[1, 0] for call in policy.calls if call[0] == "observe"] == [False] * 4


def test_plan_decides_on_adaptation_and_means():
    _, policy, _ = run([5])
    assert [call[1] for call in policy.calls if call[0] == "end"] == [True, False]
    assert [call[2] for call in policy.calls if call[0] == "act"] == [False] * 5 + [True] * 5


def test_a_policy_that_knows_no_contexts_has_a_blank_one_by_adapting_to_no_round():
    _, policy, _ = run([5], context="blank")
    assert [call[1] for call in policy.calls if call[0] == "end"] == [False, False]


def test_a_context_that_a_policy_cannot_be_given_is_refused_with_those_that_it_can():
    with pytest.raises(ConfigError, match=r"evaluation.context = 'shuffled': .*; allowed: own, blank$"):
        run([5, 4], context="shuffled")
    with pytest.raises(ConfigError, match=r"evaluation.context = 'blank': .*; allowed: own$"):
        run([5], context="blank", adapts="within")


def test_state_is_handed_from_call_to_call_and_round_to_round():
    (first, second), _, _ = run([5])
    assert first.extras["count"][0, 0].tolist() == [0, 1, 2, 3, 4]
    assert second.extras["count"][0, 0].tolist() == [5, 6, 7, 8, 9]
    assert [r.derived["state"].tolist() for r in (first, second)] == [[5], [10]]


def test_actions_reach_the_environment_in_its_own_range_and_are_logged_in_policy_units():
    (first, _), _, distribution = run([5])
    assert set(distribution.made[0].actions) == {3.0}  # 0.5 of [-1, 1] is 3 of [0, 4]
    assert (first.actions == 0.5).all()


def test_actions_outside_the_range_are_clipped():
    box = gymnasium.spaces.Box(-2.0, 6.0, (1,))
    assert env_action_map(box)(np.array([[-9.0], [0.0], [9.0]])).tolist() == [[-2.0], [2.0], [6.0]]


def test_streams_of_a_task_stay_together():
    (first, _), policy, _ = run([2, 2, 4, 4], streams=2)
    assert policy.calls[0] == ("begin", 2, 2)
    assert first.lengths.tolist() == [[2, 2], [4, 4]]


def test_a_reward_that_is_not_finite_names_task_stream_round_and_step():
    with pytest.raises(
        EnvironmentFault, match=r"Counters\(length=9\): reward is not finite at step 3 of stream 0 in round 0"
    ):
        run([9], nan_at=4)


def test_an_action_that_is_not_finite_is_the_policys_fault_not_the_environments():
    class Diverged(Recorder):
        def act(self, state, observations, rng, deterministic):
            action, state, extras = super().act(state, observations, rng, deterministic)
            return np.where(state > 2, np.nan, action), state, extras

    batch = Counters().make_batch([Task.of("Counters", {"length": 9.0})])
    plan = TrialPlan(1, 5, (RoundPlan("query"),))
    with pytest.raises(TrainingError, match=r"the policy's action on Counters\(length=9\) is not finite at step 2"):
        collect_trials(Diverged(), {}, batch, plan, np.random.default_rng(0), np.random.default_rng(1))


def test_discrete_actions_reach_the_environment_in_its_own_numbers():
    assert env_action_map(gymnasium.spaces.Discrete(3, start=-1))(np.array([0, 1, 2])).tolist() == [-1, 0, 1]


class Recurrent:
    """A stand-in for RL2: a hidden count per stream that lives through episode ends, with a boundary flag."""

    def begin_trial(self, weights: Any, num_tasks: int, num_streams: int, rng: Any) -> dict[str, np.ndarray]:
        shape = (num_tasks, num_streams)
        return {"hidden": np.zeros(shape), "boundary": np.ones(shape), "alive": np.ones(shape, bool)}

    def act(self, state: Any, observations: np.ndarray, rng: Any, deterministic: bool) -> Any:
        hidden = np.where(state["alive"], state["hidden"] + 1, state["hidden"])
        extras = {"hidden": hidden, "boundary": state["boundary"]}
        return np.zeros((*hidden.shape, 1), np.float32), {**state, "hidden": hidden}, extras

    def observe(self, state: Any, transition: Transition) -> Any:
        over = transition.terminated | transition.truncated
        return {**state, "alive": transition.running & ~over, "boundary": np.zeros_like(state["boundary"])}

    def end_round(self, state: Any, episodes: Episodes, adapt: bool) -> tuple[Any, Extras]:
        return {**state, "alive": np.ones_like(state["alive"]), "boundary": np.ones_like(state["boundary"])}, {}


def test_a_recurrent_state_lives_through_episodes_and_rests_where_they_have_ended():
    batch = Counters().make_batch([Task.of("Counters", {"length": float(n)}) for n in (2, 4)])
    plan = TrialPlan(1, 5, (RoundPlan("support"), RoundPlan("query")))
    first, second = collect_trials(Recurrent(), {}, batch, plan, np.random.default_rng(0), np.random.default_rng(1))
    assert first.extras["hidden"][:, 0].tolist() == [[1, 2, 0, 0, 0], [1, 2, 3, 4, 0]]
    assert second.extras["hidden"][:, 0].tolist() == [[3, 4, 0, 0, 0], [5, 6, 7, 8, 0]]
    assert second.extras["boundary"][:, 0].tolist() == [[1, 0, 0, 0, 0], [1, 0, 0, 0, 0]]
