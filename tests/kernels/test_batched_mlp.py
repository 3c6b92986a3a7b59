"""The written-out derivatives of the batched perceptron against automatic differentiation and finite differences."""

from __future__ import annotations

import itertools

import pytest
import torch

from metarl.kernels.batched_mlp import batched_mlp, linearised_mlp

K, B = 3, 7


def problem(hidden: tuple[int, ...]) -> tuple[torch.Tensor, list[torch.Tensor]]:
    g = torch.Generator().manual_seed(0)
    sizes = (4, *hidden, 2)
    x = torch.randn(K, B, 4, generator=g, dtype=torch.float64)
    params = []
    for fan_in, fan_out in itertools.pairwise(sizes):
        params.append(torch.randn(K, fan_in, fan_out, generator=g, dtype=torch.float64, requires_grad=True))
        params.append(torch.randn(K, fan_out, generator=g, dtype=torch.float64, requires_grad=True))
    return x, params


def by_hand(x: torch.Tensor, params: list[torch.Tensor]) -> torch.Tensor:
    for i in range(0, len(params), 2):
        x = torch.einsum("kbi,kio->kbo", x, params[i]) + params[i + 1][:, None]
        x = torch.tanh(x) if i < len(params) - 2 else x
    return x


@pytest.mark.parametrize("hidden", [(), (5,), (5, 6), (5, 6, 3)])
def test_first_and_second_derivatives_agree_with_finite_differences(hidden):
    x, params = problem(hidden)
    f = lambda *p: batched_mlp(x, p)  # noqa: E731
    assert torch.autograd.gradcheck(f, params)
    assert torch.autograd.gradgradcheck(f, params)


@pytest.mark.parametrize("hidden", [(), (5, 6)])
def test_output_equals_the_formula(hidden):
    x, params = problem(hidden)
    torch.testing.assert_close(batched_mlp(x, params), by_hand(x, params), atol=1e-13, rtol=0)


@pytest.mark.parametrize("hidden", [(), (5, 6)])
def test_tangent_equals_the_jacobian_product(hidden):
    x, params = problem(hidden)
    direction = [torch.randn_like(p) for p in params]
    cotangent = torch.zeros(K, B, 2, dtype=torch.float64, requires_grad=True)
    pulled = torch.autograd.grad(by_hand(x, params), params, cotangent, create_graph=True)
    (expected,) = torch.autograd.grad(pulled, cotangent, direction)  # d/du <J'u, V> = J V
    torch.testing.assert_close(linearised_mlp(x, params)(direction), expected, atol=1e-12, rtol=0)
