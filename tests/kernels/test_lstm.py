"""The LSTM is torch's when learning, and the same one when acting."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from metarl.kernels.lstm import LSTM

T, B, D, H = 7, 4, 3, 5
NET = LSTM(D, H)


def parameters() -> dict[str, torch.Tensor]:
    """Nothing at its initial value: biases that are zero could be forgotten without being missed."""
    g = torch.Generator().manual_seed(0)
    return {name: value + 0.3 * torch.randn(value.shape, generator=g) for name, value in NET.init(g).items()}


def inputs() -> torch.Tensor:
    return torch.randn(T, B, D, generator=torch.Generator().manual_seed(1))


def in_numpy(params: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in params.items()}


def test_sequence_equals_torchs_lstm_with_the_same_parameters():
    params, x = parameters(), inputs()
    reference = torch.nn.LSTM(D, H)
    names = {"w_ih": "weight_ih_l0", "w_hh": "weight_hh_l0", "b_ih": "bias_ih_l0", "b_hh": "bias_hh_l0"}
    reference.load_state_dict({names[name]: value for name, value in params.items()})
    h, c = torch.randn(2, B, H, generator=torch.Generator().manual_seed(2))
    for given, theirs in ((None, None), ((h, c), (h[None], c[None]))):
        output, memory = NET.sequence(params, x, given)
        expected, (expected_h, expected_c) = reference(x, theirs)
        torch.testing.assert_close(output, expected, atol=1e-6, rtol=0)
        torch.testing.assert_close(memory, (expected_h[0], expected_c[0]), atol=1e-6, rtol=0)


def test_with_half_open_gates_the_cell_follows_its_recursion():
    """All weights 0 and all gates sigma(0) = 1/2, g = 0.8: c = 0.4, then 0.4 / 2 + 0.4 = 0.6, and h = tanh(c) / 2."""
    net = LSTM(1, 1)
    params = {"w_ih": torch.zeros(4, 1), "w_hh": torch.zeros(4, 1), "b_hh": torch.zeros(4)}
    params["b_ih"] = torch.tensor([0.0, 0.0, math.atanh(0.8), 0.0])
    expected = [math.tanh(0.4) / 2, math.tanh(0.6) / 2]
    output, (_, c) = net.sequence(params, torch.ones(2, 1, 1))
    np.testing.assert_allclose(output[:, 0, 0], expected, atol=1e-6)
    assert c.item() == pytest.approx(0.6)
    memory = net.initial(1)
    for h_t in expected:
        stepped, memory = net.step(in_numpy(params), np.ones((1, 1), np.float32), memory, np.array([True]))
        assert stepped.item() == pytest.approx(h_t)


def test_steps_equal_the_sequence():
    params, x = parameters(), inputs()
    expected, expected_memory = NET.sequence(params, x)
    memory = NET.initial(B)
    for t in range(T):
        h_t, memory = NET.step(in_numpy(params), x[t].numpy(), memory, np.ones(B, bool))
        assert h_t.dtype == np.float32
        np.testing.assert_allclose(h_t, expected[t], atol=1e-5)
    for part, expected_part in zip(memory, expected_memory, strict=True):
        assert part.dtype == np.float32
        np.testing.assert_allclose(part, expected_part, atol=1e-5)


def test_a_frozen_row_keeps_its_memory_and_the_others_move():
    params, x = in_numpy(parameters()), inputs().numpy()
    _, before = NET.step(params, x[0], NET.initial(B), np.ones(B, bool))
    copies = [part.copy() for part in before]
    running = np.array([True, False, True, False])
    output, after = NET.step(params, x[1], before, running)
    np.testing.assert_array_equal(output[~running], copies[0][~running])  # those of their last step
    for part, copy, kept in zip(before, copies, after, strict=True):
        np.testing.assert_array_equal(part, copy)  # a step writes into nobody's memory
        np.testing.assert_array_equal(kept[~running], copy[~running])
        assert (kept[running] != copy[running]).any(1).all()


def test_a_row_frozen_in_between_equals_the_sequence_of_its_own_steps():
    params, x = parameters(), inputs()
    running = np.random.default_rng(0).random((T, B)) < 0.6
    memory, outputs = NET.initial(B), []
    for t in range(T):
        h_t, memory = NET.step(in_numpy(params), x[t].numpy(), memory, running[t])
        outputs.append(h_t)
    for row in range(B):
        assert 0 < running[:, row].sum() < T
        expected, _ = NET.sequence(params, x[torch.from_numpy(running[:, row])][:, [row]])
        np.testing.assert_allclose(np.stack(outputs)[running[:, row], row], expected[:, 0], atol=1e-5)


def test_memory_handed_over_between_two_calls_equals_one_call():
    params, x = parameters(), inputs()
    expected, expected_memory = NET.sequence(params, x)
    first, memory = NET.sequence(params, x[:3])
    second, memory = NET.sequence(params, x[3:], memory)
    torch.testing.assert_close(torch.cat([first, second]), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(memory, expected_memory, atol=1e-6, rtol=0)


def test_gradients_agree_with_finite_differences_and_reach_every_parameter_input_and_memory():
    names = list(parameters())
    leaves = [value.double().requires_grad_() for value in parameters().values()]
    x = inputs()[:3, :2].double().requires_grad_()
    h, c = torch.randn(2, 2, H, generator=torch.Generator().manual_seed(2), dtype=torch.float64).unbind()
    h, c = h.requires_grad_(), c.requires_grad_()

    def outputs(x: torch.Tensor, h: torch.Tensor, c: torch.Tensor, *values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        output, memory = NET.sequence(dict(zip(names, values, strict=True)), x, (h, c))
        return output, *memory

    assert torch.autograd.gradcheck(outputs, (x, h, c, *leaves))
    grads = torch.autograd.grad(outputs(x, h, c, *leaves)[0].sum(), (x, h, c, *leaves))
    assert all((grad != 0).all() for grad in grads)


def test_fresh_parameters_are_orthogonal_gates_and_a_forget_bias_of_one():
    params = NET.init(torch.Generator().manual_seed(0))
    for gate in params["w_hh"].view(4, H, H):
        torch.testing.assert_close(gate @ gate.T, torch.eye(H), atol=1e-5, rtol=0)
    bias = (params["b_ih"] + params["b_hh"]).view(4, H)  # i, f, g, o
    torch.testing.assert_close(bias, torch.tensor([0.0, 1.0, 0.0, 0.0])[:, None].expand(4, H), atol=0, rtol=0)


def test_equal_seeds_give_equal_parameters_without_touching_the_global_generator():
    before = torch.random.get_rng_state()
    first, second = (NET.init(torch.Generator().manual_seed(3)) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(before, torch.random.get_rng_state())
