"""Stacked perceptrons: each member is a perceptron of its own; NumPy acts the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from metarl.kernels.relu_mlp import ReluMLP

SIZES = (3, 5, 4, 2)
X = torch.randn(7, 3, generator=torch.Generator().manual_seed(1))


def parameters(net: ReluMLP) -> dict[str, torch.Tensor]:
    return net.init(torch.Generator().manual_seed(0))


def test_each_member_is_the_single_net_with_its_parameters():
    pair, single = ReluMLP("q", SIZES, members=2), ReluMLP("q", SIZES)
    params = parameters(pair)
    outputs = pair(params, X)
    assert outputs.shape == (2, 7, 2)
    for member in range(2):
        alone = single({name: value[member] for name, value in params.items()}, X)
        torch.testing.assert_close(outputs[member], alone)
    assert not torch.allclose(outputs[0], outputs[1])


def test_the_net_is_linear_layers_with_relu_between():
    net = ReluMLP("pi", SIZES)
    params = parameters(net)
    h = torch.relu(X @ params["pi.w0"] + params["pi.b0"])
    h = torch.relu(h @ params["pi.w1"] + params["pi.b1"])
    torch.testing.assert_close(net(params, X), h @ params["pi.w2"] + params["pi.b2"])


def test_acting_computes_the_same():
    net = ReluMLP("pi", SIZES)
    params = parameters(net)
    acted = net.act({name: value.numpy() for name, value in params.items()}, X.numpy())
    np.testing.assert_allclose(acted, net(params, X), atol=1e-6)


def test_first_outputs_are_near_zero():
    net = ReluMLP("pi", SIZES)
    assert float(net(parameters(net), X).abs().max()) < 0.02


@pytest.mark.parametrize("members", [None, 2])
@pytest.mark.parametrize("rows", [7, 1100])
def test_the_perceptrons_written_passes_have_torchs_derivatives(members, rows):
    net = ReluMLP("q", (20, 64, 64, 3), members)
    params = {name: value.requires_grad_() for name, value in net.init(torch.Generator().manual_seed(0)).items()}
    x = torch.randn(rows, 20, generator=torch.Generator().manual_seed(1)).requires_grad_()

    def by_torch() -> torch.Tensor:
        h = x
        for i in range(3):
            w, b = params[f"q.w{i}"], params[f"q.b{i}"]
            h = h @ w + (b if members is None else b[:, None])
            h = torch.relu(h) if i < 2 else h
        return h

    leaves = [x, *params.values()]
    output, expected = net(params, x), by_torch()
    torch.testing.assert_close(output, expected)
    d = torch.randn(output.shape, generator=torch.Generator().manual_seed(2))
    ours, theirs = torch.autograd.grad(output, leaves, d), torch.autograd.grad(expected, leaves, d)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)
