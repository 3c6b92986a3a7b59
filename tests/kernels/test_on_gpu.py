"""On a GPU the kernels take other paths (cuDNN, batched products): outputs and gradients equal those on a CPU."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from metarl.kernels.batched_mlp import batched_mlp
from metarl.kernels.gru import GRU
from metarl.kernels.lstm import LSTM
from metarl.kernels.relu_mlp import ReluMLP

pytestmark = pytest.mark.gpu
Params = dict[str, Tensor]


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def drawn(net: GRU | LSTM | ReluMLP) -> Params:
    params = net.init(torch.Generator().manual_seed(0))
    return {name: value.double() + 0.1 * draw(*value.shape) for name, value in params.items()}


def tanh_mlp(params: Params, x: Tensor) -> Tensor:
    return batched_mlp(x, list(params.values()))


GRU_CORE, LSTM_CORE = GRU(5, 8), LSTM(5, 8)
PAIR = ReluMLP("critics", (5, 16, 1), members=2)
TANH_PARAMS = {"w0": draw(4, 5, 16), "b0": draw(4, 16), "w1": draw(4, 16, 3), "b1": draw(4, 3)}
KERNELS: dict[str, tuple[Callable[[Params, Tensor], Tensor], Params, Tensor]] = {
    "GRU": (lambda p, x: GRU_CORE.sequence(p, x)[0], drawn(GRU_CORE), draw(20, 3, 5)),
    "LSTM": (lambda p, x: LSTM_CORE.sequence(p, x)[0], drawn(LSTM_CORE), draw(20, 3, 5)),
    "critics": (lambda p, x: PAIR(p, x), drawn(PAIR), draw(700, 5)),
    "tanh perceptron": (tanh_mlp, TANH_PARAMS, draw(4, 50, 5)),
}


@pytest.mark.parametrize("name", KERNELS)
def test_outputs_and_gradients_equal_those_on_a_cpu(name):
    function, params, x = KERNELS[name]
    results = []
    for device in ("cpu", "cuda"):
        placed = {n: value.to(device).requires_grad_() for n, value in params.items()}
        output = function(placed, x.to(device))
        results.append(
            [output, *torch.autograd.grad((output * draw(*output.shape).to(device)).sum(), list(placed.values()))]
        )
    for on_cpu, on_gpu in zip(*results, strict=True):
        torch.testing.assert_close(on_gpu.cpu(), on_cpu, rtol=1e-9, atol=1e-9)


def test_the_tanh_perceptrons_second_derivatives_equal_those_on_a_cpu():
    function, params, x = KERNELS["tanh perceptron"]
    results = []
    for device in ("cpu", "cuda"):
        placed = {n: value.to(device).requires_grad_() for n, value in params.items()}
        output = function(placed, x.to(device))
        first = torch.autograd.grad((output**2).sum(), list(placed.values()), create_graph=True)
        results.append(torch.autograd.grad(torch.stack([(g**2).sum() for g in first]).sum(), list(placed.values())))
    for on_cpu, on_gpu in zip(*results, strict=True):
        torch.testing.assert_close(on_gpu.cpu(), on_cpu, rtol=1e-9, atol=1e-9)
