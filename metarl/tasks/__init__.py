"""Task distributions: what a task is, how tasks are drawn, and how environments are built for them.

This package imports neither torch nor ray; built-in and third-party families use it alike.
"""

from metarl.tasks.arrays import ArrayTaskDistribution
from metarl.tasks.batch import EnvBatch, SingleTaskEnv, TaskBatch
from metarl.tasks.distribution import Anchors, Parameter, TaskDistribution
from metarl.tasks.priors import Choice, InDisc, LogUniform, Mixture, OnSphere, Prior, Simplex, Uniform
from metarl.tasks.registry import available_distributions, load_distribution
from metarl.tasks.revealed import RevealedTask
from metarl.tasks.task import SPLITS, Split, Task, TaskParams

__all__ = [
    "SPLITS",
    "Anchors",
    "ArrayTaskDistribution",
    "Choice",
    "EnvBatch",
    "InDisc",
    "LogUniform",
    "Mixture",
    "OnSphere",
    "Parameter",
    "Prior",
    "RevealedTask",
    "Simplex",
    "SingleTaskEnv",
    "Split",
    "Task",
    "TaskBatch",
    "TaskDistribution",
    "TaskParams",
    "Uniform",
    "available_distributions",
    "load_distribution",
]
