"""Sinusoid regression: the tasks, the meta-gradient against hand, closed form and finite differences, and learning."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from metarl.nets.mlp_policy import init_mlp
from metarl.ops.functional_sgd import Adaptation, Params, adapt, gradient

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))

import sinusoid
import sinusoid_regression as experiment
from sinusoid_regression import METHODS, TEST, TRAIN, VALIDATION, Batch, generator, meta_gradient, sample_batch

F64 = torch.float64
MAML = METHODS["maml"]


def double(batch: Batch) -> Batch:
    return Batch(**{name: value.double() for name, value in vars(batch).items()})


# --- tasks -------------------------------------------------------------------------------------------


def test_tasks_and_points_lie_in_the_papers_ranges_and_fill_them():
    batch = sample_batch(2000, 5, 7, generator(TRAIN, 0))
    ranges = {"amplitude": (0.1, 5.0), "phase": (0.0, math.pi), "support_x": (-5.0, 5.0), "query_x": (-5.0, 5.0)}
    for name, (low, high) in ranges.items():
        values, slack = getattr(batch, name), 0.01 * (high - low)
        assert low <= float(values.min()) < low + slack
        assert high - slack < float(values.max()) <= high
    assert batch.support_y.shape == (2000, 5, 1)
    assert batch.query_y.shape == (2000, 7, 1)


def test_targets_are_the_tasks_sinusoid():
    batch = sample_batch(3, 5, 5, generator(TRAIN, 1))
    a, phase, x = float(batch.amplitude[2]), float(batch.phase[2]), float(batch.query_x[2, 4, 0])
    assert float(batch.query_y[2, 4, 0]) == pytest.approx(a * math.sin(x + phase), abs=1e-5)


def test_the_same_seed_gives_the_same_batch_and_another_seed_another():
    first, again, other = (sample_batch(4, 5, 5, generator(TRAIN, seed)) for seed in (0, 0, 1))
    for name, value in vars(first).items():
        assert torch.equal(value, getattr(again, name))
        assert not torch.equal(value, getattr(other, name))


def test_held_out_tasks_differ_from_training_tasks_and_do_not_depend_on_the_training_seed():
    test, validation = (experiment.held_out(stream, 5).amplitude.tolist() for stream in (TEST, VALIDATION))
    rng = generator(TRAIN, 0)
    trained_on = {a for _ in range(100) for a in sample_batch(25, 5, 20, rng).amplitude.tolist()}
    # 600 draws among 2 ** 24 floats against 2500: about 0.1 expected by chance, none for these seeds
    assert not set(test) & set(validation)
    assert not (set(test) | set(validation)) & trained_on
    assert test == experiment.held_out(TEST, 5).amplitude.tolist()


def test_only_the_oracle_sees_amplitude_and_phase():
    plain, seeing = (sample_batch(2, 5, 5, generator(TEST, 0), sees_task) for sees_task in (False, True))
    assert plain.support_x.shape == (2, 5, 1)
    assert torch.equal(seeing.support_x[..., :1], plain.support_x)
    assert torch.equal(seeing.support_x[1, :, 1], plain.amplitude[1].expand(5))
    assert torch.equal(seeing.query_x[1, :, 2], plain.phase[1].expand(5))
    assert [name for name, method in METHODS.items() if method.sees_task] == ["oracle"]


# --- worked by hand ----------------------------------------------------------------------------------

SUPPORT, QUERY = torch.tensor([[2.0, 4.0]], dtype=F64), torch.tensor([[5.0]], dtype=F64)


def bias_only(params: Params, y: Tensor) -> Tensor:
    """y = theta: mean (theta - y)^2, so L' = 2 (theta - mean y) and L'' = 2."""
    return (params["theta"][:, None] - y).square().mean(1).sum()


def bias_adaptation(num_steps: int, second_order: bool = True) -> tuple[Adaptation, Params]:
    start = {"theta": torch.tensor([1.0], dtype=F64)}
    rates = {"theta": torch.tensor(0.1, dtype=F64)}

    def loss(params: Params) -> tuple[Tensor, Params]:
        return bias_only(params, SUPPORT), {}

    adaptation = adapt(start, [loss] * num_steps, rates, second_order)
    return adaptation, gradient(bias_only(adaptation.adapted, QUERY), adaptation.adapted)


