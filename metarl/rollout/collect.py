"""The one loop: collect trials with an adaptive policy in a batched environment.

Training, evaluation and deployment share it.

        begin_trial -> [ reset -> (act -> step -> observe) x T -> end_round ] x R -> Round x R
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from metarl.errors import ConfigError
from metarl.rollout.answers import Answers
from metarl.rollout.padding import Steps
from metarl.rollout.policy import AdaptivePolicy, State, context_sources, is_ablatable
from metarl.rollout.spaces import Spaces, env_action_map
from metarl.rollout.types import Episodes, Round, RoundPlan, Transition, TrialPlan, Weights
from metarl.tasks import Task
from metarl.tasks.batch import TaskBatch


def collect_trials(
    policy: AdaptivePolicy[State],
    weights: Weights,
    batch: TaskBatch,
    plan: TrialPlan,
    env_rng: np.random.Generator,
    policy_rng: np.random.Generator,
) -> tuple[Round, ...]:
    """One trial on each of the batch's tasks: `batch` holds K x `plan.num_streams` environments, task by task.

    Raises EnvironmentFault naming the task, round, stream and step where the environment gives a reward or an
    observation that is not finite, before the policy sees it; TrainingError where what the policy gives is not.
    """
    assert batch.num_envs % plan.num_streams == 0
    state = _begin(policy, weights, batch.tasks[:: plan.num_streams], plan, policy_rng)
    adapts = plan.context == "own" or is_ablatable(policy)
    rounds = []
    for index, round_plan in enumerate(plan.rounds):
        answers = Answers(batch, plan.num_streams, index)
        state, episodes = _collect_round(policy, state, answers, plan, round_plan, env_rng, policy_rng)
        n = round_plan.support_streams
        given = episodes if n is None else episodes.of_streams(n)
        state, derived = policy.end_round(state, given, round_plan.adapt and adapts)
        rounds.append(Round.of(episodes, derived))
    return tuple(rounds)


def _begin(
    policy: AdaptivePolicy[State], weights: Weights, tasks: Sequence[Task], plan: TrialPlan, rng: np.random.Generator
) -> State:
    """The policy's state before the first episode; the context is passed on only where it is not the task's own.

    What adapts between rounds alone and knows no contexts has a blank one by adapting to no round.
    """
    sources = context_sources(tasks, plan.context)
    if sources is None:
        return policy.begin_trial(weights, len(tasks), plan.num_streams, rng)
    if is_ablatable(policy):
        return policy.begin_trial(weights, len(tasks), plan.num_streams, rng, context_of=sources)
    if plan.context == "blank" and plan.adapts == "between":
        return policy.begin_trial(weights, len(tasks), plan.num_streams, rng)
    allowed = "own, blank" if plan.adapts == "between" else "own"
    raise ConfigError(
        f"evaluation.context = {plan.context!r}: this algorithm's policy takes no `context_of`; allowed: {allowed}"
    )


def _collect_round(
    policy: AdaptivePolicy[State],
    state: State,
    answers: Answers,
    plan: TrialPlan,
    round_plan: RoundPlan,
    env_rng: np.random.Generator,
    policy_rng: np.random.Generator,
) -> tuple[State, Episodes]:
    batch = answers.batch
    spaces = Spaces.of(batch.single_observation_space, batch.single_action_space)
    K, N, T = batch.num_envs // plan.num_streams, plan.num_streams, plan.horizon
    steps = Steps(K, N, T, spaces)
    lengths = np.zeros((K, N), np.int64)
    terminated, truncated = np.zeros((K, N), bool), np.zeros((K, N), bool)
    running = np.ones((K, N), bool)
    success: np.ndarray | None = None

    to_env_action = env_action_map(batch.action_spaces)
    raw, _ = batch.reset(seed=int(env_rng.integers(2**63)))
    obs = answers.observations(raw, None)
    for t in range(T):
        action, state, logged = policy.act(state, obs, policy_rng, round_plan.deterministic)
        answers.require_finite_policy(action, logged, t)
        env_action = to_env_action(action.reshape(K * N, *action.shape[2:]))
        raw, step_rewards, *flags, info = batch.step(env_action)
        arrived_rewards, next_obs = answers.rewards(step_rewards, t), answers.observations(raw, t)
        is_terminal, is_cut = (flag.reshape(K, N) for flag in flags)
        is_cut = is_cut | (t == T - 1) & ~is_terminal
        step = Transition(obs, action, arrived_rewards, next_obs, is_terminal, is_cut, running)
        state = policy.observe(state, step)
        steps.store(t, obs, action, step.rewards, logged)
        step_success = answers.success(info)
        if step_success is not None:
            success = (running & step_success) | (False if success is None else success)
        lengths += running
        obs = next_obs
        if any(flag.any() for flag in flags):
            terminated |= running & step.terminated
            truncated |= running & step.truncated & ~step.terminated
            running = ~(terminated | truncated)
            if not running.any():
                break
    truncated |= running & ~terminated
    ends = lengths, terminated, truncated, obs
    return state, Episodes(*steps.padded_after(lengths), *ends, steps.extras, success=success)
