"""PEARL: adaptation by inferring a latent task variable, trained off-policy.

config.py      settings, encoders
policy.py      what rollout workers run: acts given z, infers its posterior
replay.py      transitions per task on the learner's device
meta_batch.py  what one gradient step learns from
objective.py   the losses as one function of the parameters
learner.py     papers, equations, deviations; the algorithm
"""

from metarl.algorithms.pearl.learner import PEARL

__all__ = ["PEARL"]
