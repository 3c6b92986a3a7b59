"""Algorithms, one file per paper, found by the name that a config gives."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from pydantic import BaseModel

from metarl.algorithms.base import Algorithm
from metarl.rollout.policy import Spaces

_MODULES = {
    "maml": "metarl.algorithms.maml.learner",
    "rl2": "metarl.algorithms.rl2.learner",
    "pearl": "metarl.algorithms.pearl.learner",
}
ALGORITHMS = tuple(_MODULES)


def config_class(name: str) -> type[BaseModel]:
    """The frozen pydantic class of an algorithm's section; KeyError where there is no such algorithm."""
    config: type[BaseModel] = importlib.import_module(_MODULES[name]).Config
    return config


def build_algorithm(config: Any, spaces: Spaces, device: torch.device, seed: int) -> Algorithm:
    """The learner that `config` (an instance of `config_class(config.name)`) describes, freshly initialised."""
    algorithm: Algorithm = importlib.import_module(_MODULES[config.name]).build(config, spaces, device, seed)
    return algorithm
