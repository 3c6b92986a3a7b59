"""The learners that are checked, and what they learn from.

Trials come from a task distribution without physics: its spaces and its horizon are HalfCheetah's, so an update costs
what it costs there, and sampling costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import gymnasium
import numpy as np
import torch

from metarl.algorithms.base import Algorithm, AlgorithmPlugin
from metarl.algorithms.registry import load_algorithm, resolve_preset
from metarl.rollout.local import LocalExecutor
from metarl.rollout.spaces import Spaces
from metarl.rollout.types import TrialBatch, Unit
from metarl.tasks import Parameter, Uniform
from metarl.tasks.arrays import ArrayTaskDistribution
from metarl.tasks.task import TaskParams

_OBS_DIM, _ACTION_DIM = 17, 6


class Drift(ArrayTaskDistribution):
    """A linear system of HalfCheetah's sizes. Reward: minus the distance of the first coordinate to the task's."""

    name = "Drift"

    def __init__(self, horizon: int):
        super().__init__(horizon)
        self.parameters = (Parameter("goal", Uniform(-1.0, 1.0)),)
        self.single_observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (_OBS_DIM,), np.float64)
        self.single_action_space = gymnasium.spaces.Box(-1.0, 1.0, (_ACTION_DIM,), np.float32)
        self._gain = np.random.default_rng(0).normal(0, 0.1, (_ACTION_DIM, _OBS_DIM))

    def initial_state(self, rng: np.random.Generator, n: int) -> np.ndarray:
        return rng.normal(0, 1, (n, _OBS_DIM))

    def transition(
        self, rng: np.random.Generator, state: np.ndarray, action: np.ndarray, params: TaskParams
    ) -> tuple[np.ndarray, np.ndarray]:
        moved = 0.95 * state + action @ self._gain + rng.normal(0, 0.1, state.shape)
        return moved, -np.abs(moved[:, 0] - params["goal"])


@dataclass(frozen=True)
class Learner:
    """An algorithm's section, the horizon of its episodes, and whether it computes in float64 where its inputs are."""

    section: Mapping[str, Any]
    horizon: int
    has_float64: bool = True

    @cached_property
    def _resolved(self) -> dict[str, Any]:
        return resolve_preset(self.section)

    @cached_property
    def _plugin(self) -> AlgorithmPlugin:
        plugin = load_algorithm(self._resolved["name"])
        assert isinstance(plugin, AlgorithmPlugin)
        return plugin

    def build(self, device: torch.device, seed: int = 0, **changes: Any) -> Algorithm:
        """The freshly initialised learner on `device`; `changes` replace keys of its section."""
        config = self._plugin.config.model_validate({**self._resolved, **changes})
        return self._plugin.build(config, Spaces(_OBS_DIM, _ACTION_DIM), device, seed)

    def has_key(self, key: str) -> bool:
        """Whether the algorithm's section of the configuration has this key."""
        return key in self._plugin.config.model_fields

    @cached_property
    def trials(self) -> list[TrialBatch]:
        """The trials of a first iteration, collected on the CPU with the learner's first weights."""
        learner, distribution = self.build(torch.device("cpu")), Drift(self.horizon)
        plan = learner.plan(self.horizon)
        unit = Unit(0, learner.tasks(distribution, 0, 0), plan, (0,))
        return LocalExecutor(distribution, learner.policy).collect([unit], learner.weights(), 0)


# The sizes of the papers and of the project's configurations.


LEARNERS = {
    "MAML, ppo": Learner({"name": "promp"}, 100),
    "MAML, trpo": Learner({"name": "maml_trpo"}, 100),
    "RL2": Learner({"name": "rl2", "tasks_per_iteration": 64}, 200, has_float64=False),
    "RL2, transformer": Learner(
        {"name": "rl2", "tasks_per_iteration": 64, "core": {"name": "transformer"}}, 200, has_float64=False
    ),
    "PEARL": Learner({"name": "pearl", "num_train_tasks": 32, "initial_episodes": 2, "gradient_steps": 50}, 200),
}

_SMALL_MAML = {"tasks_per_iteration": 4, "num_streams": 4, "hidden": [16, 16]}
_SMALL_RL2 = {"tasks_per_iteration": 4, "epochs": 1, "minibatches": 2, "encoded_obs_dim": 16, "head_dim": 16}
_SMALL_TRANSFORMER = {"name": "transformer", "hidden_dim": 16, "num_layers": 1}
_SMALL_PEARL = {"num_train_tasks": 4, "initial_episodes": 2, "gradient_steps": 2, "batch_size": 16, "context_size": 8}
SMALL_LEARNERS = {
    "MAML, ppo": Learner({"name": "promp", **_SMALL_MAML, "outer": {"steps": 2}}, 10),
    "MAML, trpo": Learner({"name": "maml_trpo", **_SMALL_MAML}, 10),
    "RL2": Learner({"name": "rl2", **_SMALL_RL2, "core": {"name": "gru", "hidden_dim": 16}}, 10, has_float64=False),
    "RL2, transformer": Learner({"name": "rl2", **_SMALL_RL2, "core": _SMALL_TRANSFORMER}, 10, has_float64=False),
    "PEARL": Learner({"name": "pearl", **_SMALL_PEARL, "hidden_dim": 16}, 10),
}
