"""DeepMind Control's environments by name: what they need installed, and which of them can be varied."""

from __future__ import annotations

import importlib.util

import gymnasium
import mujoco

from metarl.errors import TaskError
from metarl.tasks.variation.single import simulator_of

_NAMESPACE, _REGISTERED_BY = "dm_control/", "shimmy:"
_PACKAGES = ("shimmy", "dm_control")


def with_registration(env_id: str, who: str) -> str:
    """`dm_control/walker-run-v0` as `shimmy:dm_control/walker-run-v0`, which has the id registered on every worker.

    Ids of anything else as they are. TaskError with pip's command where the packages are not installed.
    """
    if not env_id.removeprefix(_REGISTERED_BY).startswith(_NAMESPACE):
        return env_id
    lacking = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if lacking:
        # dm_control asks for the MuJoCo of its own release: named, pip takes the release that fits.
        command = f'pip install "shimmy[dm-control]" mujoco=={mujoco.__version__}'
        raise TaskError(f"{who}: env = {env_id!r} needs {' and '.join(lacking)}: {command}")
    return _REGISTERED_BY + env_id.removeprefix(_REGISTERED_BY)


def require_lasting_model(env: gymnasium.Env, who: str) -> None:
    """TaskError where a reset compiles the model anew, as `dm_control.composer` does: edits would be lost."""
    if not hasattr(env.unwrapped, "physics"):
        return
    before = simulator_of(env)
    env.reset(seed=0)
    after = simulator_of(env)
    if before is None or after is None or before[0] is not after[0]:
        raise TaskError(
            f"{who}: {env.spec.id if env.spec else env} compiles a new model at every reset (dm_control.composer), so "
            "that its physics cannot be varied; GymVariation gives it `effects`"
        )
