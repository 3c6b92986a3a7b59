"""Whatever library multiplies, the product is the same to rounding, and so are derivatives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from metarl.kernels import products
from metarl.kernels.processor import onednn_float32_pays
from metarl.kernels.products import linear, product


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


NEEDS_ONEDNN = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch is built without oneDNN")
LIBRARIES = pytest.mark.parametrize(
    "uses_onednn", [False, pytest.param(True, marks=NEEDS_ONEDNN)], ids=["blas", "onednn"]
)
SHAPES = [(3, 4, 5), (512, 300, 300), (2048, 28, 300), (300, 4096, 28), (28, 4096, 300), (1, 2048, 2048)]


@LIBRARIES
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("layout", ["rows", "columns", "gaps"])
def test_product_is_the_matrix_product_for_every_layout(shape, layout, uses_onednn, monkeypatch):
    monkeypatch.setattr(products, "USES_ONEDNN", uses_onednn)
    M, D, N = shape
    a, b = normal(M, D), normal(D, N, seed=1)
    expected = a.double() @ b.double()
    if layout == "columns":
        a, b = a.T.contiguous().T, b.T.contiguous().T
    elif layout == "gaps":
        a, b = torch.cat((a, a), dim=1)[:, :D], torch.cat((b, b), dim=1)[:, :N]
    torch.testing.assert_close(product(a, b).double(), expected, rtol=1e-4, atol=1e-4 * D**0.5)


@LIBRARIES
@pytest.mark.parametrize("rows", [3, 4096])
def test_linear_has_the_values_and_derivatives_of_torchs(rows, uses_onednn, monkeypatch):
    monkeypatch.setattr(products, "USES_ONEDNN", uses_onednn)
    w, b, d = normal(64, 40, seed=1), normal(64, seed=2), normal(2, rows, 64, seed=3)
    results = []
    for function in (linear, torch.nn.functional.linear):
        inputs = [x.clone().requires_grad_() for x in (normal(2, rows, 40), w, b)]
        output = function(*inputs)
        results.append((output, *torch.autograd.grad(output, inputs, d)))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)


def test_only_the_derivatives_asked_for_are_computed():
    x, w, b = normal(5, 3), normal(4, 3).requires_grad_(), normal(4)
    (gradient,) = torch.autograd.grad(linear(x, w, b).sum(), [w])
    torch.testing.assert_close(gradient, x.sum(0).expand(4, 3))


@NEEDS_ONEDNN
def test_large_products_by_onednn_do_not_depend_on_where_the_operands_lie_in_memory(monkeypatch):
    monkeypatch.setattr(products, "USES_ONEDNN", True)
    a, b = normal(512, 300), normal(300, 300, seed=1)
    moved = torch.empty(512 * 300 + 1)[1:].view(512, 300).copy_(a)
    assert torch.equal(product(a, b), product(moved, b))


def test_without_onednn_the_blas_multiplies(monkeypatch):
    a, b = normal(512, 300), normal(300, 300, seed=1)
    monkeypatch.setattr(products, "USES_ONEDNN", False)
    assert torch.equal(product(a, b), a @ b)


@NEEDS_ONEDNN
@pytest.mark.parametrize(("rows", "is_onednn"), [(2, False), (512, True)])
def test_with_onednn_the_large_products_go_there_and_the_small_ones_do_not(rows, is_onednn, monkeypatch):
    calls = []

    def recorded(a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
        calls.append(a.shape)
        return a @ b

    monkeypatch.setattr(products, "USES_ONEDNN", True)
    monkeypatch.setattr(products, "multiply_onednn", recorded)
    product(normal(rows, 300), normal(300, 300, seed=1))
    assert bool(calls) is is_onednn


def test_the_processor_chooses_the_library():
    assert (torch.backends.mkldnn.is_available() and onednn_float32_pays()) is products.USES_ONEDNN
