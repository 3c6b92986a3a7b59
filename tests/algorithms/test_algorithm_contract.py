"""What every algorithm must keep: every registered one, every preset, some variants, and one of a third party."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch

from metarl.algorithms.base import Algorithm, AlgorithmPlugin, EvaluationSettings
from metarl.algorithms.registry import available_algorithms, build_algorithm, load_algorithm, resolve_preset
from metarl.errors import ConfigError
from metarl.rollout.local import LocalExecutor
from metarl.rollout.policy import is_ablatable
from metarl.rollout.spaces import Spaces
from metarl.rollout.types import Context, TrialBatch, TrialPlan, Unit
from metarl.tasks import Task, load_distribution

TASKS = 3
POINT_GOAL = load_distribution("PointGoal", horizon=6)
SMALL: dict[str, dict[str, Any]] = {  # keys that make an algorithm fast; one that is not here runs with its defaults
    "maml": {"tasks_per_iteration": TASKS, "num_streams": 4, "hidden": [8, 8]},
    "rl2": {
        "tasks_per_iteration": TASKS,
        "num_streams": 4,
        "core": {"name": "gru", "hidden_dim": 8},
        "encoded_obs_dim": 8,
        "head_dim": 8,
    },
    "pearl": {
        "tasks_per_iteration": TASKS,
        "num_streams": 4,
        "num_train_tasks": 4,
        "gradient_steps": 2,
        "batch_size": 8,
        "hidden_dim": 8,
        "encoder": {"name": "permutation_invariant", "hidden_dim": 8},
    },
}
VARIANTS: dict[str, dict[str, Any]] = {
    "rl2 lstm": {"core": {"name": "lstm", "hidden_dim": 8}},
    "pearl recurrent": {"encoder": {"name": "recurrent", "hidden_dim": 8}, "contrastive": {}},
    "maml dice": {"inner_objective": "dice", "inner_steps": 2},
}
EACH = (*available_algorithms(), *VARIANTS, "toy_algorithm:Toy")


def make(variant: str, seed: int = 0) -> Algorithm:
    """A small algorithm by its name, by a preset's, by `module:attr`, or a variant of one."""
    name = variant.split()[0]
    algorithm = resolve_preset({"name": name})["name"]
    section = resolve_preset({"name": name, **SMALL.get(algorithm, {}), **VARIANTS.get(variant, {})})
    plugin = load_algorithm(section["name"])
    assert isinstance(plugin, AlgorithmPlugin)
    return build_algorithm(plugin.config(**section), Spaces(2, 2), torch.device("cpu"), seed)


def collect(algorithm: Algorithm, iteration: int) -> list[TrialBatch]:
    tasks = algorithm.tasks(POINT_GOAL, 0, iteration)
    units = [Unit(i, (task,), algorithm.plan(6), (0, iteration, i)) for i, task in enumerate(tasks)]
    return LocalExecutor(POINT_GOAL, algorithm.policy).collect(units, algorithm.weights(), iteration)


def train(algorithm: Algorithm, iterations: range) -> None:
    for i in iterations:
        metrics = algorithm.update(collect(algorithm, i), i / 10)
        assert all(np.isfinite(value) for value in metrics.values())


