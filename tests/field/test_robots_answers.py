"""Environments that answer wrongly: what they gave is named, and the policy is never blamed for it."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, Sequence

from metarl.errors import EnvironmentFault, MetarlError
from metarl.rollout.collect import collect_trials
from metarl.rollout.types import RoundPlan, TrialPlan, Unit
from metarl.rollout.worker import UnitRunner
from tests.field.robots import Cart, Carts, Constant, collect, failed_checks, warnings_of
from tests.toy import number

ZERO = Constant(np.array([0.0], np.float32))


def carts(**members: object) -> Carts:
    """Carts of a class with these members in place of Cart's."""
    kind = type("Bent", (Cart,), members)
    return Carts(lambda task: kind(task["goal"]))


@pytest.mark.parametrize(
    ("value", "says"), [(np.nan, "nan"), (-np.inf, "-inf"), (1.7e308, r"1.7e\+308, too large for float32")]
)
def test_an_observation_that_is_not_finite_is_the_environments_fault(value: float, says: str) -> None:
    """A simulation that gives NaN in the middle, and a sensor that says the largest float for nothing seen."""
    bent = carts(observe=lambda self: np.array([self.x, value if self.t == 4 else 0.0]))
    message = rf"Carts\(goal=.*\): observation is not finite at step 3 of stream 0 in round 0: dimension 1 is {says}"
    with pytest.raises(EnvironmentFault, match=message):
        collect(bent, ZERO, streams=2)


def test_an_observation_that_is_not_finite_at_reset_says_so() -> None:
    """Bad from the start: there is no step to name."""
    with pytest.raises(EnvironmentFault, match="not finite at reset of stream 0 in round 0: dimension 0"):
        collect(carts(observe=lambda self: np.array([np.nan, 0.0])), ZERO)


def test_nan_in_an_episodes_last_observation_is_a_fault_too() -> None:
    """The usual `done if NaN`, with the reward set to 0."""

    def step(self, action):
        obs, *_ = Cart.step(self, action)
        return (np.full(2, np.nan) if self.t == 3 else obs), 0.0, self.t == 3, False, {}

    with pytest.raises(EnvironmentFault, match="at step 2 of stream 0 in round 0: dimension 0 is nan"):
        collect(carts(step=step), ZERO)


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ({"step": lambda self, a: (self.observe(), 0.0, False, {})}, r"tuple of 4 .*wants \(observation, reward"),
        ({"reset": lambda self: self.observe()}, r"Gymnasium calls reset\(seed=..., options=...\)"),
        ({"reset": lambda self, seed, options=None: np.zeros(2)}, r"array of shape \(2,\), Gymnasium wants \(obs"),
        ({"step": lambda self, a: (self.observe(), np.zeros(1), False, False, {})}, r"reward an array of shape \(1,\)"),
        ({"step": lambda self, a: (self.observe(), None, False, False, {})}, "reward None, Gymnasium wants a number"),
        ({"step": lambda self, a: (self.observe(), 0.0, None, False, {})}, "terminated = None, Gymnasium wants True"),
        ({"step": lambda self, a: (None, 0.0, False, False, {})}, "None for the observation"),
    ],
)
def test_answers_of_the_old_gym_are_told_with_what_gymnasium_wants(members: dict, says: str) -> None:
    """One sentence each: what was returned, and what is wanted."""
    with pytest.raises(EnvironmentFault, match=says):
        collect(carts(**members), ZERO)


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda task: None, r"returned NoneType \(is `return` missing\?\); wanted is a gymnasium.Env"),
        (lambda task: object(), "returned object of builtins; wanted is a gymnasium.Env"),
        (lambda task: gymnasium.make_vec("Pendulum-v1", num_envs=2), "returned a vector environment"),
    ],
)
def test_what_is_no_environment_is_refused(made, says: str) -> None:
    """A forgotten return, another kind of object, a vector environment."""
    with pytest.raises(MetarlError, match=says):
        Carts(made).make_batch(Carts().sample("train", 1, 0))


