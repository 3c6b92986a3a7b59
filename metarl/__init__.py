"""Meta-reinforcement learning: train policies that adapt, measure how fast they do, and put them on robots.

import metarl

config = metarl.load_config("quickstart", ["seed=2"])
result = metarl.train(config, run_dir="runs/quickstart")     # result.frame(): the run's records
print(metarl.evaluate("runs/quickstart").gain_over_blank)

env = metarl.make_env("runs/quickstart", seed=0)             # a task that training has not seen
agent = metarl.load_agent("runs/quickstart")
agent.begin_task()

Importing this package imports neither torch nor ray; the first use of a name above imports what it needs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metarl.agent import Agent, load_agent
    from metarl.api import TrainingResult, evaluate, load_config, make_env, train

__all__ = ["Agent", "TrainingResult", "evaluate", "load_agent", "load_config", "make_env", "train"]

_MODULES = {"Agent": "metarl.agent", "load_agent": "metarl.agent"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'metarl' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES.get(name, "metarl.api")), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
