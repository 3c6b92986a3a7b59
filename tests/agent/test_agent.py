"""Agents beyond the contract: misuse, spaces, rounds of several episodes, long tasks, restarts."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete

import metarl
from metarl.agent.agent import Agent
from metarl.agent.interface import Interface
from metarl.agent.loading import deployment_plan
from metarl.agent.rounds import episodes_until_adaptation
from metarl.algorithms.base import EvaluationSettings
from metarl.algorithms.registry import build_algorithm, load_algorithm, resolve_preset
from metarl.errors import AgentError, ConfigError
from metarl.rollout.spaces import Spaces
from metarl.rollout.types import RoundPlan, Transition, TrialPlan
from metarl.tasks import load_distribution
from tests.agent.following import Watched, agent_for, assert_same, follow, rollout
from tests.run_contents import EXPERIMENTS

POINT_GOAL = load_distribution("PointGoal", horizon=3)
SMALL: dict[str, dict[str, Any]] = {
    "promp": {"hidden": [8, 8], "num_streams": 4},
    "rl2": {"core": {"name": "gru", "hidden_dim": 8}, "encoded_obs_dim": 8, "head_dim": 8, "minibatches": 1},
    "pearl": {"hidden_dim": 8, "encoder": {"name": "permutation_invariant", "hidden_dim": 8}},
}
PRETRAINED = EXPERIMENTS / "pretrained"


def algorithm_of(name: str, spaces: Spaces | None = None, **changes: Any) -> Any:
    section = resolve_preset({"name": name, **SMALL[name], **changes})
    plugin: Any = load_algorithm(section["name"])
    return build_algorithm(plugin.config(**section), spaces or Spaces(2, 2), torch.device("cpu"), 0)


def small_agent(robots: int | None = None, horizon: int = 3) -> Agent:
    algorithm = algorithm_of("rl2")
    plan = algorithm.evaluation_plan(horizon, EvaluationSettings(1))
    return agent_for(algorithm, POINT_GOAL, plan, robots)


# --- misuse ------------------------------------------------------------------------------------------

OBS = np.zeros(2)


def begun(agent: Agent, *, acted: int = 0, observed: int = 0) -> Agent:
    """On a task, after so many calls of act and of observe."""
    agent.begin_task()
    for i in range(max(acted, observed)):
        if i < acted:
            agent.act(OBS)
        if i < observed:
            agent.observe(0.0, next_observation=OBS)
    return agent


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: small_agent().act(OBS), "call begin_task before"),
        (lambda: small_agent().observe(0.0), "call begin_task before"),
        (lambda: small_agent().end_episode(), "call begin_task before"),
        (lambda: small_agent().status, "call begin_task before"),
        (lambda: begun(small_agent(), acted=1).act(OBS), "act was called twice"),
        (lambda: begun(small_agent()).observe(0.0), "before act"),
        (lambda: begun(small_agent(), acted=1, observed=1).observe(0.0), "before act"),
        (lambda: begun(small_agent(), acted=1).end_episode(), "call observe"),
        (lambda: begun(small_agent()).end_episode(), "before the episode's first step"),
        (lambda: begun(small_agent(), acted=3, observed=3).act(OBS), "the episode is over after 3 steps"),
        (lambda: begun(small_agent()).act(np.zeros(3)), r"must be in Box.*an array of shape \(3,\)"),
        (lambda: begun(small_agent()).act(np.array([0, np.nan])), "is nan in dimension 1; it must be finite"),
        (lambda: begun(small_agent()).act(np.array([1e39, 0])), "too large for float32 in dimension 0"),
        (lambda: begun(small_agent()).act("left"), "got str 'left'"),
        (lambda: begun(small_agent(), acted=1).observe(np.nan), "the reward is nan"),
        (lambda: begun(small_agent(), acted=1).observe([1.0, 2.0]), "reward must be a single value"),
        (lambda: begun(small_agent(), acted=1).observe("high"), "reward must be a number"),
        (lambda: begun(small_agent(), acted=1).observe(0.0, 0.5), "terminated must be True or False"),
        (lambda: begun(small_agent(), acted=1).observe(0.0, True), "needs next_observation"),
        (lambda: begun(small_agent(), acted=1).observe(0.0, next_observation=[np.inf, 0]), "next observation is inf"),
        (lambda: begun(small_agent(3)).act(OBS), "one row per robot"),
        (lambda: begun(small_agent(2)).act(np.array([[0, 0], [0, np.nan]])), "dimension 1 for robot 1"),
        (lambda: small_agent(0), "robots = 0: must be at least 1"),
    ],
)
def test_misuse_is_an_error_that_says_what_to_call(call: Any, says: str) -> None:
    with pytest.raises(AgentError, match=says):
        call()


def test_an_error_leaves_the_agent_as_it_was() -> None:
    troubled, calm = (begun(small_agent()) for _ in range(2))
    for wrong in (lambda: troubled.act(np.zeros(3)), lambda: troubled.observe(1.0), lambda: troubled.act([0, np.nan])):
        with pytest.raises(AgentError):
            wrong()
    np.testing.assert_array_equal(troubled.act(OBS), calm.act(OBS))
    with pytest.raises(AgentError):
        troubled.observe(np.nan, next_observation=OBS)
    with pytest.raises(AgentError):
        troubled.observe(1.0, True)
    for agent in (troubled, calm):
        agent.observe(1.0)
    np.testing.assert_array_equal(troubled.act(OBS), calm.act(OBS))


def test_the_last_step_of_an_episode_that_is_ended_early_needs_what_followed() -> None:
    agent = begun(small_agent(), acted=1)
    agent.observe(1.0)
    with pytest.raises(AgentError, match="needs the observation after it"):
        agent.end_episode()
    agent.end_episode(OBS)
    assert agent.status.episode == 2


def test_numbers_given_for_a_robot_that_waits_are_ignored() -> None:
    agents = [small_agent(2), small_agent(2)]
    actions = []
    for agent, ignored in zip(agents, (0.0, np.nan), strict=True):
        agent.begin_task(1)
        agent.act(np.zeros((2, 2)))
        ends = np.array([False, True])
        agent.observe(np.zeros(2), ends, np.zeros(2, bool), np.zeros((2, 2)))
        assert agent.episode_over.tolist() == [False, True]
        agent.act(np.array([[0.1, 0.2], [ignored, ignored]]))
        agent.observe(np.array([1.0, ignored]), np.zeros(2, bool), np.zeros(2, bool), np.zeros((2, 2)))
        agent.end_episode()
        actions.append(agent.act(np.ones((2, 2))))
    np.testing.assert_array_equal(*actions)


# --- spaces ------------------------------------------------------------------------------------------

ARM = Dict({"joints": Box(-4, 4, (2, 2)), "gripper": Discrete(3)})  # flat: gripper one-hot, then joints
SEEN = {"joints": np.arange(4.0).reshape(2, 2), "gripper": 1}
FLAT = np.array([0, 1, 0, 0, 1, 2, 3.0])


def echo_agent(action_space: Any, robots: int | None = None, first_action: Any = 0.5) -> tuple[Agent, Watched]:
    """An agent whose policy always acts the same, in the policy's units."""

    class Constant:
        def begin_trial(self, *_: Any) -> None: ...

        def act(self, state: None, observations: np.ndarray, *_: Any) -> Any:
            shape = observations.shape[:2] if interface.spaces.discrete else (*observations.shape[:2], 2)
            kind = np.int64 if interface.spaces.discrete else np.float32
            return np.full(shape, first_action, kind), None, {}

        def observe(self, state: None, transition: Transition) -> None: ...

        def end_round(self, *_: Any) -> Any:
            return None, {}

    interface = Interface(ARM, action_space, robots)
    watched = Watched(Constant())
    return Agent(watched, {}, TrialPlan(1, 5, (RoundPlan("support"),)), interface), watched