def test_spaces_of_another_package_are_told_apart_from_gymnasiums() -> None:
    """A Box of the old gym prints just like Gymnasium's."""

    class Old:
        shape = (2,)

        def __repr__(self) -> str:
            return "Box(-1.0, 1.0, (2,), float32)"

    with pytest.raises(MetarlError, match=r"observation space Box.* is of .*; Gymnasium wants one of gymnasium.spaces"):
        carts(observation_space=Old()).make_batch(Carts().sample("train", 1, 0))


@pytest.mark.parametrize(
    ("space", "observe", "says"),
    [
        (
            Box(0, 255, (2,), np.uint8),
            lambda self: np.array([0.5, 1.0]),
            "0.5 in dimension 0, and uint8 cannot hold",
        ),
        (
            Dict({"q": Box(-1, 1, (1,)), "goal": Box(-1, 1, (1,))}),
            lambda self: {"q": np.zeros(1, np.float32)},
            "observation lacks 'goal'",
        ),
        (Dict({"mode": Discrete(3, start=1)}), lambda self: {"mode": 0}, r"observation\['mode'\] = 0 is not in"),
    ],
)
def test_an_observation_that_its_space_cannot_hold_is_no_zero(space, observe, says: str) -> None:
    """Floats in a space of bytes, a missing key, a category that is none."""
    with pytest.raises(EnvironmentFault, match=says):
        collect(carts(observation_space=space, observe=observe), ZERO)


def reports(key: str, value: object) -> Carts:
    """Carts whose every step says that of its success."""
    return carts(step=lambda self, action: (*Cart.step(self, action)[:4], {key: value}))


@pytest.mark.parametrize("key", ["success", "is_success"])
@pytest.mark.parametrize(
    ("value", "is_one"),
    [(True, True), (np.False_, False), (1, True), (0.0, False), (np.float32(1), True), (np.array(1), True)],
)
def test_a_success_is_true_or_1_under_either_name(key: str, value: object, is_one: bool) -> None:
    """Meta-World's floats, Gymnasium-Robotics' name, a scalar array."""
    (round_,) = collect(reports(key, value), ZERO)
    assert round_.success is not None
    assert (round_.success == is_one).all()


def test_success_counts_before_is_success_and_none_says_nothing() -> None:
    """Both names at once; a key that is always there."""
    both = carts(step=lambda self, a: (*Cart.step(self, a)[:4], {"success": False, "is_success": True}))
    found = collect(both, ZERO)[0].success
    assert found is not None
    assert not found.any()
    assert collect(reports("success", None), ZERO)[0].success is None


@pytest.mark.parametrize("value", ["no", 0.5, 2, -1, np.nan, [True], np.zeros(1), [[1], [0, 1]], {}])
def test_a_success_that_is_neither_true_nor_false_is_a_fault(value: object) -> None:
    """A word, a share of what was to be done, a list for each part of it."""
    says = r'Carts\(goal=.*\): step returned info\["is_success"\] = .*; allowed: True, False, 1 or 0'
    with pytest.raises(EnvironmentFault, match=says):
        collect(reports("is_success", value), ZERO)
    assert "allowed: True, False, 1 or 0" in failed_checks(reports("success", value))["environments run"]


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (np.array([1.0, 0.5, 0.0]), r'Carts\(goal=.*\): step returned info\["success"\] = 0.5; allowed: True'),
        (np.array(["no"] * 3), r"= 'no'; allowed: True"),
        (np.ones((3, 2)), r'info\["success"\] has shape \(3, 2\), must be \(3,\)'),
        (True, r"has shape \(\), must be \(3,\)"),
    ],
)
def test_a_batch_of_ones_own_reports_one_success_of_each_environment(value: object, says: str) -> None:
    """A batch that simulates its tasks together."""
    family = carts()
    batch = family.make_batch(family.sample("train", 3, 0))
    step = batch.step
    batch.step = lambda actions: (*step(actions)[:4], {"success": value})  # type: ignore[method-assign]
    plan = TrialPlan(1, 10, (RoundPlan("query", adapt=False),))
    with pytest.raises(EnvironmentFault, match=says):
        collect_trials(ZERO, {}, batch, plan, np.random.default_rng(0), np.random.default_rng(1))


