"""The recurrent actor-critic: what acting computes step by step is what learning differentiates."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from metarl.kernels.gru import GRU
from metarl.kernels.lstm import LSTM
from metarl.nets.recurrent_policy import Core, Memoryless, RecurrentPolicy
from metarl.nets.transformer import Transformer

T, B, OBS, ACTIONS, ENCODED = 12, 3, 4, 2, 6
DIM = RecurrentPolicy.encoded_dim(ENCODED)
CORES: dict[str, Core] = {
    "gru": GRU(DIM, 8),
    "lstm": LSTM(DIM, 8),
    "transformer": Transformer(DIM, 8, 2, 2),
    "memoryless": Memoryless(GRU(DIM, 8)),
}


def policy(core: Core, discrete: bool = False) -> RecurrentPolicy:
    return RecurrentPolicy(OBS, ACTIONS, discrete, core, ENCODED, 5, init_std=0.5, min_std=0.05)


def lively(net: RecurrentPolicy) -> dict[str, torch.Tensor]:
    """Parameters whose outputs are not all near zero."""
    generator = torch.Generator().manual_seed(0)
    return {n: v + 0.2 * torch.randn(v.shape, generator=generator) for n, v in net.init(generator).items()}


def inputs(net: RecurrentPolicy) -> torch.Tensor:
    return torch.randn(T, B, net.input_dim, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", CORES)
@pytest.mark.parametrize("discrete", [False, True])
def test_the_sequence_equals_acting_step_by_step(name, discrete):
    net = policy(CORES[name], discrete)
    params, x = lively(net), inputs(net)
    distribution, values = net.forward(params, x)
    prepared = net.prepared({n: v.numpy() for n, v in params.items()})
    memory = net.core.initial(B)
    for t in range(T):
        core, encoded, memory = net.step(prepared, x[t].numpy(), memory, np.ones(B, bool))
        output, value = net.heads(prepared, core, encoded)
        np.testing.assert_allclose(output, distribution[0][t], atol=1e-5)
        np.testing.assert_allclose(value, values[t], atol=1e-5)


@pytest.mark.parametrize("name", ["gru", "lstm", "transformer"])
def test_the_past_reaches_the_present_but_the_future_does_not(name):
    net = policy(CORES[name])
    params, x = lively(net), inputs(net).requires_grad_()
    _, values = net.forward(params, x)
    reach = torch.autograd.grad(values[6].sum(), x)[0].abs().sum((1, 2))
    assert (reach[:7] > 0).all()
    assert (reach[7:] == 0).all()


def test_without_memory_only_the_present_counts():
    net = policy(CORES["memoryless"])
    x = inputs(net).requires_grad_()
    _, values = net.forward(lively(net), x)
    reach = torch.autograd.grad(values[6].sum(), x)[0].abs().sum((1, 2))
    assert reach[6] > 0
    assert float(reach.sum()) == float(reach[6])


@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_segments_leave_the_values_and_cut_the_gradients(name):
    net = policy(CORES[name])
    params, x = lively(net), inputs(net).requires_grad_()
    _, whole = net.forward(params, x)
    _, cut = net.forward(params, x, segment=4)
    torch.testing.assert_close(whole, cut)
    reach = torch.autograd.grad(cut[6].sum(), x)[0].abs().sum((1, 2))
    assert (reach[:4] == 0).all()
    assert (reach[4:7] > 0).all()


@pytest.mark.parametrize("name", CORES)
def test_gradients_reach_every_parameter(name):
    net = policy(CORES[name])
    params = {n: v.requires_grad_() for n, v in lively(net).items()}
    distribution, values = net.forward(params, inputs(net))
    loss = distribution.log_prob(torch.ones(T, B, ACTIONS)).sum() + (values**2).sum()
    gradients = torch.autograd.grad(loss, list(params.values()), allow_unused=True, materialize_grads=True)
    idle = {n for n, g in zip(params, gradients, strict=True) if float(g.abs().sum()) == 0}
    assert idle == ({"core.w_hh"} if name == "memoryless" else set())  # a memory of zeros times anything


def test_first_actions_are_near_the_middle_of_the_range():
    net = policy(CORES["gru"])
    distribution, _ = net.forward(net.init(torch.Generator().manual_seed(0)), inputs(net))
    assert float(distribution[0].abs().max()) < 0.1
