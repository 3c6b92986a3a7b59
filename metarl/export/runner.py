"""The loop of a task around exported graphs: what a robot's own program does, here to compare and to measure.

Everything it needs is in policy.json and initial_state.npz. `examples/run_exported_policy.py` is the same without this
package.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from metarl.export.formats import Call


class Runner:
    """One robot on a policy's graphs. `description` is the content of policy.json, `initial` that of initial_state.npz.

    begin_task -> [ (act -> observe) x T -> end_episode ] x any number of episodes, as for an agent. Observations are
    flat.
    """

    def __init__(
        self, act: Call, adapt: Call | None, description: Mapping[str, Any], initial: Mapping[str, np.ndarray]
    ):
        self._act, self._adapt, self.description, self._initial = act, adapt, description, dict(initial)
        inputs = description["graphs"]["policy"]["inputs"]
        self.noises = {port["name"]: port for port in inputs if "draw" in port}
        self._silence = {name: np.zeros(port["shape"], port["dtype"]) for name, port in self.noises.items()}
        ports = description["graphs"].get("adapt", {"inputs": []})["inputs"]
        self._reads_all = "adapts" in [port["name"] for port in ports]  # also rounds that are not adapted to
        self._rounds = description["rounds"]
        self.begin_task()

    def begin_task(self) -> None:
        """Forget the task before."""
        self.state = {f"state.{name}": value for name, value in self._initial.items()}
        self.round, self.episodes = 0, list[dict[str, np.ndarray]]()
        self._reward = np.zeros((1, 1), np.float32)
        self._begin_episode()

    def _begin_episode(self) -> None:
        self._first = np.ones((1, 1), np.float32)
        self._steps: list[tuple[np.ndarray, np.ndarray, float]] = []

    @property
    def is_deterministic(self) -> bool:
        """Whether the plan has the most likely action here: then no noise is to be given."""
        return bool(self._current["deterministic"])

    @property
    def _current(self) -> Mapping[str, Any]:
        current: Mapping[str, Any] = self._rounds[min(self.round, len(self._rounds) - 1)]
        return current

    def act(self, observation: np.ndarray, noise: Mapping[str, np.ndarray] | None = None) -> np.ndarray:
        """The action in the robot's units, [A] or a number; `noise` of the graph's noise inputs, by name."""
        obs = np.asarray(observation, np.float32)[None]
        given = {"observation": obs, "reward": self._reward, "first": self._first}
        found = self._act({**given, **self._silence, **(noise or {}), **self.state})
        for name, value in found.items():
            if name.startswith("next."):
                self.state["state" + name[4:]] = value
        self._acted = obs[0], found["policy_action"][0]
        self._first = np.zeros((1, 1), np.float32)
        action: np.ndarray = found["action"][0]
        return action

    @property
    def policy_action(self) -> np.ndarray:
        """The last action in the policy's units."""
        return self._acted[1]

    def observe(self, reward: float) -> None:
        """What the last action earned."""
        self._reward = np.full((1, 1), reward, np.float32)
        self._steps.append((*self._acted, reward))

    def end_episode(self, truncated: bool, last_observation: np.ndarray) -> None:
        """The episode has ended: terminated, or `truncated` where time ran out; adapts where a round ends with it."""
        self.episodes.append({} if self._adapt is None else self._recorded(truncated, last_observation))
        if len(self.episodes) == self._current["episodes"]:
            adapts = self._current["adapt"]
            if self._adapt is not None and (adapts or self._reads_all):
                found = self._adapt({**self._joined(), "adapts": np.full((1, 1), adapts), **self.state})
                self.state.update({"state" + name[4:]: value for name, value in found.items()})
            self.round, self.episodes = self.round + 1, []
        self._begin_episode()

    def _recorded(self, truncated: bool, last_observation: np.ndarray) -> dict[str, np.ndarray]:
        """The episode as the adaptation's inputs without their first axis, padded with zeros to the horizon."""
        horizon, steps = self.description["horizon"], self._steps

        def padded(values: list[Any]) -> np.ndarray:
            array = np.stack(values)
            return np.concatenate((array, np.zeros((horizon - len(array), *array.shape[1:]), array.dtype)))

        return {
            "observations": padded([step[0] for step in steps]),
            "actions": padded([step[1] for step in steps]),
            "rewards": padded([np.float32(step[2]) for step in steps]),
            "lengths": np.array(len(steps), np.int64),
            "truncated": np.array(truncated, bool),
            "last_observations": np.asarray(last_observation, np.float32),
        }

    def _joined(self) -> dict[str, np.ndarray]:
        return {name: np.stack([episode[name] for episode in self.episodes]) for name in self.episodes[0]}
