"""PEARL: adaptation by inferring a latent task variable, trained off-policy.

config.py    settings, encoders
policy.py    what rollout workers run: acts given z, infers its posterior
replay.py    transitions per task on the learner's device
learner.py   papers, equations, deviations; the algorithm
"""

from metarl.algorithms.pearl.learner import PEARL

__all__ = ["PEARL"]