def test_observations_of_no_fixed_size_are_refused() -> None:
    """A sequence has no flat form."""
    with pytest.raises(MetarlError, match="have no fixed size"):
        carts(observation_space=Sequence(Box(-1, 1, (2,)))).make_batch(Carts().sample("train", 1, 0))


@pytest.mark.parametrize("layer", ["itself", "below"])
def test_a_window_for_people_is_refused_before_it_opens(layer: str) -> None:
    """render_mode="human" left in, on a machine without a screen."""
    human = carts(render_mode="human").make_env
    bent = Carts(human if layer == "itself" else lambda task: gymnasium.wrappers.TimeLimit(human(task), 5))
    with pytest.raises(MetarlError, match="render_mode='human', which would open a window"):
        bent.make_batch(bent.sample("train", 1, 0))
    assert all(not env.unwrapped.t for env in bent.made)


@pytest.mark.parametrize(
    ("observe", "says"),
    [
        (lambda self: np.array([self.x, 42.0]), "observation dimension 1 (up to 42): constant"),
        (lambda self: np.array([1e8 * self.x, self.t]), "observation dimension 0"),
        (lambda self: np.array([1.7e9 + self.x, self.t]), "the same in float32 though they change"),
        (lambda self: np.array([1e-8 * self.x, self.t]), "smaller than 1e-06 throughout"),
    ],
)
def test_observations_that_a_policy_can_hardly_use_are_warned_of(observe, says: str) -> None:
    """A constant, raw encoder counts, seconds since 1970, a tiny unit: they pass, with a warning each."""
    bent = carts(observe=observe)
    assert failed_checks(bent) == {}
    assert any(says in warning for warning in warnings_of(bent))


def test_a_time_limit_shorter_than_the_horizon_is_warned_of() -> None:
    """Episodes would end after 3 of 10 steps without a word."""
    short = Carts(lambda task: gymnasium.wrappers.TimeLimit(Cart(number(task["goal"])), 3))
    assert "a TimeLimit ends episodes after 3 steps, the horizon is 10: make them equal" in warnings_of(short)

    def step(self, action):
        obs, reward, *_ = Cart.step(self, action)
        return obs, reward, False, self.t == 4, {}

    assert "episodes are truncated after 4 steps, the horizon is 10" in warnings_of(carts(step=step))


def test_what_a_plug_in_raises_on_a_worker_keeps_its_file_and_line() -> None:
    """A misspelt parameter in `make`, an assertion in `step`."""
    misspelt = Carts(lambda task: Cart(number(task["gaol"])))
    unit = Unit(0, misspelt.sample("train", 1, 0), TrialPlan(1, 10, (RoundPlan("query", adapt=False),)), (0,))
    with pytest.raises(EnvironmentFault, match=r"has no parameter 'gaol' \(.*test_robots_answers.py, line \d+\)"):
        UnitRunner(misspelt, ZERO).run(unit, {}, 0)

    def step(self, action):
        raise RuntimeError("link broke")

    with pytest.raises(EnvironmentFault, match=r"step raised RuntimeError: link broke \(.*answers.py, line \d+\)"):
        UnitRunner(carts(step=step), ZERO).run(unit, {}, 0)


def test_a_horizon_of_a_million_steps_costs_what_its_episodes_are_long() -> None:
    """Episodes of three steps under a horizon of a million."""

    def step(self, action):
        obs, reward, *_ = Cart.step(self, action)
        return obs, reward, self.t == 3, False, {}

    (round_,) = collect(carts(step=step), ZERO, horizon=1_000_000)
    assert round_.lengths.tolist() == [[3]] * 3
    assert round_.observations.shape[2] < 10_000


def test_long_episodes_are_kept_in_full() -> None:
    """Longer than what is allocated at first."""
    (round_,) = collect(carts(), ZERO, horizon=2500)
    assert round_.lengths.tolist() == [[2500]] * 3
    np.testing.assert_allclose(round_.observations[0, 0, :, 1], np.arange(2500) / 10, rtol=1e-6)
