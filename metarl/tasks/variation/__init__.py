"""Variation of robots and other environments, described instead of programmed."""

from metarl.tasks.variation.body import Body
from metarl.tasks.variation.distribution import MujocoVariation
from metarl.tasks.variation.gym import GymVariation
from metarl.tasks.variation.wrapper import BodyEnv

__all__ = ["Body", "BodyEnv", "GymVariation", "MujocoVariation"]
