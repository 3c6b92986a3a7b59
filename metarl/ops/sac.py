"""The losses of soft actor-critic, for a policy and critics that are told a latent task variable.

    y      = s r + gamma (1 - d) [min_i Q'_i(o', a', z) - alpha log pi(a' | o', z)],   a' ~ pi(. | o', z)
    J_Q    = sum_i E (Q_i(o, a, z) - y)^2
    J_pi   = E [alpha log pi(a | o, z) - min_i Q_i(o, a, z)]
    J_a    = -log alpha E [log pi(a | o, z) + H]                  H: the entropy aimed at

Means are over tasks and samples. Sources: Haarnoja et al. 2018 (SAC), 2018b (no value network, learned temperature).
Letters: E critic (member of the ensemble), K task, B sample.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

KB = Float[Tensor, "K B"]


def soft_target(
    rewards: KB,
    terminated: KB,
    next_q: Float[Tensor, "E K B"],
    next_log_prob: KB,
    temperature: Float[Tensor, ""],
    reward_scale: float,
    gamma: float,
) -> KB:
    """y: what the critics regress to. `terminated` alone stops the bootstrap, a time limit never does."""
    return reward_scale * rewards + gamma * (1 - terminated) * (next_q.amin(0) - temperature * next_log_prob)


def critic_loss(q: Float[Tensor, "E K B"], target: KB) -> Float[Tensor, ""]:
    """J_Q, summed over critics; `target` is a constant."""
    return ((q - target) ** 2).mean((1, 2)).sum()


def actor_loss(q: Float[Tensor, "E K B"], log_prob: KB, temperature: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """J_pi, with `q` the critics' values of the policy's own actions; the temperature is a constant."""
    return (temperature * log_prob - q.amin(0)).mean()


def temperature_loss(log_temperature: Float[Tensor, ""], log_prob: KB, target_entropy: float) -> Float[Tensor, ""]:
    """J_a: the temperature rises where the entropy is below `target_entropy`; `log_prob` is a constant."""
    return -log_temperature * (log_prob.detach() + target_entropy).mean()
