"""Variation of robots and other environments, described instead of programmed."""

from metarl.tasks.variation.body import Body
from metarl.tasks.variation.distribution import MujocoVariation
from metarl.tasks.variation.gym import GymVariation

__all__ = ["Body", "GymVariation", "MujocoVariation"]
