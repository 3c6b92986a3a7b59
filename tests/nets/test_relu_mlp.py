"""Stacked perceptrons: each member is a perceptron of its own; NumPy acts the same."""

from __future__ import annotations

import numpy as np
import torch

from metarl.nets.relu_mlp import ReluMLP

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
