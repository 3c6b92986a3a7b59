"""The check that what is drawn of a MuJoCo family is what is simulated."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from metarl.tasks.batch import TaskBatch
from metarl.tasks.check.remarks import require
from metarl.tasks.check.rollouts import SEED, actions_of, some_tasks
from metarl.tasks.distribution import TaskDistribution


def check_drawing(distribution: TaskDistribution) -> None:
    """The model and the data that a picture is drawn from are the simulation's own, targets and edited fields too."""
    batch = distribution.make_batch(some_tasks(distribution)[:2])
    if _is_mujoco(batch):
        physics: Any = batch.physics  # type: ignore[attr-defined]
        batch.reset(seed=SEED)
        _require_same(physics, batch, distribution.data_fields)  # type: ignore[attr-defined]
        for action in actions_of(batch, 3):
            batch.step(action)
        _require_same(physics, batch, ())
    batch.close()


def _is_mujoco(batch: TaskBatch) -> bool:
    module = sys.modules.get("metarl.tasks.mujoco")  # imported by the family itself where it is one
    return module is not None and isinstance(batch, module.MujocoBatch)


def _require_same(physics: Any, batch: TaskBatch, data_fields: tuple[str, ...]) -> None:
    """Positions and velocities; after a reset, where mj_forward has just been called, every field that is read."""
    for i, task in enumerate(batch.tasks):
        _, data = physics.simulation(i)
        simulated = {"qpos": physics.qpos[i], "qvel": physics.qvel[i]} | {f: physics.data(f)[i] for f in data_fields}
        for name, values in simulated.items():
            drawn = np.asarray(getattr(data, name))
            require(
                drawn.shape == values.shape and np.allclose(drawn, values, rtol=1e-9, atol=1e-9),
                f"{task}: {name} of the picture is not what is simulated",
            )