def test_actions_come_in_the_robots_own_units_and_observations_may_be_nested() -> None:
    agent, watched = echo_agent(Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 10.0], np.float32)))
    agent.begin_task()
    action = agent.act(SEEN)
    np.testing.assert_array_equal(action, [1.0, 7.5])  # 0.5 of [-1, 1] in [-2, 2] and in [0, 10]
    assert action.dtype == np.float32
    agent.observe(0.0, next_observation=FLAT)
    (step,) = watched.transitions
    np.testing.assert_array_equal(step.observations[0, 0], FLAT)
    np.testing.assert_array_equal(step.next_observations[0, 0], FLAT)


def test_a_discrete_action_starts_where_the_robots_space_does() -> None:
    agent, _ = echo_agent(Discrete(4, start=10), first_action=2)
    agent.begin_task()
    assert agent.act(SEEN) == 12


def test_every_robot_may_have_action_bounds_of_its_own() -> None:
    spaces = [Box(-1, 1, (2,)), Box(-4, 4, (2,))]
    agent, _ = echo_agent(spaces, robots=2)
    agent.begin_task()
    np.testing.assert_array_equal(agent.act([SEEN, SEEN]), [[0.5, 0.5], [2.0, 2.0]])
    with pytest.raises(AgentError, match="2 action spaces were given for 3 robots"):
        Interface(ARM, spaces, 3)


