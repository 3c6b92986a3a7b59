"""How each family plans an evaluation: what is asked for is what is done, and more of it is never less adaptation."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from metarl.algorithms.base import Algorithm, AlgorithmPlugin, EvaluationSettings
from metarl.algorithms.registry import build_algorithm, load_algorithm
from metarl.errors import ConfigError
from metarl.rollout.local import LocalExecutor
from metarl.rollout.spaces import Spaces
from metarl.rollout.types import RoundPlan, TrialPlan, Unit
from metarl.tasks import load_distribution

FAMILIES: dict[str, dict[str, Any]] = {
    "maml": {"hidden": (4,), "num_streams": 3},
    "rl2": {"core": {"name": "gru", "hidden_dim": 4}, "encoded_obs_dim": 4, "head_dim": 4},
    "pearl": {"hidden_dim": 4, "num_train_tasks": 2},
    "pearl exploring by the posterior": {"hidden_dim": 4, "num_train_tasks": 2, "exploration": "posterior"},
}
EACH = pytest.mark.parametrize("family", FAMILIES)
HORIZON = 5


def algorithm(family: str) -> Algorithm:
    name = family.split()[0]
    plugin = load_algorithm(name)
    assert isinstance(plugin, AlgorithmPlugin)
    config = plugin.config(name=name, **FAMILIES[family])
    return build_algorithm(config, Spaces(2, 2), torch.device("cpu"), 0)


def plan_of(family: str, **settings: Any) -> TrialPlan:
    return algorithm(family).evaluation_plan(HORIZON, EvaluationSettings(**settings))


def believed_episodes(plan: TrialPlan) -> int:
    """Support episodes of a task that have been adapted to when its judged round begins.

    A policy remembers what it has seen and adapts to all of it at once, so rounds before one adapted to count too.
    """
    last = max((i for i, r in enumerate(plan.rounds[:-1]) if r.adapt), default=-1)
    return sum(plan.num_streams if r.support_streams is None else r.support_streams for r in plan.rounds[: last + 1])


@EACH
@pytest.mark.parametrize("setting", ["rounds", "support_episodes"])
def test_more_rounds_or_support_episodes_are_never_less_adaptation(family, setting):
    numbers = [believed_episodes(plan_of(family, **{setting: n})) for n in range(1, 8)]
    assert numbers == sorted(numbers)
    assert numbers[-1] > numbers[0]


@EACH
def test_every_support_round_of_an_evaluation_is_adapted_to_before_the_judged_one(family):
    for rounds in (2, 4):
        plan = plan_of(family, rounds=rounds)
        assert [r.role for r in plan.rounds] == ["support"] * (rounds - 1) + ["query"]
        assert plan.rounds[-2].adapt
        assert believed_episodes(plan) == sum(
            plan.num_streams if r.support_streams is None else r.support_streams for r in plan.rounds[:-1]
        )


def test_maml_judges_no_fewer_episodes_than_it_adapts_to_and_says_so():
    """It once judged more than were asked for, without a word."""
    assert plan_of("maml", episodes=2, support_episodes=2).num_streams == 2
    assert plan_of("maml", episodes=5).num_streams == 5
    assert plan_of("maml", episodes=1, rounds=1).num_streams == 1
    with pytest.raises(ConfigError, match=r"evaluation.episodes = 2: .* allowed: 3 or more, .*support_episodes = 2"):
        plan_of("maml", episodes=2)


@EACH
def test_one_round_is_judged_without_adaptation(family):
    assert [(r.role, r.adapt) for r in plan_of(family, rounds=1).rounds] == [("query", False)]


@EACH
@pytest.mark.parametrize("deterministic", [True, False])
def test_one_setting_says_how_judged_actions_are_taken(family, deterministic):
    for settings in ({}, {"rounds": 1}, {"rounds": 4}):
        assert plan_of(family, deterministic=deterministic, **settings).rounds[-1].deterministic is deterministic


def test_pearl_explores_by_its_setting_and_believes_all_of_it_at_the_judged_episode():
    """The posterior after three exploration episodes is the same whether it was formed in between or not."""
    prior, adapted = RoundPlan("support", adapt=False), RoundPlan("support", adapt=True)
    assert plan_of("pearl", rounds=4).rounds[:-1] == (prior, prior, adapted)
    assert plan_of("pearl exploring by the posterior", rounds=4).rounds[:-1] == (adapted,) * 3


def test_pearls_posterior_narrows_with_every_further_round():
    distribution, pearl = load_distribution("PointGoal", horizon=HORIZON), algorithm("pearl")
    widths = []
    for rounds in range(1, 6):
        plan = pearl.evaluation_plan(HORIZON, EvaluationSettings(rounds=rounds))
        unit = Unit(0, distribution.sample("test", 4, 0), plan, (0, 0))
        (batch,) = LocalExecutor(distribution, pearl.policy).collect([unit], pearl.weights(), 0)
        widths.append(float(np.mean(batch.rounds[-1].derived["belief_var"])))
    assert widths[0] == 1.0
    assert all(later < earlier for earlier, later in itertools.pairwise(widths))