def assert_equal(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.mark.parametrize("name", EACH)
def test_an_update_changes_the_weights_and_keeps_them_finite(name):
    algorithm = make(name)
    before = algorithm.weights()
    train(algorithm, range(1))
    after = algorithm.weights()
    assert all(np.isfinite(value).all() for value in after.values())
    assert any((after[key] != before[key]).any() for key in before)


@pytest.mark.parametrize("name", EACH)
def test_weights_are_copies_that_later_updates_leave_alone(name):
    algorithm = make(name)
    taken = algorithm.weights()
    kept = {key: value.copy() for key, value in taken.items()}
    train(algorithm, range(1))
    assert_equal(taken, kept)


@pytest.mark.parametrize("name", EACH)
def test_two_iterations_with_a_restored_state_between_equal_two_in_a_row(name):
    straight, before, after = make(name), make(name), make(name, seed=99)
    train(straight, range(2))
    train(before, range(1))
    after.load_state_dict(before.state_dict())
    train(after, range(1, 2))
    assert_equal(straight.weights(), after.weights())
    for key, value in straight.state_dict().items():
        assert torch.equal(value, after.state_dict()[key]), key


@pytest.mark.parametrize("name", EACH)
def test_the_policy_can_be_pickled_and_knows_no_optimiser(name):
    policy = make(name).policy
    assert pickle.loads(pickle.dumps(policy)) == policy
    assert len(pickle.dumps(policy)) < 10_000


@pytest.mark.parametrize("name", EACH)
def test_equal_seeds_give_equal_and_other_seeds_other_weights(name):
    assert_equal(make(name).weights(), make(name).weights())
    other = make(name, seed=1).weights()
    assert any((other[key] != value).any() for key, value in make(name).weights().items())


@pytest.mark.parametrize("name", EACH)
def test_training_touches_no_global_generator(name):
    numpy_state, torch_state = np.random.get_state()[1].copy(), torch.random.get_rng_state()  # type: ignore[index]
    train(make(name), range(1))
    assert (numpy_state == np.random.get_state()[1]).all()  # type: ignore[index]
    assert torch.equal(torch_state, torch.random.get_rng_state())


@pytest.mark.parametrize("name", EACH)
def test_training_tasks_are_a_function_of_seed_and_iteration_alone(name):
    algorithm = make(name)
    before = [algorithm.tasks(POINT_GOAL, seed, i) for seed, i in ((0, 0), (0, 1), (7, 1))]
    train(algorithm, range(1))
    for asked in (algorithm, make(name, seed=99)):
        assert [asked.tasks(POINT_GOAL, seed, i) for seed, i in ((0, 0), (0, 1), (7, 1))] == before
    assert before[1] != before[2]
    assert all("train" in POINT_GOAL.split_of(task) for tasks in before for task in tasks)


# --- evaluations -------------------------------------------------------------------------------------


def adapted_to(plan: TrialPlan) -> int:
    """Episodes per task that the policy has adapted to when the judged round begins."""
    supports = (r for r in plan.rounds[:-1] if r.adapt)
    return sum(plan.num_streams if r.support_streams is None else r.support_streams for r in supports)


def plan_of(name: str, **settings: object) -> TrialPlan | None:
    """None where the algorithm refuses the settings, naming one of them."""
    try:
        return make(name).evaluation_plan(6, EvaluationSettings(**settings))  # type: ignore[arg-type]
    except ConfigError as error:
        assert "evaluation." in str(error)  # noqa: PT017
        return None


@pytest.mark.parametrize("name", EACH)
def test_an_evaluation_judges_a_round_after_rounds_to_adapt_on(name):
    algorithm = make(name)
    for plan in (algorithm.plan(6), algorithm.evaluation_plan(6, EvaluationSettings())):
        assert plan.horizon == 6
        assert plan.context == "own"
    assert plan.rounds[-1].role == "query"
    assert any(r.adapt for r in algorithm.evaluation_plan(6, EvaluationSettings()).rounds[:-1])


@pytest.mark.parametrize("name", [name for name in EACH if name != "toy_algorithm:Toy"])
def test_an_evaluation_judges_what_it_was_asked_to(name):
    for deterministic in (True, False):
        plan = plan_of(name, deterministic=deterministic, episodes=7)
        assert plan is not None
        assert plan.rounds[-1].deterministic == deterministic
        assert plan.num_streams >= 7


@pytest.mark.parametrize("name", EACH)
@pytest.mark.parametrize("setting", ["rounds", "support_episodes"])
@pytest.mark.parametrize("episodes", [None, 1, 5])
def test_more_rounds_or_support_episodes_never_mean_less_adaptation(name, setting, episodes):
    plans = [plan_of(name, episodes=episodes, **{setting: number}) for number in range(1, 8)]
    amounts = [adapted_to(plan) for plan in plans if plan is not None]
    assert amounts
    assert amounts == sorted(amounts)
    for plan in plans:
        assert plan is None or all((r.support_streams or 0) <= plan.num_streams for r in plan.rounds)


A, B, C, D = (POINT_GOAL.task(goal=goal) for goal in ((0.5, 0.2), (-0.4, 0.3), (0.1, -0.5), (-0.2, -0.6)))


def first_judged_step(algorithm: Algorithm, tasks: tuple[Task, ...], context: Context) -> tuple[np.ndarray, np.ndarray]:
    """Observations and actions [N, ...] of the first task. Where an episode starts is drawn without the task, so that
    only the context can make a difference between tasks."""
    unit = Unit(0, tasks, algorithm.evaluation_plan(6, EvaluationSettings(context=context)), (5,))
    (batch,) = LocalExecutor(POINT_GOAL, algorithm.policy).collect([unit], algorithm.weights(), 0)
    judged = batch.rounds[-1]
    return judged.observations[0, :, 0], judged.actions[0, :, 0]


def has_contexts(name: str) -> bool:
    """Whether the policy can be ablated: it takes `context_of`, and it has a context to take away."""
    return is_ablatable(make(name).policy) and plan_of(name, context="blank") is not None


@pytest.mark.parametrize("name", [name for name in EACH if has_contexts(name)])
@pytest.mark.parametrize(
    ("context", "depends_on"),
    [("own", {"own"}), ("blank", set()), ("shuffled", {"next"})],
    ids=["own", "blank", "shuffled"],
)
def test_the_judged_policy_depends_on_the_experience_that_the_context_names(name, context, depends_on):
    """Of tasks (A, B, C) the first has its own experience, none, or the second's: which shuffled contexts of earlier
    steps may have shaped in turn, so that more tasks than the second may count there."""
    algorithm = make(name)
    starts, base = first_judged_step(algorithm, (A, B, C), context)
    differs = set()
    for which, tasks in {"own": (D, B, C), "next": (A, D, C), "other": (A, B, D)}.items():
        same_starts, actions = first_judged_step(algorithm, tasks, context)
        np.testing.assert_array_equal(same_starts, starts)
        if (actions != base).any():
            differs.add(which)
    assert differs == depends_on or (context == "shuffled" and differs > depends_on)


def test_the_contract_covers_every_registered_name():
    names = "anil e_maml fomaml maml maml_trpo meta_sgd pearl promp reptile rl2"
    assert set(names.split()) <= set(EACH)