# --- rounds ------------------------------------------------------------------------------------------


@dataclass
class Replaying:
    """A policy that acts as another one did, episode by episode; it adapts by itself."""

    policy: Any
    actions: np.ndarray  # [S, T, A]
    count: int = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.policy, name)

    def act(self, state: Any, observations: np.ndarray, rng: np.random.Generator, deterministic: bool) -> Any:
        _, state, logged = self.policy.act(state, observations, rng, deterministic)
        row = self.actions.reshape(-1, self.actions.shape[-1])[self.count]
        self.count += 1
        return row[None, None], state, logged


def test_a_round_of_several_streams_is_as_many_episodes_in_a_row() -> None:
    """MAML adapts to four streams at once; a robot that saw and did the same in four episodes adapts alike."""
    algorithm = algorithm_of("promp")
    plan = deployment_plan(algorithm, 3, EvaluationSettings(1))
    assert plan.num_streams == 4
    (task,) = POINT_GOAL.sample("test", 1, 0)
    theirs = rollout(algorithm, POINT_GOAL, (task,), plan, (5,))
    support = theirs.rounds[0]
    mine = Watched(Replaying(algorithm.policy, support.actions[0]))
    agent = agent_for(algorithm, POINT_GOAL, plan, None, mine)
    agent.begin_task()
    for s in range(4):
        assert agent.status.episodes_until_adaptation == 4 - s
        for t in range(3):
            agent.act(support.observations[0, s, t])
            agent.observe(float(support.rewards[0, s, t]), next_observation=support.next_observations[0, s, t])
        agent.end_episode()
    assert agent.status.adaptations == 1
    assert agent.belief["parameter_change"] > 0
    for name in ("observations", "actions", "rewards", "lengths", "terminated", "truncated", "last_observations"):
        np.testing.assert_array_equal(getattr(mine.rounds[0], name), getattr(support, name))
    np.testing.assert_allclose(mine.derived[0]["advantages"], theirs.derived[0]["advantages"], atol=1e-6)
    judged = theirs.rounds[1]  # with means
    agent.policy = algorithm.policy
    action = agent.act(judged.observations[0, 0, 0])
    np.testing.assert_allclose(action, 0.1 * judged.actions[0, 0, 0].clip(-1, 1), atol=1e-6)  # metres


def test_the_plan_says_after_how_many_episodes_the_policy_adapts() -> None:
    collects, adapts = RoundPlan("support", adapt=False), RoundPlan("support", support_streams=3)
    plan = TrialPlan(5, 10, (collects, adapts, RoundPlan("query", adapt=False)))
    counts = [episodes_until_adaptation(plan, *where) for where in ((0, 0), (1, 0), (1, 2), (2, 0), (9, 0))]
    assert counts == [4, 3, 1, None, None]


def test_the_status_says_what_is_collected_and_when_it_is_adapted_to() -> None:
    agent = metarl.load_agent(PRETRAINED / "half_cheetah_dir_promp", support_episodes=2, horizon=1)
    agent.begin_task()
    said = [str(agent.status)]
    for _ in range(2):
        agent.act(np.zeros(17))
        agent.observe(0.0, next_observation=np.zeros(17))
        agent.end_episode()
        said.append(str(agent.status))
    assert said == [
        "episode 1, step 0: sampled actions; has not adapted yet: collects, and adapts when 2 episodes have ended, "
        "this one included",
        "episode 2, step 0: sampled actions; has not adapted yet, and adapts when this episode ends",
        "episode 3, step 0: most likely actions; has adapted once and does not adapt to further episodes",
    ]