def test_one_step_on_a_bias_and_its_meta_gradient_by_hand():
    # alpha 0.1, theta 1, support mean a = 3, c = alpha L'' = 0.2
    # theta' = (1 - c) theta + c a = 0.8 + 0.6 = 1.4;   w = 2 (1.4 - 5) = -7.2
    # dL/dtheta = (1 - c) w = -5.76;   dL/dalpha = -g w = -(2 (1 - 3)) (-7.2) = -28.8
    adaptation, w = bias_adaptation(1)
    d_theta, d_rate = adaptation.pull_back(w)
    assert float(adaptation.adapted["theta"].detach()) == pytest.approx(1.4, abs=1e-14)
    assert float(w["theta"]) == pytest.approx(-7.2, abs=1e-14)
    assert float(d_theta["theta"]) == pytest.approx(-5.76, abs=1e-14)
    assert float(d_rate["theta"]) == pytest.approx(-28.8, abs=1e-13)


def test_two_steps_carry_the_curvature_factor_twice():
    # theta'' = 0.8 * 1.4 + 0.6 = 1.72;   w = 2 (1.72 - 5) = -6.56;   dL/dtheta = 0.8^2 w = -4.1984
    adaptation, w = bias_adaptation(2)
    assert float(adaptation.pull_back(w)[0]["theta"]) == pytest.approx(-4.1984, abs=1e-13)


def test_first_order_leaves_the_curvature_factor_out():
    adaptation, w = bias_adaptation(2, second_order=False)
    assert float(adaptation.pull_back(w)[0]["theta"]) == pytest.approx(-6.56, abs=1e-13)


@pytest.mark.parametrize("inner_steps", [1, 3])
def test_linear_regression_has_its_closed_form_meta_gradient(inner_steps):
    """H = 2 X'X / B: theta' = theta - alpha (H theta - 2 X'y / B), dL/dtheta = (I - alpha H)^S grad L_query."""
    batch, alpha = double(sample_batch(4, 5, 6, generator(TRAIN, 3))), 0.05
    theta = {"w0": torch.tensor([[0.3]], dtype=F64), "b0": torch.tensor([-0.2], dtype=F64)}  # no hidden layer
    method = replace(MAML, inner_steps=inner_steps)
    shipped, _, _ = meta_gradient(method, theta, experiment.constant_rates(theta, alpha), batch)
    expected = np.zeros(2)
    for k in range(4):
        x, y = batch.support_x[k, :, 0].numpy(), batch.support_y[k, :, 0].numpy()
        X, Xq = np.stack([x, np.ones(5)], 1), np.stack([batch.query_x[k, :, 0].numpy(), np.ones(6)], 1)
        H, linear, v = 2 * X.T @ X / 5, 2 * X.T @ y / 5, np.array([0.3, -0.2])
        for _ in range(inner_steps):
            v = v - alpha * (H @ v - linear)
        w = 2 * Xq.T @ (Xq @ v - batch.query_y[k, :, 0].numpy()) / 6
        expected += np.linalg.matrix_power(np.eye(2) - alpha * H, inner_steps) @ w / 4
    np.testing.assert_allclose([float(shipped["w0"]), float(shipped["b0"])], expected, rtol=1e-10)


# --- finite differences ------------------------------------------------------------------------------


def small_problem() -> tuple[Params, dict[str, Tensor], Batch]:
    theta = {name: value.double() for name, value in init_mlp((1, 6, 5, 1), torch.Generator().manual_seed(0)).items()}
    return theta, experiment.constant_rates(theta, 0.05), double(sample_batch(3, 5, 8, generator(TRAIN, 0)))


def numeric_gradient(wanted: Params, theta: Params, rates: Params, batch: Batch, num_steps: int) -> Params:
    """Central differences of the mean query error after adaptation, entry by entry of `wanted`, in place."""

    def loss() -> float:
        adapted = experiment.fine_tune(theta, rates, batch, num_steps)[-1]
        return float(experiment.squared_error(adapted, batch.query_x, batch.query_y).mean().detach())

    result = {name: torch.zeros_like(value) for name, value in wanted.items()}
    for name, value in wanted.items():
        flat, out = value.view(-1), result[name].view(-1)
        for i in range(len(flat)):
            at, h = float(flat[i]), 1e-6
            flat[i] = at + h
            above = loss()
            flat[i] = at - h
            out[i] = (above - loss()) / (2 * h)
            flat[i] = at
    return result


def largest_difference(one: Params, other: Params) -> float:
    return max(float((one[name] - other[name]).abs().max()) for name in other)


