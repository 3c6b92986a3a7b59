"""The MAML family: policies that adapt by gradient steps on their own support episodes.

Papers: MAML (Finn et al. 2017), FOMAML (ibid., sec. 5.2), Reptile (Nichol et al. 2018), Meta-SGD (Li et al. 2017),
ANIL (Raghu et al. 2020), E-MAML (Stadie et al. 2018), ProMP (Rothfuss et al. 2019), with TRPO's trust region
(Schulman et al. 2015) or PPO's clipping (Schulman et al. 2017) outside.

    inner   theta_{i+1} = theta_i - alpha * grad L_in(theta_i; support_i)       L_in: ops.surrogates.INNER_OBJECTIVES
    outer   minimise    mean over tasks of  L_out(theta_R; query) + eta sum_i KL_i + c L_emaml

The rollout worker adapts (`policy.MAMLPolicy.end_round`); the learner repeats the same steps with a graph. Deliberate
deviations:
- ratios and KL use the behaviour distribution logged at every step, inner and outer (never recomputed);
- advantages are computed once, in the rollout worker, against a linear baseline refit per task and round;
- ANIL also leaves the log-std alone: its adapted part is the last layer's weights and bias;
- actions are in [-1, 1] where those codes have [-10, 10], so `init_std` 0.3 is three times theirs, and `output_gain`
  0.1 makes initial means as small as theirs (without it the first updates undo each other);
- the standard deviation has a floor, `min_std`: every outer and inner step ends at or above it, and derivatives take
  that projection for the identity, so that a standard deviation at the floor can grow again;
- E-MAML's credit is the query return, standardised over the iteration's tasks, and under ppo its ratio is clipped too;
- Reptile's last inner step uses the query episodes, and its direction (theta - theta_adapted) / alpha goes to Adam.

Letters: K task, N stream, T time, B = N T samples, O observation, A action; theta, alpha as in the papers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from metarl.algorithms.base import EvaluationSettings, judged_streams
from metarl.algorithms.graphs import PolicyGraphs, Rounds
from metarl.algorithms.maml.config import PPO, TRPO, MAMLConfig
from metarl.algorithms.maml.objective import MetaObjective
from metarl.algorithms.maml.policy import RATE, MAMLPolicy
from metarl.algorithms.maml.trpo import trpo_step
from metarl.algorithms.optimiser import load_moments, moments_of, set_lr
from metarl.algorithms.tensors import RoundTensors, to_host
from metarl.errors import ConfigError
from metarl.nets.mlp_policy import MLPPolicy
from metarl.ops.distributions import project_log_std_
from metarl.ops.functional_sgd import Params
from metarl.ops.trust_region import flatten
from metarl.rollout import seeds
from metarl.rollout.spaces import Spaces
from metarl.rollout.types import RoundPlan, TrialBatch, TrialPlan
from metarl.tasks import Task, TaskDistribution


class MAML:
    """The Algorithm of the family: the meta-gradient, exact or first order, and the outer step."""

    Config = MAMLConfig
    max_lag = 0

    def __init__(self, config: MAMLConfig, spaces: Spaces, device: torch.device, seed: int):
        config = config.for_spaces(spaces)
        self.config, self.device = config, device
        self.net = MLPPolicy(
            spaces.obs_dim,
            spaces.action_dim,
            spaces.discrete,
            config.hidden,
            config.init_std,
            config.min_std,
            config.output_gain,
        )
        theta = self.net.init(torch.Generator().manual_seed(seed))
        if config.variant == "meta_sgd":
            theta.update({RATE + name: torch.full_like(value, config.alpha) for name, value in theta.items()})
        self._weights: Params = {name: value.to(device) for name, value in theta.items()}
        self._optimiser = torch.optim.Adam(list(self._weights.values()))
        self.objective = MetaObjective(config, self.net, device)

    @property
    def policy(self) -> MAMLPolicy:
        return MAMLPolicy(self.config, self.net)

    def tasks(self, distribution: TaskDistribution, seed: int, iteration: int) -> tuple[Task, ...]:
        return distribution.sample("train", self.config.tasks_per_iteration, seeds.training_tasks(seed, iteration))

    def plan(self, horizon: int) -> TrialPlan:
        supports = (RoundPlan("support"),) * self.config.inner_steps
        return TrialPlan(self.config.num_streams, horizon, (*supports, RoundPlan("query", adapt=False)))

    def evaluation_plan(self, horizon: int, settings: EvaluationSettings) -> TrialPlan:
        """A gradient step per round before the last; `support_episodes` of each are adapted to. Support actions are
        always samples: the gradient step needs them."""
        steps = self.config.inner_steps if settings.rounds is None else settings.rounds - 1
        streams, adapted_to = judged_streams(self.config.num_streams, settings), settings.support_episodes
        if adapted_to is None:
            adapted_to = self.config.num_streams
        if adapted_to < 1:
            raise ConfigError(
                f"evaluation.support_episodes = {adapted_to}: must be 1 or more here; without adaptation: "
                "evaluation.rounds = 1"
            )
        if steps == 0 and settings.support_episodes is not None:
            raise ConfigError(
                f"evaluation.rounds = 1 and evaluation.support_episodes = {adapted_to}: one round alone is judged and "
                "leaves none to adapt to; allowed: rounds of 2 or more, or no support_episodes"
            )
        if steps and settings.episodes is not None and settings.episodes < adapted_to:
            raise ConfigError(
                f"evaluation.episodes = {settings.episodes}: MAML judges no fewer episodes than it adapts to; "
                f"allowed: {adapted_to} or more, or adapt to fewer: evaluation.support_episodes = {settings.episodes}"
            )
        support = RoundPlan("support", support_streams=adapted_to)
        query = RoundPlan("query", adapt=False, deterministic=settings.deterministic)
        num_streams = max(streams, adapted_to) if steps else streams
        return TrialPlan(num_streams, horizon, (*[support] * steps, query), settings.context)

    def deployment_plan(self, horizon: int, settings: EvaluationSettings) -> TrialPlan:
        """As an evaluation's, in just as many episodes as are adapted to."""
        plan = self.evaluation_plan(horizon, replace(settings, episodes=None))
        return replace(plan, num_streams=plan.rounds[0].support_streams or 1)

    def weights(self) -> dict[str, np.ndarray]:
        return to_host(self._weights)

    def update(self, batches: Sequence[TrialBatch], progress: float) -> dict[str, float]:
        """One meta-update: several Adam steps (ppo), one Adam step (pg, reptile) or one trust-region step (trpo)."""
        rounds = [RoundTensors.of(group, self.device) for group in zip(*(b.rounds for b in batches), strict=True)]
        outer, read = self.config.outer, {"inner_kl": self.objective.inner_kl(self._weights, rounds)}
        metrics: dict[str, float]
        if isinstance(outer, TRPO):
            moved, metrics = trpo_step(self.objective, outer, self._weights, rounds)
            with torch.no_grad():
                for name, value in self._weights.items():
                    value.copy_(moved[name])
            project_log_std_(self._weights, self.config.min_std)
        else:
            metrics = {"lr": set_lr(self._optimiser, outer.lr, outer.lr_schedule, progress)}
            for _ in range(outer.steps if isinstance(outer, PPO) else 1):
                gradient, found = self.objective.gradient(self._weights, rounds)
                for name, value in self._weights.items():
                    value.grad = gradient[name]
                self._optimiser.step()
                project_log_std_(self._weights, self.config.min_std)
            read |= {**found, "meta_gradient_norm": flatten(gradient).norm()}
        if "log_std" in self._weights:
            read["policy_std"] = self._weights["log_std"].exp().mean()
        values = torch.stack([value.detach().double() for value in read.values()]).tolist()  # one wait for the device
        return {**metrics, **dict(zip(read, values, strict=True))}

    def export_graphs(self, rounds: Rounds) -> PolicyGraphs:
        """See `metarl.algorithms.graphs`."""
        from metarl.algorithms.maml.export import maml_graphs

        return maml_graphs(self.policy, self.weights(), rounds)

    def state_dict(self) -> dict[str, Tensor]:
        flat = {f"weights.{name}": value for name, value in self._weights.items()}
        flat |= moments_of(self._optimiser, self._weights)
        return {name: value.detach().clone() for name, value in flat.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, value in self._weights.items():
                value.copy_(state[f"weights.{name}"])
        load_moments(self._optimiser, self._weights, state)
