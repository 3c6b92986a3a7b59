"""Few-shot sinusoid regression (Finn et al. 2017, section 5.1): the shipped inner loop outside reinforcement learning.

    task    y = a sin(x + phase),   a ~ U(0.1, 5), phase ~ U(0, pi), x ~ U(-5, 5)
    inner   theta_{i+1} = theta_i - alpha * grad L(theta_i; support),   L the mean squared error on 5 or 10 points
    outer   minimise the mean over tasks of L(theta_adapted; query) by Adam

What adapts and differentiates is `metarl.ops.functional_sgd`, what computes is `metarl.kernels.batched_mlp`; nothing
of it is rewritten here. Methods: MAML, FOMAML, Reptile, Meta-SGD; `pretrained`, one net trained on all tasks
jointly and fine-tuned; `oracle`, trained jointly with amplitude and phase among its inputs.

Deviations from the paper: tanh units, as in the shipped net, not ReLU; 20 query points a task, not as many as shots;
Adam's rate falls linearly to zero over the second half, and thousands of iterations stand for 70 000. The fine-tuning
rate of `pretrained` is the best on validation tasks, chosen anew for every number of steps. Reptile's last inner
step uses the query points, and its direction (theta - theta_adapted) / alpha goes to Adam, as in metarl's RL learner.

Letters: K task, B points, I inputs, S gradient steps, G fine-tuning rates.

The command is `sinusoid.py`, the picture `sinusoid_figure.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metarl.evaluation.statistics import bootstrap_ci95, mean
from metarl.kernels.batched_mlp import batched_mlp
from metarl.nets.mlp_policy import init_mlp
from metarl.ops.functional_sgd import Params, Rates, adapt

HIDDEN = (40, 40)
NUM_TASKS, NUM_QUERY = 25, 20  # per meta-training iteration
NUM_HELD_OUT, NUM_EVAL_QUERY, NUM_STEPS = 600, 100, 10
FINE_TUNING_RATES = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
TRAIN, VALIDATION, TEST, INIT = range(4)  # streams of random numbers that never meet


# --- tasks -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Batch:
    """K sinusoids with support and query points; inputs [K, B, I], targets [K, B, 1]."""

    amplitude: Float[Tensor, " K"]
    phase: Float[Tensor, " K"]
    support_x: Float[Tensor, "K B I"]
    support_y: Float[Tensor, "K B 1"]
    query_x: Float[Tensor, "K B I"]
    query_y: Float[Tensor, "K B 1"]


def generator(stream: int, seed: int) -> torch.Generator:
    """Random numbers of one stream; other streams and other seeds share none of them."""
    state = np.random.SeedSequence([stream, seed]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


def sample_batch(num_tasks: int, shots: int, num_query: int, rng: torch.Generator, sees_task: bool = False) -> Batch:
    """Fresh tasks and points; with `sees_task` the inputs are (x, amplitude, phase) in place of x alone."""
    amplitude = 0.1 + 4.9 * torch.rand(num_tasks, generator=rng)
    phase = math.pi * torch.rand(num_tasks, generator=rng)
    x = 10 * torch.rand(num_tasks, shots + num_query, 1, generator=rng) - 5
    y = sinusoid(x, amplitude, phase)
    if sees_task:
        x = torch.cat([x, *(value[:, None, None].expand_as(x) for value in (amplitude, phase))], dim=-1)
    return Batch(amplitude, phase, x[:, :shots], y[:, :shots], x[:, shots:], y[:, shots:])


def sinusoid(
    x: Float[Tensor, "K B 1"], amplitude: Float[Tensor, " K"], phase: Float[Tensor, " K"]
) -> Float[Tensor, "K B 1"]:
    """a sin(x + phase)."""
    return amplitude[:, None, None] * torch.sin(x + phase[:, None, None])


# --- model and meta-gradient -------------------------------------------------------------------------


@dataclass(frozen=True)
class Method:
    """What a method does at training; with no inner steps the meta-gradient is that of joint training."""

    label: str
    outer_lr: float
    inner_steps: int = 1
    inner_lr: float = 0.01
    is_second_order: bool = False
    is_reptile: bool = False
    learns_rates: bool = False
    sees_task: bool = False
    tries_rates: bool = False


METHODS: dict[str, Method] = {
    "maml": Method("MAML", 3e-3, is_second_order=True),
    "fomaml": Method("FOMAML", 1e-3),
    "reptile": Method("Reptile", 1e-3, inner_steps=5, is_reptile=True),
    "meta_sgd": Method("Meta-SGD", 3e-3, is_second_order=True, learns_rates=True),
    "pretrained": Method("pre-trained", 3e-3, inner_steps=0, tries_rates=True),
    "oracle": Method("oracle (sees a, phase)", 3e-3, inner_steps=0, sees_task=True),
}


def predict(params: Mapping[str, Tensor], x: Float[Tensor, "K B I"]) -> Float[Tensor, "K B 1"]:
    """Each task's net on its own points."""
    return batched_mlp(x, [params[f"{kind}{i}"] for i in range(len(params) // 2) for kind in "wb"])


def squared_error(
    params: Mapping[str, Tensor], x: Float[Tensor, "K B I"], y: Float[Tensor, "K B 1"]
) -> Float[Tensor, " K"]:
    """Mean squared error per task."""
    return (predict(params, x) - y).square().mean((1, 2))


def constant_rates(theta: Mapping[str, Tensor], rate: float) -> dict[str, Tensor]:
    """The same alpha for every parameter."""
    return {name: torch.full_like(value, rate) for name, value in theta.items()}


def meta_gradient(
    method: Method, theta: Mapping[str, Tensor], rates: Rates, batch: Batch
) -> tuple[Params, Params, float]:
    """d/dtheta and d/dalpha of the mean query loss after the inner steps, and that loss.

    For Reptile the first is (theta - theta_adapted) / alpha and the second is unused.
    """
    num_tasks = len(batch.amplitude)
    on_support = partial(_support_loss, batch.support_x, batch.support_y)
    on_query = partial(_support_loss, batch.query_x, batch.query_y)
    losses = [on_support] * method.inner_steps
    if method.is_reptile:
        losses[-1] = on_query
    start = {name: value.expand(num_tasks, *value.shape) for name, value in theta.items()}
    adaptation = adapt(start, losses, rates, method.is_second_order)
    loss = squared_error(adaptation.adapted, batch.query_x, batch.query_y).sum()
    if method.is_reptile:
        d_theta: Params = {n: ((start[n] - end) / rates[n]).detach() for n, end in adaptation.adapted.items()}
        d_rates: Params = {}
    else:
        d_theta, d_rates = adaptation.meta_gradient(loss)
    over_tasks = [{name: value.mean(0) for name, value in each.items()} for each in (d_theta, d_rates)]
    return over_tasks[0], over_tasks[1], float(loss.detach()) / num_tasks


def _support_loss(x: Tensor, y: Tensor, params: Params) -> tuple[Tensor, Params]:
    return squared_error(params, x, y).sum(), {}


@dataclass(frozen=True)
class Trained:
    """A meta-trained initialisation and its inner rates."""

    method: Method
    theta: Params
    rates: dict[str, Tensor]


def train(
    method: Method, shots: int, iterations: int, seed: int, report: Callable[[int, float], None] | None = None
) -> Trained:
    """Meta-train from scratch; a function of its arguments alone. `report` sees the iteration and the query loss."""
    rng = generator(TRAIN, seed)
    theta = init_mlp((3 if method.sees_task else 1, *HIDDEN, 1), generator(INIT, seed))
    rates = constant_rates(theta, method.inner_lr)
    optimiser = torch.optim.Adam([*theta.values(), *(rates.values() if method.learns_rates else ())])
    for i in range(iterations):
        optimiser.param_groups[0]["lr"] = method.outer_lr * min(1.0, 2 * (1 - i / iterations))
        batch = sample_batch(NUM_TASKS, shots, NUM_QUERY, rng, method.sees_task)
        d_theta, d_rates, loss = meta_gradient(method, theta, rates, batch)
        for name, value in theta.items():
            value.grad = d_theta[name]
            if method.learns_rates:
                rates[name].grad = d_rates[name]
        optimiser.step()
        if report is not None:
            report(i + 1, loss)
    return Trained(method, theta, rates)


# --- evaluation --------------------------------------------------------------------------------------


def held_out(stream: int, shots: int, sees_task: bool = False) -> Batch:
    """Validation or test tasks: the same for every method and training seed."""
    return sample_batch(NUM_HELD_OUT, shots, NUM_EVAL_QUERY, generator(stream, 0), sees_task)


def fine_tune(theta: Mapping[str, Tensor], rates: Rates, batch: Batch, num_steps: int = NUM_STEPS) -> list[Params]:
    """Every task's parameters after 0, 1, ..., num_steps gradient steps on its support points."""
    start = {name: value.expand(len(batch.amplitude), *value.shape) for name, value in theta.items()}
    losses = [partial(_support_loss, batch.support_x, batch.support_y)] * num_steps
    adaptation = adapt(start, losses, rates, second_order=False)
    return [*(step.params for step in adaptation.steps), adaptation.adapted]


def error_by_step(theta: Mapping[str, Tensor], rates: Rates, batch: Batch) -> Float[np.ndarray, "K S"]:
    """Query error of every task after 0, 1, ..., 10 steps."""
    errors = [squared_error(params, batch.query_x, batch.query_y) for params in fine_tune(theta, rates, batch)]
    return torch.stack(errors, dim=1).detach().double().numpy()


def best_fine_tuning_rates(theta: Mapping[str, Tensor], shots: int) -> list[float]:
    """For each number of steps the rate with the lowest error on the validation tasks."""
    batch = held_out(VALIDATION, shots)
    curves = [error_by_step(theta, constant_rates(theta, rate), batch).mean(0) for rate in FINE_TUNING_RATES]  # [G, S]
    best = np.nan_to_num(np.array(curves), nan=np.inf).argmin(0)
    return [FINE_TUNING_RATES[index] for index in best]


def evaluate(trained: Trained, shots: int) -> tuple[Float[np.ndarray, "K S"], list[float]]:
    """Errors on the test tasks, and the fine-tuning rate per number of steps where rates are tried (else empty)."""
    batch = held_out(TEST, shots, trained.method.sees_task)
    if trained.method.sees_task:  # it knows the task: nothing to adapt to
        return error_by_step(trained.theta, constant_rates(trained.theta, 0.0), batch), []
    if not trained.method.tries_rates:
        return error_by_step(trained.theta, trained.rates, batch), []
    rates = best_fine_tuning_rates(trained.theta, shots)
    curves = {rate: error_by_step(trained.theta, constant_rates(trained.theta, rate), batch) for rate in set(rates)}
    return np.stack([curves[rate][:, step] for step, rate in enumerate(rates)], axis=1), rates


@dataclass(frozen=True)
class Result:
    """One method at one number of shots: test errors per seed, and what the pictures need."""

    name: str
    shots: int
    errors: list[Float[np.ndarray, "K S"]]
    rates: list[list[float]]
    trained: Trained
    seconds: float

    def curve(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean over tasks [S] and 95 % interval [2, S], bootstrapped over tasks; a task's error is its seeds' mean."""
        per_task = np.mean(self.errors, axis=0)
        intervals = [bootstrap_ci95(column, mean, seed=0) for column in per_task.T]
        return per_task.mean(0), np.array(intervals).T

    def record(self) -> dict[str, object]:
        """What goes to JSON."""
        means, (low, high) = self.curve()
        return {
            "method": self.name,
            "shots": self.shots,
            "mse_by_step": means.tolist(),
            "ci95_low": low.tolist(),
            "ci95_high": high.tolist(),
            "mse_by_step_per_seed": [errors.mean(0).tolist() for errors in self.errors],
            "fine_tuning_rates_by_step_per_seed": self.rates,
            "cpu_seconds": self.seconds,
        }
