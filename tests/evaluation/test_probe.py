"""The linear probe: R2 by hand, what each kind of parameter is probed as, intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest

from metarl.evaluation.probe import Represented, least_squares, probe, r_squared, resamples
from metarl.tasks import Choice, LogUniform, Parameter, Task, Uniform


def represented(tasks: tuple[Task, ...], z: np.ndarray) -> Represented:
    """One stream, z [K, Z]."""
    return Represented(tasks, z[:, None])


def drawn(parameter: Parameter, number: int = 60, seed: int = 0) -> tuple[Task, ...]:
    rng = np.random.Generator(np.random.Philox(seed))
    return tuple(Task.of("T", {parameter.name: parameter.prior.sample(rng)}) for _ in range(number))


def test_r_squared_by_hand():
    y = np.array([[0.0], [2.0], [4.0]])
    assert r_squared(y, np.array([[1.0], [1.0], [0.0]])) == 1 - 2 / 8
    assert r_squared(y, (y - y.mean()) ** 2) == 0
    assert np.isnan(r_squared(np.ones((3, 1)), np.ones((3, 1))))


def test_an_angle_is_probed_as_cosine_and_sine():
    parameter = Parameter("angle", Uniform(0.0, 2 * math.pi), "rad")
    train_tasks, test_tasks = drawn(parameter), drawn(parameter, seed=1)

    def on_a_circle(tasks: tuple[Task, ...]) -> Represented:
        angles = np.array([task["angle"] for task in tasks])
        return represented(tasks, np.stack((np.cos(angles), 3 + 2 * np.sin(angles)), axis=1))

    (score,) = probe((parameter,), on_a_circle(train_tasks), on_a_circle(test_tasks), 0, by_task=False)
    assert (score.probed_as, list(score.columns)) == ("cos and sin", ["cos(angle)", "sin(angle)"])
    assert score.score.r2 == pytest.approx(1.0, abs=1e-6)


def test_a_log_uniform_parameter_is_probed_as_its_logarithm():
    parameter = Parameter("mass", LogUniform(0.1, 10.0), "x")

    def logs(tasks: tuple[Task, ...]) -> Represented:
        return represented(tasks, np.log([[task["mass"]] for task in tasks]))

    (score,) = probe((parameter,), logs(drawn(parameter)), logs(drawn(parameter, seed=1)), 0, by_task=False)
    assert score.probed_as == "logarithm"
    assert score.score.r2 == pytest.approx(1.0, abs=1e-6)


def test_a_column_that_is_the_same_on_all_tasks_has_no_r2():
    parameter = Parameter("angle", Choice((0.0, math.pi)), "rad")  # sin is 0 for both
    tasks = drawn(parameter)
    trials = represented(tasks, np.cos([[task["angle"]] for task in tasks]))
    (score,) = probe((parameter,), trials, trials, 0, by_task=True)
    assert score.columns["sin(angle)"].r2 is None
    assert score.columns["cos(angle)"].r2 == pytest.approx(1.0, abs=1e-6)
    assert score.score.r2 == pytest.approx(1.0, abs=1e-6)


def test_unrelated_latents_are_near_zero_and_their_interval_holds_the_score():
    parameter = Parameter("goal", Uniform(-1.0, 1.0, 2))
    rng = np.random.Generator(np.random.Philox(7))
    fitted, judged = (represented(drawn(parameter, 200, s), rng.standard_normal((200, 2))) for s in (0, 1))
    (score,) = probe((parameter,), fitted, judged, 0, by_task=False)
    assert score.score.r2 is not None
    assert score.score.ci95 is not None
    assert abs(score.score.r2) < 0.05
    assert score.score.ci95[0] < score.score.r2 < score.score.ci95[1]


def test_latents_that_never_move_get_no_weight():
    z = np.zeros((20, 3))
    z[:, 0] = np.arange(20)
    W, b = least_squares(z, 2 * z[:, :1] + 1)
    np.testing.assert_allclose(W, [[2.0], [0.0], [0.0]], atol=1e-4)
    np.testing.assert_allclose(b, [1.0], atol=1e-4)


def test_by_task_every_resample_holds_as_many_trials_of_each_task():
    one, two = (Task.of("T", {"d": value}) for value in (-1.0, 1.0))
    tasks = (one, two, one, one)
    is_two = np.array([task == two for task in tasks])
    assert (is_two[resamples(tasks, 0, by_task=True)].sum(axis=1) == 1).all()
    assert set(is_two[resamples(tasks, 0, by_task=False)].sum(axis=1)) >= {0, 1, 2}
