"""Torch's undocumented operators still do what `metarl.kernels._torch_private` says.

Where one of these tests fails after an upgrade of torch, that module is the only place to mend.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from metarl.kernels import _torch_private as private

T, B, D, H = 5, 3, 4, 6
NEEDS_ONEDNN = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch is built without oneDNN")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def assert_same(operator: str, found: Tensor, formula: Tensor) -> None:
    message = f"{operator} of torch {torch.__version__} is not what metarl/kernels/_torch_private.py says: {{}}"
    torch.testing.assert_close(found, formula, rtol=1e-5, atol=1e-5, msg=message.format)


@pytest.mark.parametrize(
    "find",
    [
        pytest.param(lambda: torch.ops.mkldnn._linear_pointwise.default, marks=NEEDS_ONEDNN),
        lambda: torch.ops.aten.tanh_backward.default,
        lambda: torch.ops.aten.threshold_backward.grad_input,
        lambda: torch.gru,
        lambda: torch.lstm,
    ],
    ids=["_linear_pointwise", "tanh_backward", "threshold_backward", "gru", "lstm"],
)
def test_every_operator_is_there(find: Callable[[], object]):
    try:
        operator = find()
    except (AttributeError, RuntimeError) as error:
        pytest.fail(f"torch {torch.__version__} lacks an operator of metarl/kernels/_torch_private.py: {error}")
    assert callable(operator)


@NEEDS_ONEDNN
@pytest.mark.parametrize("by_columns", [False, True])
@pytest.mark.parametrize("has_bias", [False, True])
def test_onednns_product_is_the_matrix_product(by_columns, has_bias):
    a, b, bias = normal(64, 40), normal(40, 24, seed=1), normal(24, seed=2) if has_bias else None
    found = private.multiply_onednn(a, b.T.contiguous().T if by_columns else b, bias)
    assert_same("torch.ops.mkldnn._linear_pointwise", found, a @ b + (0 if bias is None else bias))


def test_times_tanh_slope_is_its_formula():
    g, h = normal(7, 5), torch.tanh(normal(7, 5, seed=1))
    assert_same("torch.ops.aten.tanh_backward", private.times_tanh_slope(g, h), g * (1 - h * h))


def test_relu_slope_is_its_formula_in_place_and_0_at_0():
    g, h = normal(7, 5), normal(7, 5, seed=1)
    h[0] = 0
    expected = torch.where(h > 0, g, 0)
    private.relu_slope_(g, h)
    assert_same("torch.ops.aten.threshold_backward", g, expected)


def recurrent(module: torch.nn.GRU | torch.nn.LSTM) -> list[Tensor]:
    named = dict(module.named_parameters())
    return [named[f"{kind}_l0"] for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]


def test_gru_is_that_of_the_module():
    module, x, h = torch.nn.GRU(D, H), normal(T, B, D), normal(B, H, seed=1)
    outputs, last = private.gru_sequence(x, h, recurrent(module))
    expected, expected_last = module(x, h[None])
    assert_same("torch.gru", outputs, expected)
    assert_same("torch.gru", last, expected_last[0])


def test_lstm_is_that_of_the_module():
    module, x, (h, c) = torch.nn.LSTM(D, H), normal(T, B, D), normal(2, B, H, seed=1)
    outputs, *last = private.lstm_sequence(x, h, c, recurrent(module))
    expected, expected_last = module(x, (h[None], c[None]))
    for found, wanted in zip((outputs, *last), (expected, *(part[0] for part in expected_last)), strict=True):
        assert_same("torch.lstm", found, wanted)


def test_repeat_while_goes_on_from_its_own_results_while_the_condition_holds() -> None:
    count, total = private.repeat_while(
        lambda count, total: total < 10,
        lambda count, total: (count + 1, total + count),
        (torch.tensor(0), torch.tensor(0)),
    )
    assert (int(count), int(total)) == (5, 10)  # 0 + 1 + 2 + 3 + 4
