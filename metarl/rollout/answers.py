"""What an environment and a policy answer at each step of a round, looked at when it arrives.

The environment's numbers are checked before the policy sees them, so that its fault is never called the policy's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from metarl.errors import EnvironmentFault, TrainingError
from metarl.tasks.batch import TaskBatch
from metarl.tasks.success import successes_of_step

_POLICY_OUTPUTS = ("logits", "mean")  # as policies log them: an integer action is finite whatever it was drawn from


@dataclass(frozen=True)
class Answers:
    """The checks of one round: `batch` holds `num_streams` environments of each task, task by task."""

    batch: TaskBatch
    num_streams: int
    round_index: int

    def observations(self, raw: np.ndarray, step: int | None) -> np.ndarray:
        """Observations [K, N, O] float32 of what a step gave, or (None) a reset. EnvironmentFault naming task, stream,
        step and dimension where one is not finite, or too large for float32."""
        with np.errstate(over="ignore"):
            obs = raw.astype(np.float32)
        if not np.isfinite(obs).all():
            row, dimension = (int(i) for i in np.argwhere(~np.isfinite(obs))[0])
            raise self._fault("observation", row, step, f"dimension {dimension} is {raw[row, dimension]:.4g}")
        return obs.reshape(-1, self.num_streams, obs.shape[1])

    def rewards(self, raw: np.ndarray, step: int) -> np.ndarray:
        """Rewards [K, N] float32. EnvironmentFault naming task, stream and step where one is not finite in float32."""
        with np.errstate(over="ignore"):
            rewards = raw.astype(np.float32)
        if not np.isfinite(rewards).all():
            row = int(np.argmin(np.isfinite(rewards)))
            raise self._fault("reward", row, step, f"it is {raw[row]:.4g}")
        return rewards.reshape(-1, self.num_streams)

    def success(self, info: Mapping[str, Any]) -> np.ndarray | None:
        """Which environments report success in a step's info, bool [K, N]; None where it holds none. EnvironmentFault
        naming task and value where that is neither True, False, 1 nor 0."""
        flags = successes_of_step(info, self.batch.tasks)
        return None if flags is None else flags.reshape(-1, self.num_streams)

    def require_finite_policy(self, action: np.ndarray, logged: Mapping[str, np.ndarray], step: int) -> None:
        """TrainingError naming the task where the policy's action, or the output that it was drawn from, is not
        finite."""
        outputs = [(name, logged[name]) for name in _POLICY_OUTPUTS if name in logged]
        for name, values in [("action", action), *outputs]:
            if not np.isfinite(values).all():
                task = self.batch.tasks[int(np.argwhere(~np.isfinite(values))[0][0]) * self.num_streams]
                raise TrainingError(
                    f"the policy's {name} on {task} is not finite at step {step}: its parameters diverged, after too "
                    "large an inner or outer step"
                )

    def _fault(self, what: str, row: int, step: int | None, how: str) -> EnvironmentFault:
        when = "at reset" if step is None else f"at step {step}"
        task, stream = self.batch.tasks[row], row % self.num_streams
        too_large = "" if "nan" in how or "inf" in how else ", too large for float32"
        return EnvironmentFault(
            f"{task}: {what} is not finite {when} of stream {stream} in round {self.round_index}: {how}{too_large}"
        )
