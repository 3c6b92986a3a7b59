"""Every registered task distribution, those that need options with some."""

from __future__ import annotations

from typing import Any

from metarl.tasks import TaskDistribution, available_distributions, load_distribution
from metarl.tasks.mujoco import MujocoTaskDistribution

LENGTH = {"attribute": "length", "prior": {"uniform": [0.3, 0.8]}, "ood": {"uniform": [0.8, 1.2]}}
MASS = {"field": "body_mass[torso]", "prior": {"log_uniform": [0.5, 2.0]}, "ood": {"log_uniform": [2.0, 3.0]}}
FRICTION = {"field": "geom_friction[*]", "prior": {"uniform": [0.1, 0.5]}, "at_step": 4}
OPTIONS: dict[str, dict[str, Any]] = {
    "GymVariation": {
        "env": "CartPole-v1",
        "parameters": {"length": LENGTH},
        "effects": {"action_delay": {"prior": {"choice": [0, 1, 2]}}},
    },
    "MujocoVariation": {
        "env": "Hopper-v5",
        "vary": {"mass": MASS, "friction": FRICTION},
        "effects": {"dead_motor": {"prior": {"choice": [-1, 0, 1, 2]}, "at_step": {"uniform": [5, 15]}}},
    },
}


def load(name: str, **options: Any) -> TaskDistribution:
    """The distribution registered as `name`, with the options that it needs and those given."""
    return load_distribution(name, **{**OPTIONS.get(name, {}), **options})


MUJOCO = [name for name in available_distributions() if isinstance(load(name), MujocoTaskDistribution)]
