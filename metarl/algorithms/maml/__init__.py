"""The MAML family: adaptation by gradient steps on support episodes.

config.py      settings and outer steps
policy.py      what rollout workers run: acts, and takes the inner step
objective.py   the meta-loss and its gradient
trpo.py        the trust-region outer step
learner.py     papers, equations, deviations; the algorithm
"""

from __future__ import annotations

from metarl.algorithms.base import Preset
from metarl.algorithms.maml.learner import MAML

_OUTER, _VARIANT = "outer.name", "variant"
PROMP = Preset("maml", {"outer": {"name": "ppo"}}, (_OUTER,))
MAML_TRPO = Preset("maml", {"variant": "maml", "outer": {"name": "trpo"}}, (_VARIANT, _OUTER))
FOMAML = Preset("maml", {"variant": "fomaml", "outer": {"name": "trpo"}}, (_VARIANT,))
ANIL = Preset("maml", {"variant": "anil", "outer": {"name": "trpo"}}, (_VARIANT,))
META_SGD = Preset("maml", {"variant": "meta_sgd", "outer": {"name": "trpo"}}, (_VARIANT,))
E_MAML = Preset("maml", {"inner_objective": "plain", "exploration_coef": 1.0, "outer": {"name": "pg"}})
REPTILE = Preset("maml", {"outer": {"name": "reptile"}}, (_OUTER,))

__all__ = ["ANIL", "E_MAML", "FOMAML", "MAML", "MAML_TRPO", "META_SGD", "PROMP", "REPTILE"]