def test_pearl_goes_on_believing_what_it_sees_after_the_plans_last_round() -> None:
    agent = metarl.load_agent(PRETRAINED / "point_goal_pearl", horizon=2)
    agent.begin_task()
    widths = [agent.belief["std"].max()]
    for _ in range(6):
        for _ in range(2):
            agent.act(np.zeros(2))
            agent.observe(-0.5, next_observation=np.zeros(2))
        agent.end_episode()
        widths.append(agent.belief["std"].max())
    assert agent.status.adaptations == 6
    assert widths[0] == 1
    assert widths == sorted(widths, reverse=True)
    assert len(set(widths)) == 7


def test_more_support_than_an_algorithm_can_use_is_refused() -> None:
    with pytest.raises(ConfigError, match="support_episodes"):
        metarl.load_agent(PRETRAINED / "point_goal_pearl", support_episodes=3, rounds=2)
    with pytest.raises(AgentError, match="horizon = 0"):
        metarl.load_agent(PRETRAINED / "point_goal_pearl", horizon=0)


def test_a_transformers_memory_is_followed_and_saved_like_any_other(tmp_path: Path) -> None:
    algorithm = algorithm_of("rl2", core={"name": "transformer", "hidden_dim": 8, "num_heads": 2})
    plan = algorithm.evaluation_plan(3, EvaluationSettings(1, 40))  # longer than its cache at first
    trials = POINT_GOAL, POINT_GOAL.sample("test", 2, 0), plan, (8,)
    assert_same(follow(algorithm, *trials), rollout(algorithm, *trials))
    agent, other = (begun(agent_for(algorithm, POINT_GOAL, plan, None), acted=2, observed=2) for _ in range(2))
    agent.save_state(tmp_path / "state")
    other.begin_task()
    other.load_state(tmp_path / "state")
    assert agent.belief["steps"] == 2
    np.testing.assert_array_equal(agent.act(OBS), other.act(OBS))


# --- long tasks --------------------------------------------------------------------------------------

LONG_TASKS = ["rl2", *(pytest.param(name, marks=pytest.mark.slow) for name in ("promp", "pearl"))]


@pytest.mark.parametrize("name", LONG_TASKS)
def test_after_a_thousand_episodes_it_still_acts_as_a_rollout_of_a_thousand_rounds(name: str) -> None:
    algorithm = algorithm_of(name)
    plan = algorithm.evaluation_plan(3, EvaluationSettings(1, 1) if name == "promp" else EvaluationSettings(1))
    support, query = plan.rounds[0], plan.rounds[-1]
    long = replace(plan, rounds=(*[support] * 999, query))
    trials = POINT_GOAL, POINT_GOAL.sample("test", 1, 0), long, (8,)
    assert_same(follow(algorithm, *trials), rollout(algorithm, *trials))


@pytest.mark.parametrize("name", LONG_TASKS)
def test_a_thousand_episodes_on_one_task_take_no_more_memory_than_a_hundred(name: str) -> None:
    algorithm = algorithm_of(name)
    plan = deployment_plan(algorithm, 3, EvaluationSettings(1))
    agent = agent_for(algorithm, POINT_GOAL, replace(plan, rounds=plan.rounds[:1]), None)  # adapts for ever
    agent.begin_task()
    held = []
    tracemalloc.start()
    try:
        for episode in range(1000):
            for _ in range(3):
                agent.act(OBS)
                agent.observe(0.1, next_observation=OBS)
            agent.end_episode()
            if episode in (99, 999):
                held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert held[1] - held[0] < 90_000  # bytes, of which an episode that is kept takes a thousand


# --- restarts ----------------------------------------------------------------------------------------


