"""The physics limit: what the simulations of some trials cost when nothing else is done."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from metarl.rollout.spaces import env_action_map
from metarl.rollout.types import TrialBatch
from metarl.tasks import TaskDistribution
from metarl.tasks.mujoco import MujocoBatch, MujocoTaskDistribution


class NoPhysicsError(Exception):
    """The limit is of families on MuJoCo alone."""


def physics_limit_per_s(distribution: TaskDistribution, trials: Sequence[TrialBatch]) -> float:
    """Env steps per second of the very actions of `trials`, open-loop, all simulations in one thread pool.

    No policy, no observation, no storage. NoPhysicsError where the environments are not MuJoCo's.
    """
    if not isinstance(distribution, MujocoTaskDistribution):
        raise NoPhysicsError(f"{distribution.name} has no MuJoCo model")
    streams = trials[0].rounds[0].actions.shape[1]
    batch = distribution.make_batch([task for trial in trials for task in trial.tasks for _ in range(streams)])
    assert isinstance(batch, MujocoBatch)
    seconds, steps = 0.0, 0
    for index in range(len(trials[0].rounds)):
        actions = np.concatenate([trial.rounds[index].actions for trial in trials])  # [K, N, T, A]
        horizon = actions.shape[2]
        controls = env_action_map(batch.single_action_space)(actions).astype(np.float64)
        controls = np.ascontiguousarray(np.moveaxis(controls.reshape(batch.num_envs, horizon, -1), 1, 0))
        batch.reset(seed=index)
        start = time.perf_counter()
        for control in controls:
            batch.physics.ctrl[:] = control
            batch.physics.step(None, distribution.frame_skip)
        seconds += time.perf_counter() - start
        steps += horizon * batch.num_envs
    batch.close()
    return steps / seconds
