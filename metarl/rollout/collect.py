"""The one loop: collect trials with an adaptive policy in a batched environment.

Training, evaluation and deployment share it.

        begin_trial -> [ reset -> (act -> step -> observe) x T -> end_round ] x R -> Round x R
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

import gymnasium
import numpy as np

from metarl.errors import ConfigError, EnvironmentFault, TrainingError
from metarl.rollout.policy import AdaptivePolicy, Spaces, State, context_sources
from metarl.rollout.types import Episodes, Extras, Round, RoundPlan, Transition, TrialPlan, Weights
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

    Raises EnvironmentFault naming the task, round, stream and step where the environment gives a
    reward or an observation that is not finite, TrainingError where the policy's action is not.
    """
    assert batch.num_envs % plan.num_streams == 0
    state = _begin(policy, weights, batch.tasks[:: plan.num_streams], plan, policy_rng)
    rounds = []
    for index, round_plan in enumerate(plan.rounds):
        state, episodes = _collect_round(policy, state, batch, plan, round_plan, env_rng, policy_rng)
        _check_finite(episodes, batch, index)
        n = round_plan.support_streams
        state, derived = policy.end_round(state, episodes if n is None else episodes.of_streams(n), round_plan.adapt)
        rounds.append(Round.of(episodes, derived))
    return tuple(rounds)


def _begin(
    policy: AdaptivePolicy[State], weights: Weights, tasks: Sequence[Task], plan: TrialPlan, rng: np.random.Generator
) -> State:
    """The policy's state before the first episode; the context is passed on only where it is not the task's own."""
    sources = context_sources(tasks, plan.context)
    if sources is None:
        return policy.begin_trial(weights, len(tasks), plan.num_streams, rng)
    if "context_of" not in inspect.signature(policy.begin_trial).parameters:
        raise ConfigError(
            f"evaluation.context = {plan.context!r}: this algorithm's policy has no context; allowed: own"
        )
    return policy.begin_trial(weights, len(tasks), plan.num_streams, rng, context_of=sources)


def _collect_round(
    policy: AdaptivePolicy[State],
    state: State,
    batch: TaskBatch,
    plan: TrialPlan,
    round_plan: RoundPlan,
    env_rng: np.random.Generator,
    policy_rng: np.random.Generator,
) -> tuple[State, Episodes]:
    spaces = Spaces.of(batch.single_observation_space, batch.single_action_space)
    K, N, T = batch.num_envs // plan.num_streams, plan.num_streams, plan.horizon
    observations = np.zeros((K, N, T, spaces.obs_dim), np.float32)
    actions = np.zeros((K, N, T), np.int64) if spaces.discrete else np.zeros((K, N, T, spaces.action_dim), np.float32)
    rewards = np.zeros((K, N, T), np.float32)
    lengths = np.zeros((K, N), np.int64)
    terminated, truncated = np.zeros((K, N), bool), np.zeros((K, N), bool)
    running = np.ones((K, N), bool)
    extras: Extras = {}

    to_env_action = env_action_map(batch.single_action_space)
    raw, _ = batch.reset(seed=int(env_rng.integers(2**63)))
    obs = raw.astype(np.float32).reshape(K, N, -1)
    all_running = True
    for t in range(T):
        action, state, logged = policy.act(state, obs, policy_rng, round_plan.deterministic)
        if not np.isfinite(action).all():
            raise TrainingError(_policy_diverged(action, batch, N, t))
        raw, step_rewards, step_terminated, step_truncated, _ = batch.step(
            to_env_action(action.reshape(K * N, *action.shape[2:]))
        )
        next_obs = raw.astype(np.float32).reshape(K, N, -1)
        step = Transition(
            obs,
            action,
            step_rewards.astype(np.float32).reshape(K, N),
            next_obs,
            step_terminated.reshape(K, N),
            step_truncated.reshape(K, N) | (t == T - 1) & ~step_terminated.reshape(K, N),
            running,
        )
        state = policy.observe(state, step)
        for name, value in logged.items():
            if name not in extras:
                extras[name] = np.zeros((K, N, T, *value.shape[2:]), value.dtype)
            extras[name][:, :, t] = value
        observations[:, :, t], actions[:, :, t], rewards[:, :, t] = obs, action, step.rewards
        lengths += running
        obs = next_obs
        if step_terminated.any() or step_truncated.any():
            terminated |= running & step.terminated
            truncated |= running & step.truncated & ~step.terminated
            running = ~(terminated | truncated)
            all_running = False
            if not running.any():
                break
    truncated |= running & ~terminated
    if not all_running:
        _zero_padding(lengths, observations, actions, rewards, *extras.values())
    return state, Episodes(observations, actions, rewards, lengths, terminated, truncated, obs, extras)


def _zero_padding(lengths: np.ndarray, *arrays: np.ndarray) -> None:
    padding = np.arange(arrays[0].shape[2]) >= lengths[:, :, None]
    for array in arrays:
        array[padding] = 0


def env_action_map(space: gymnasium.Space) -> Callable[[np.ndarray], np.ndarray]:
    """Policy units to the environment's own: [-1, 1] to a bounded Box's range, clipped to it; 0, 1, ... to a
    Discrete space's own numbers; unbounded actions unchanged."""
    if isinstance(space, gymnasium.spaces.Discrete):
        return lambda actions: actions + space.start
    assert isinstance(space, gymnasium.spaces.Box)
    low, high = space.low, space.high
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        return lambda actions: actions
    if (low == -1).all() and (high == 1).all():
        return lambda actions: actions.clip(-1.0, 1.0)
    half_range = 0.5 * (high - low)
    return lambda actions: low + (actions.clip(-1.0, 1.0) + 1) * half_range


def _policy_diverged(action: np.ndarray, batch: TaskBatch, num_streams: int, step: int) -> str:
    k = int(np.argwhere(~np.isfinite(action))[0][0])
    return (
        f"the policy's action on {batch.tasks[k * num_streams]} is not finite at step {step}: "
        "its parameters diverged, after too large an inner or outer step"
    )


def _check_finite(episodes: Episodes, batch: TaskBatch, index: int) -> None:
    for what, bad in (
        ("reward", ~np.isfinite(episodes.rewards)),
        ("observation", ~np.isfinite(episodes.observations).all(axis=3)),
        ("observation", ~np.isfinite(episodes.last_observations).all(axis=2)[:, :, None]),
    ):
        if bad.any():
            k, n, t = (int(i) for i in np.argwhere(bad)[0])
            step = t if bad.shape[2] > 1 else int(episodes.lengths[k, n])
            task = batch.tasks[k * episodes.rewards.shape[1] + n]
            raise EnvironmentFault(f"{task}: {what} is not finite at step {step} of stream {n} in round {index}")
