"""Gradient steps as functions, and the exact derivative through them. Model-agnostic: RL and regression alike.

    theta_{i+1} = theta_i - alpha * g_i(theta_i),   g_i = grad L_i          (alpha per parameter or scalar)
    dL/dtheta_i = w - H_i (alpha * w) + de_i/dtheta_i,   w = dL/dtheta_{i+1},   H_i = Hessian of L_i
    dL/dalpha  -= g_i * w

Parameters are dicts of tensors with a leading task axis K; a loss is summed over tasks, and since tasks
share nothing, one backward pass gives every task's own gradient. The recursion is explicit, so that first
order is leaving a term out and the Jacobian products of a trust region reuse the same graphs.
Source: Finn et al. 2017, eqs. 1-2; Li et al. 2017 (learned rates).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Params = dict[str, Tensor]
Rates = Mapping[str, Tensor]
# A support loss: parameters [K, ...] to (the adapted-on loss, an extra term of the meta-loss), summed over tasks.
SupportLoss = Callable[[Params], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class InnerStep:
    """One step's graph: the parameters it started from, the gradient there, the extra meta-loss term."""

    params: Params
    grads: Params
    extra: Tensor


def leaves(params: Mapping[str, Tensor]) -> Params:
    """The same values as fresh leaves that gradients can be taken for."""
    return {name: value.detach().requires_grad_() for name, value in params.items()}


def sgd(params: Mapping[str, Tensor], grads: Mapping[str, Tensor], rates: Rates) -> Params:
    """theta - alpha * g; no in-place edit."""
    return {name: value - rates[name] * grads[name] for name, value in params.items()}


@dataclass(frozen=True)
class Adaptation:
    """Adapted parameters (leaves) [K, ...] and the graphs of the steps that led there."""

    adapted: Params
    steps: tuple[InnerStep, ...]
    rates: Rates
    second_order: bool

    @property
    def extra(self) -> Tensor:
        """The sum of the steps' extra terms, without graph."""
        return torch.stack([step.extra.detach() for step in self.steps]).sum()

    def pull_back(
        self, cotangent: Mapping[str, Tensor], with_extra: bool = True, retain_graph: bool = False
    ) -> tuple[Params, Params]:
        """dL/dtheta and dL/dalpha from w = dL/dtheta_adapted, [K, ...] each, not yet summed over tasks.

        `with_extra` adds the gradient of the steps' extra terms; without it this is the product J^T w.
        """
        w = dict(cotangent)
        d_rates = {name: torch.zeros_like(value) for name, value in w.items()}
        for step in reversed(self.steps):
            d_rates = {name: d_rates[name] - step.grads[name].detach() * w[name] for name in w}
            outputs: list[Tensor] = []
            weights: list[Tensor] = []
            if self.second_order:
                outputs += list(step.grads.values())
                weights += [-self.rates[name] * w[name] for name in step.grads]
            if with_extra and step.extra.requires_grad:
                outputs.append(step.extra)
                weights.append(torch.ones_like(step.extra))
            if outputs:
                terms = _vjp(outputs, step.params, weights, retain_graph)
                w = {name: value + terms[name] for name, value in w.items()}
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
    params: Mapping[str, Tensor], losses: Sequence[SupportLoss], rates: Rates, second_order: bool = True
) -> Adaptation:
    """Take one gradient step per loss."""
    current, steps = leaves(params), []
    for loss in losses:
        value, extra = loss(current)
        grads = torch.autograd.grad(value, list(current.values()), create_graph=second_order, retain_graph=True)
        step = InnerStep(current, dict(zip(current, grads, strict=True)), extra)
        steps.append(step)
        with torch.no_grad():
            current = sgd(current, step.grads, rates)
        current = leaves(current)
    return Adaptation(current, tuple(steps), rates, second_order)


def gradient(loss: Tensor, params: Params, retain_graph: bool = False) -> Params:
    """d loss / d params by name."""
    grads = torch.autograd.grad(loss, list(params.values()), retain_graph=retain_graph)
    return dict(zip(params, grads, strict=True))


def _vjp(outputs: list[Tensor], params: Params, weights: list[Tensor], retain_graph: bool) -> Params:
    terms = torch.autograd.grad(
        outputs, list(params.values()), weights, retain_graph=retain_graph, allow_unused=True, materialize_grads=True
    )
    return dict(zip(params, terms, strict=True))
