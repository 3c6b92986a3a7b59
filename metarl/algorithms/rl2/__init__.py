"""RL2: adaptation by the memory of a recurrent policy.

config.py      settings, cores
policy.py      what rollout workers run: acts and remembers
sequences.py   whole trials as sequences
credit.py      advantages over a trial: what an episode is credited with of the later ones
tensors.py     whole trials on the learner's device
learner.py     papers, equations, deviations; the algorithm
"""

from metarl.algorithms.base import Preset
from metarl.algorithms.rl2.learner import RL2

ROBUST = Preset("rl2", {"memory": "none"}, ("memory",))  # one policy for all tasks: domain randomisation

__all__ = ["RL2", "ROBUST"]