def test_a_state_of_another_agent_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    first, second = PRETRAINED / "point_goal_pearl", PRETRAINED / "sparse_point_rl2"
    agent = metarl.load_agent(first)
    agent.begin_task()
    path = tmp_path / "state"
    agent.save_state(path)
    for other, says in (
        (metarl.load_agent(second), "the state of another agent: it has another algorithm, with name='pearl', not"),
        (metarl.load_agent(second), "task distribution .*PointGoal.*; another plan, with horizon=20, not horizon=100"),
        (metarl.load_agent(first, robots=1), "it has robots None, not 1"),
        (metarl.load_agent(first, rounds=9), "it has another plan, with role='query', not role='support'"),
    ):
        with pytest.raises(AgentError, match=says) as raised:
            other.load_state(path)
        assert len(str(raised.value).removeprefix(str(path))) < 350
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(AgentError, match="is damaged"):
        agent.load_state(path)
    with pytest.raises(AgentError, match="no such file"):
        agent.load_state(tmp_path / "nothing")


def test_a_state_with_something_that_has_no_form_is_refused_by_its_place(tmp_path: Path) -> None:
    class Queueing(Watched):
        def begin_trial(self, *arguments: Any) -> Any:
            return {"recent": [deque([1, 2])]}

    agent, watched = echo_agent(Box(-1, 1, (2,)))
    agent.policy = Queueing(watched)
    agent.begin_task()
    with pytest.raises(AgentError, match=r"task\.policy\['recent'\]\[0\] is of collections\.deque"):
        agent.save_state(tmp_path / "state")
    assert not list(tmp_path.iterdir())


def test_a_saved_array_keeps_its_order_in_memory_and_its_type(tmp_path: Path) -> None:
    held = {
        "columns": np.arange(6.0).reshape(2, 3).T,
        "planes": np.arange(24, dtype=np.int8).reshape(2, 3, 4).transpose(1, 2, 0),
        "flags": np.array([True, False]),
        "one": np.float32(0.1),
        "tensor": torch.arange(3),
        "nothing": (None, True, 3, 1e-300, "text", [np.uint64(2**64 - 1)]),
    }

    class Holding(Watched):
        def begin_trial(self, *arguments: Any) -> Any:
            return dict(held)

    agent, watched = echo_agent(Box(-1, 1, (2,)))
    agent.policy = Holding(watched)
    agent.begin_task()
    agent.save_state(tmp_path / "state")
    agent.load_state(tmp_path / "state")
    state = agent._task.policy  # type: ignore[union-attr]
    for name in ("columns", "planes", "flags", "one"):
        before: Any = held[name]
        np.testing.assert_array_equal(state[name], before)
        assert (state[name].dtype, state[name].strides) == (before.dtype, before.strides)
    tensor = held["tensor"]
    assert isinstance(tensor, torch.Tensor)
    assert torch.equal(state["tensor"], tensor)
    assert state["nothing"] == held["nothing"]


def test_loading_an_agent_imports_neither_ray_nor_tensorboard() -> None:
    script = (
        "import sys, numpy as np, metarl\n"
        f"agent = metarl.load_agent({str(PRETRAINED / 'point_goal_pearl')!r})\n"
        "agent.begin_task(); agent.act(np.zeros(2)); agent.observe(0.0, next_observation=np.zeros(2))\n"
        "agent.end_episode()\n"
        "print(sorted({'ray', 'tensorboard'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=600, check=False)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_an_agent_acts_on_a_vector_of_robots_as_on_each_of_them() -> None:
    path = PRETRAINED / "sparse_point_rl2"
    env: Any = metarl.make_env(path, num_envs=3)
    together, alone = metarl.load_agent(path, robots=3), [metarl.load_agent(path) for _ in range(3)]
    obs, _ = env.reset(seed=0)
    for agent in (together, *alone):
        agent.begin_task()
    for _ in range(5):
        actions = together.act(obs)
        for action, agent, row in zip(actions, alone, obs, strict=True):
            np.testing.assert_allclose(agent.act(row), action, atol=1e-5)
        obs, reward, terminated, truncated, _ = env.step(actions)
        together.observe(reward, terminated, truncated, obs)
        for i, agent in enumerate(alone):
            agent.observe(reward[i], terminated[i], truncated[i], obs[i])
    assert isinstance(env, gymnasium.vector.VectorEnv)
    env.close()
