"""An agent: a trained policy that acts on a robot, step by step, and adapts to the task that the robot is on.

    begin_task -> [ (act -> the robot moves -> observe) x T -> end_episode ] x any number of episodes

It is the loop of `metarl.rollout.collect` turned inside out: the same calls of the same policy in the same order, so
that the same seed gives the same actions. Shape letters: K robots, S episodes of a round, O observation, A action.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

from metarl.agent.interface import Interface
from metarl.agent.rounds import Recorder, episodes_of, episodes_until_adaptation, side_by_side
from metarl.agent.saving import Saved, read_saved, write_saved
from metarl.agent.status import Status
from metarl.errors import AgentError
from metarl.kernels.parallel import torch_threads
from metarl.rollout import seeds
from metarl.rollout.policy import AdaptivePolicy
from metarl.rollout.types import Episodes, Extras, Transition, TrialPlan, Weights


@dataclass
class _Step:
    """A step under way: what was acted on and how, and what came of it once that is known. All [K, 1, ...]."""

    observations: np.ndarray
    actions: np.ndarray
    logged: Extras
    outcome: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None  # rewards, terminated, truncated


@dataclass
class _Task:
    """Everything that changes while the robots are on a task."""

    policy: Any  # the policy's state
    at_round_start: Any  # the policy's state there, where the round has several episodes
    finished: list[Episodes]  # of the round under way
    step: _Step | None = None
    episode: int = 0  # ended ones
    round: int = 0  # ended ones
    adaptations: int = 0


class Agent:
    """A policy with its weights, on one robot or on `num_robots` side by side. Get one from `metarl.load_agent`.

    With several robots arguments and results have a leading axis [K]; their episodes begin together, and a robot whose
    episode has ended waits for the others: what is given for it is ignored, and its action means nothing.
    Errors are AgentError, and leave the agent as it was.
    """

    def __init__(
        self,
        policy: AdaptivePolicy[Any],
        weights: Weights,
        plan: TrialPlan,
        interface: Interface,
        *,
        seed: int = 0,
        identity: dict[str, Any] | None = None,
    ):
        self.policy, self.weights, self.plan, self.interface = policy, weights, plan, interface
        self.identity = dict(identity or {})
        self._rng = seeds.generators(seeds.deployment(seed))[1]
        self._recorder = Recorder(interface.num_rows, plan.horizon, interface.spaces)
        self._task: _Task | None = None

    @property
    def num_robots(self) -> int | None:
        """How many robots; None for a single one, whose arguments and results have no leading axis."""
        return self.interface.num_robots

    # --- the loop ------------------------------------------------------------------------------------

    def begin_task(self, seed: int | Sequence[int] | None = None) -> None:
        """Forget the task before, and begin the first episode on a new one.

        `seed`: of the actions on this task; a rollout's unit with this seed path acts alike. None: the agent's
        generator continues.
        """
        if seed is not None:
            path = (int(seed),) if isinstance(seed, int | np.integer) else tuple(int(s) for s in seed)
            self._rng = seeds.generators(path)[1]
        state = self.policy.begin_trial(self.weights, self.interface.num_rows, 1, self._rng)
        self._task = _Task(state, None, [])
        self._task.at_round_start = state if self._round[1] > 1 else None
        self._recorder.reset()

    def act(self, observation: Any, deterministic: bool | None = None) -> Any:
        """The action for `observation`, in the robot's own space and units.

        deterministic: the policy's mean or most likely action (True) or a sample (False). None: as the plan says,
        which explores where adaptation needs it.
        """
        task, recorder = self._on_a_task(), self._recorder
        step = task.step
        if step is not None and step.outcome is None:
            raise AgentError("act was called twice: call observe with what came of the first action before")
        if recorder.is_over:
            raise AgentError(f"the episode is over after {recorder.t} steps: call end_episode before act")
        obs = self.interface.observations(observation, recorder.running)
        if step is not None:
            self._complete(task, step, obs)
        obs = self._of_running(obs)
        chosen = self._round[0].deterministic if deterministic is None else deterministic
        actions, task.policy, logged = self.policy.act(task.policy, obs, self._rng, chosen)
        if not np.isfinite(actions).all():
            raise AgentError("the policy's action is not finite: its weights are damaged, or an adaptation diverged")
        recorder.observations = obs
        task.step = _Step(obs, actions, logged)
        return self.interface.action(actions)

    def observe(
        self, reward: Any, terminated: Any = False, truncated: Any = False, next_observation: Any = None
    ) -> None:
        """What came of the last action. An episode that has run for the plan's horizon is truncated.

        next_observation: what the robot sees afterwards. Needed where an episode ends, because its last step's value
        is read from it; elsewhere the next `act` brings it.
        """
        task, recorder = self._on_a_task(), self._recorder
        step = task.step
        if step is None:
            raise AgentError("observe was called before act: there is no action that anything could have come of")
        if step.outcome is not None:
            raise AgentError("observe was called twice for one action: call act, or end_episode, before")
        rewards = self.interface.rewards(reward, recorder.running)
        is_terminal = self.interface.flags(terminated, "terminated")
        is_cut = self.interface.flags(truncated, "truncated")
        if recorder.t == self.plan.horizon - 1:
            is_cut = is_cut | ~is_terminal
        outcome = rewards, is_terminal, is_cut
        if next_observation is None:
            if (recorder.running & (is_terminal | is_cut)).any():
                raise AgentError(
                    f"an episode ends with step {recorder.t + 1} (the horizon is {self.plan.horizon}): its last step "
                    "needs next_observation, which the policy reads what follows from"
                )
            step.outcome = outcome
            return
        obs = self.interface.observations(next_observation, recorder.running, "the next observation")
        step.outcome = outcome
        self._complete(task, step, obs)

    def end_episode(self, observation: Any = None) -> None:
        """The episode is over, also for robots that still ran, which are truncated; adapts where a round ends with it.

        observation: what the last step was followed by, where `observe` was not told.
        """
        task, recorder = self._on_a_task(), self._recorder
        step = task.step
        if step is not None and step.outcome is None:
            raise AgentError("end_episode was called after act: call observe with what came of the action before")
        if step is None and recorder.t == 0:
            raise AgentError("end_episode was called before the episode's first step")
        if step is not None:
            if observation is None:
                raise AgentError("the episode's last step needs the observation after it: end_episode(observation)")
            obs = self.interface.observations(observation, recorder.running)
            self._complete(task, step, obs)
        round_plan, num_episodes = self._round
        finished = [*task.finished, recorder.finished()]
        if len(finished) < num_episodes:
            task.policy, task.finished = task.at_round_start, finished
        else:
            with _one_thread():
                task.policy, _ = self.policy.end_round(task.policy, side_by_side(finished), round_plan.adapt)
            task.finished, task.round = [], task.round + 1
            task.adaptations += round_plan.adapt
            task.at_round_start = task.policy if self._round[1] > 1 else None
        task.episode += 1
        recorder.reset()

    @property
    def awaited_action(self) -> Any:
        """The action that `observe` is to be told of, in the robot's own units; None where `act` or `end_episode` is
        next. After `load_state` it says what the robot was to do."""
        step = self._on_a_task().step
        return None if step is None or step.outcome is not None else self.interface.action(step.actions)

    @property
    def episode_over(self) -> Any:
        """Whether the episode has ended: terminated, truncated, or at the horizon. A bool, or bool [K]."""
        over = ~self._recorder.running[:, 0]
        return bool(over[0]) if self.num_robots is None else over

    # --- what it knows -------------------------------------------------------------------------------

    @property
    def status(self) -> Status:
        """Where the agent is in its task: what it collects, and when it adapts. `str` gives a sentence."""
        task = self._on_a_task()
        return Status(
            episode=task.episode + 1,
            step=self._recorder.t,
            round=task.round + 1,
            episodes_until_adaptation=episodes_until_adaptation(self.plan, task.round, len(task.finished)),
            adaptations=task.adaptations,
            deterministic=self._round[0].deterministic,
            adapts_within_episodes=bool(getattr(self.policy, "adapts_within_episodes", False)),
        )

    @property
    def belief(self) -> dict[str, np.ndarray]:
        """What the policy has inferred of the task, by name, [...] or [K, ...]; empty where a policy describes nothing.

        PEARL: `mean` and `std` of the latent, and the `latent` in use. RL2: `memory`. The MAML family:
        `parameter_change`, the distance of the parameters from where the task began.
        """
        describe = getattr(self.policy, "describe", None)
        if describe is None:
            return {}
        return {name: self.interface.rows(value) for name, value in describe(self._on_a_task().policy).items()}

    @property
    def memory(self) -> np.ndarray | None:
        """The memory of a recurrent policy, [H] or [K, H]; None for policies without one."""
        return self.belief.get("memory")

    # --- across a restart ----------------------------------------------------------------------------

    def save_state(self, path: str | Path) -> None:
        """Write everything that has changed since the agent was loaded, in one file, on the disk when this returns.

        May be called between any two calls. AgentError where the state of a policy of your own holds what cannot be
        written: see `metarl.agent.saving`. The weights are not in it.
        """
        saved = Saved(self.identity, dict(self._rng.bit_generator.state), self._recorder.saved(), self._task)
        write_saved(Path(path), saved, self.weights)

    def load_state(self, path: str | Path) -> None:
        """Go on where `save_state` was called: the following actions are the same, bit for bit.

        AgentError where the file is of another run, checkpoint, plan or number of robots, or is damaged.
        """
        state = self.policy.begin_trial(self.weights, self.interface.num_rows, 1, _unused_generator())
        known = (state, self.policy, _Task, _Step, Episodes)
        saved = read_saved(Path(path), self.identity, known, self.weights)
        rng = _unused_generator()
        rng.bit_generator.state = saved.rng
        self._recorder.restore(saved.recorder)
        self._rng, self._task = rng, saved.task

    # --- parts ---------------------------------------------------------------------------------------

    @property
    def _round(self) -> Any:
        return episodes_of(self.plan, self._on_a_task().round)

    def _on_a_task(self) -> _Task:
        if self._task is None:
            raise AgentError("the agent is on no task: call begin_task before")
        return self._task

    def _of_running(self, obs: np.ndarray) -> np.ndarray:
        """`obs` where robots run; where they wait, what they saw last."""
        recorder = self._recorder
        return obs if recorder.running.all() else np.where(recorder.running[:, :, None], obs, recorder.observations)

    def _complete(self, task: _Task, step: _Step, obs: np.ndarray) -> None:
        """A whole transition: the policy sees it, the recorder keeps it. `obs` [K, 1, O] is what followed."""
        recorder = self._recorder
        assert step.outcome is not None
        rewards, terminated, truncated = step.outcome
        obs = self._of_running(obs)
        running = recorder.running
        if not running.all():
            rewards = np.where(running, rewards, np.float32(0))
            terminated, truncated = (
                np.where(running, now, before)
                for now, before in ((terminated, recorder.terminated), (truncated, recorder.truncated))
            )
        transition = Transition(step.observations, step.actions, rewards, obs, terminated, truncated, running)
        task.policy = self.policy.observe(task.policy, transition)
        recorder.store(step.observations, step.actions, rewards, step.logged, terminated, truncated)
        recorder.observations = obs
        task.step = None


def _unused_generator() -> np.random.Generator:
    return np.random.Generator(np.random.Philox(0))


@cache
def _thread_pools() -> ThreadpoolController:
    return ThreadpoolController()


@contextmanager
def _one_thread() -> Iterator[None]:
    """As rollout workers adapt: results then do not depend on the machine's number of processors."""
    with torch_threads(1), _thread_pools().limit(limits=1):
        yield