@pytest.mark.parametrize("inner_steps", [1, 3])
def test_exact_meta_gradient_equals_finite_differences_and_the_first_order_one_does_not(inner_steps):
    theta, rates, batch = small_problem()
    numeric = numeric_gradient(theta, theta, rates, batch, inner_steps)
    exact, _, _ = meta_gradient(replace(MAML, inner_steps=inner_steps), theta, rates, batch)
    first_order, _, _ = meta_gradient(replace(METHODS["fomaml"], inner_steps=inner_steps), theta, rates, batch)
    assert largest_difference(exact, numeric) < 1e-7
    assert largest_difference(first_order, numeric) > 1e-2


def test_gradient_of_the_learned_rates_equals_finite_differences():
    theta, rates, batch = small_problem()
    numeric = numeric_gradient(rates, theta, rates, batch, 1)
    _, d_rates, _ = meta_gradient(METHODS["meta_sgd"], theta, rates, batch)
    assert largest_difference(d_rates, numeric) < 1e-7


def test_zero_inner_rate_gives_the_gradient_of_joint_training():
    theta, rates, batch = small_problem()
    still, _, _ = meta_gradient(MAML, theta, experiment.constant_rates(theta, 0.0), batch)
    joint, _, _ = meta_gradient(METHODS["pretrained"], theta, rates, batch)
    assert largest_difference(still, joint) == 0


def test_reptiles_direction_over_one_step_is_the_gradient_on_the_query():
    theta, rates, batch = small_problem()
    reptile, _, _ = meta_gradient(replace(METHODS["reptile"], inner_steps=1), theta, rates, batch)
    joint, _, _ = meta_gradient(METHODS["pretrained"], theta, rates, batch)
    assert largest_difference(reptile, joint) < 1e-12


# --- learning ----------------------------------------------------------------------------------------


@pytest.fixture
def _few_held_out_tasks(monkeypatch):
    monkeypatch.setattr(experiment, "NUM_HELD_OUT", 100)


@pytest.mark.slow
@pytest.mark.usefixtures("_few_held_out_tasks")
def test_maml_after_one_step_has_less_than_half_the_error_of_the_best_fine_tuned_net():
    trained = {name: experiment.train(METHODS[name], 10, 600, seed=0) for name in ("maml", "pretrained")}
    maml, pretrained = (experiment.evaluate(each, 10)[0].mean(0) for each in trained.values())
    assert maml[0] > 2.5  # before adaptation it knows nothing of the task
    assert maml[1] < 0.5 * pretrained[1]


def test_training_is_a_function_of_its_arguments():
    one, again, other = (experiment.train(MAML, 5, 5, seed).theta for seed in (0, 0, 1))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["w0"], other["w0"])


@pytest.mark.usefixtures("_few_held_out_tasks")
def test_fine_tuning_rates_are_chosen_on_validation_tasks_one_per_number_of_steps(monkeypatch):
    streams = []
    held_out = experiment.held_out

    def recorded(stream, *rest):
        streams.append(stream)
        return held_out(stream, *rest)

    monkeypatch.setattr(experiment, "held_out", recorded)
    theta = experiment.train(METHODS["pretrained"], 5, 50, seed=0).theta
    rates = experiment.best_fine_tuning_rates(theta, 5)
    assert streams == [VALIDATION]
    assert len(rates) == experiment.NUM_STEPS + 1
    assert set(rates) <= set(experiment.FINE_TUNING_RATES)


@pytest.mark.usefixtures("_few_held_out_tasks")
def test_command_line_writes_the_figures_and_the_picture(tmp_path, monkeypatch, capsys):
    options = ["--methods", "maml", "pretrained", "--shots", "5", "--iterations", "2", "--seeds", "0", "1"]
    monkeypatch.setattr(sys, "argv", ["sinusoid.py", *options, "--out", str(tmp_path)])
    sinusoid.main()
    document = json.loads((tmp_path / "sinusoid.json").read_text())
    assert [(r["method"], r["shots"]) for r in document["results"]] == [("maml", 5), ("pretrained", 5)]
    for record in document["results"]:
        by_seed = np.array(record["mse_by_step_per_seed"])
        assert by_seed.shape == (2, 11)
        np.testing.assert_allclose(by_seed.mean(0), record["mse_by_step"])
        assert np.all(np.array(record["ci95_low"]) <= record["mse_by_step"])
    assert (tmp_path / "sinusoid.png").stat().st_size > 10_000
    assert "| 5 | MAML |" in capsys.readouterr().out
