"""Gradient steps as functions, and the exact derivative through them. Model-agnostic: RL and regression alike.

    theta_{i+1} = theta_i - alpha * g_i(theta_i),   g_i = grad L_i          (alpha per parameter or scalar)
    dL/dtheta_i = w - H_i (alpha * w) + (de_i/dtheta_i)' u,   w = dL/dtheta_{i+1},   H_i = Hessian of L_i
    dL/dalpha  -= g_i * w

e_i are further terms of the meta-loss that read theta_i, and u its derivative in their sum over steps. Parameters are
dicts of tensors with a leading task axis K; a loss is summed over tasks, and since tasks share nothing, one backward
pass gives every task's own gradient. The recursion is explicit, so that first order is leaving a term out and the
Jacobian products of a trust region reuse the same graphs.
Source: Finn et al. 2017, eqs. 1-2; Li et al. 2017 (learned rates).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Params = dict[str, Tensor]
Rates = Mapping[str, Tensor]
# Parameters [K, ...] to the loss adapted on, summed over tasks, and to the terms [K] of the meta-loss, by name.
SupportLoss = Callable[[Params], tuple[Tensor, Params]]
Projection = Callable[[Params, Params], Params]  # parameters before and after a step to those that it ends at


@dataclass(frozen=True)
class InnerStep:
    """One step's graph: the parameters it started from, the gradient there, the meta-loss's terms there."""

    params: Params
    grads: Params
    terms: Params


def leaves(params: Mapping[str, Tensor]) -> Params:
    """The same values as fresh leaves that gradients can be taken for."""
    return {name: value.detach().requires_grad_() for name, value in params.items()}


def sgd(params: Mapping[str, Tensor], grads: Mapping[str, Tensor], rates: Rates) -> Params:
    """theta - alpha * g; no in-place edit."""
    return {name: value - rates[name] * grads[name] for name, value in params.items()}


@dataclass(frozen=True)
class Adaptation:
    """What a meta-loss reads, as leaves: adapted parameters [K, ...] and the terms' sums over steps [K]. And the graphs
    of the steps that led there."""

    adapted: Params
    terms: Params
    steps: tuple[InnerStep, ...]
    rates: Rates
    second_order: bool

    def meta_gradient(self, loss: Tensor, retain_graph: bool = False) -> tuple[Params, Params]:
        """dL/dtheta and dL/dalpha of a loss of `adapted` and `terms`, [K, ...] each, not yet summed over tasks."""
        w = gradient(loss, {**self.adapted, **self.terms}, retain_graph)
        u = {name: w.pop(name) for name in self.terms}
        return self.pull_back(w, u, retain_graph)

    def pull_back(
        self, w: Mapping[str, Tensor], u: Mapping[str, Tensor] | None = None, retain_graph: bool = False
    ) -> tuple[Params, Params]:
        """J^T w and its counterpart for alpha from w = dL/dtheta_adapted; `u` adds the derivative in the terms."""
        w = dict(w)
        d_rates = {name: torch.zeros_like(value) for name, value in w.items()}
        for step in reversed(self.steps):
            d_rates = {name: d_rates[name] - step.grads[name].detach() * w[name] for name in w}
            outputs: list[Tensor] = []
            cotangents: list[Tensor] = []
            if self.second_order:
                outputs += list(step.grads.values())
                cotangents += [-self.rates[name] * w[name] for name in step.grads]
            if u:
                outputs += [step.terms[name] for name in u]
                cotangents += list(u.values())
            if outputs:
                products = _vjp(outputs, step.params, cotangents, retain_graph)
                w = {name: value + products[name] for name, value in w.items()}
        return w, d_rates

    def push_forward(self, tangent: Mapping[str, Tensor], rates_tangent: Mapping[str, Tensor] | None = None) -> Params:
        """J v: how the adapted parameters move with theta (and with the rates). Keeps the graphs.

        H is symmetric, so H v comes from the same backward graph as H^T w.
        """
        v = dict(tangent)
        for step in self.steps:
            moved = v
            if self.second_order:
                Hv = _vjp(list(step.grads.values()), step.params, [v[name] for name in step.grads], retain_graph=True)
                moved = {name: value - self.rates[name] * Hv[name] for name, value in v.items()}
            if rates_tangent is not None:
                moved = {n: value - step.grads[n].detach() * rates_tangent[n] for n, value in moved.items()}
            v = moved
        return v


def adapt(
    params: Mapping[str, Tensor],
    losses: Sequence[SupportLoss],
    rates: Rates,
    second_order: bool = True,
    project: Projection | None = None,
) -> Adaptation:
    """Take one gradient step per loss.

    `project` puts every step's end into an allowed set. Derivatives take it for the identity, so that a parameter at
    the set's edge keeps its gradient.
    """
    current, steps = leaves(params), []
    for loss in losses:
        value, terms = loss(current)
        grads = torch.autograd.grad(value, list(current.values()), create_graph=second_order, retain_graph=True)
        step = InnerStep(current, dict(zip(current, grads, strict=True)), terms)
        steps.append(step)
        with torch.no_grad():
            end = sgd(current, step.grads, rates)
            end = end if project is None else project(current, end)
        current = leaves(end)
    names = steps[0].terms if steps else ()
    sums = {name: torch.stack([step.terms[name].detach() for step in steps]).sum(0) for name in names}
    return Adaptation(current, leaves(sums), tuple(steps), rates, second_order)


def gradient(loss: Tensor, params: Params, retain_graph: bool = False) -> Params:
    """d loss / d params by name."""
    grads = torch.autograd.grad(loss, list(params.values()), retain_graph=retain_graph)
    return dict(zip(params, grads, strict=True))


def _vjp(outputs: list[Tensor], params: Params, weights: list[Tensor], retain_graph: bool) -> Params:
    products = torch.autograd.grad(
        outputs, list(params.values()), weights, retain_graph=retain_graph, allow_unused=True, materialize_grads=True
    )
    return dict(zip(params, products, strict=True))
