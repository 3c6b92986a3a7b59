"""Variation of robots and other environments, described instead of programmed."""

from metarl.tasks.variation.distribution import MujocoVariation

__all__ = ["MujocoVariation"]
