"""The written-out recurrent unit against torch's own, and its NumPy step against both."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from metarl.kernels.gru import GRU

T, B, D, H = 21, 3, 5, 4  # longer than two blocks of the backward pass, and not a multiple of them
GRU_UNDER_TEST = GRU(D, H)


def parameters(dtype: torch.dtype = torch.float64) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    drawn = GRU_UNDER_TEST.init(generator)
    return {
        n: (v + 0.3 * torch.randn(v.shape, generator=generator)).to(dtype).requires_grad_() for n, v in drawn.items()
    }


def inputs(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(T, B, D, generator=torch.Generator().manual_seed(1)).to(dtype).requires_grad_()


def test_outputs_and_all_gradients_equal_those_of_torchs_gru():
    params, x = parameters(), inputs()
    h_0 = torch.randn(B, H, generator=torch.Generator().manual_seed(2)).double().requires_grad_()
    reference = torch.nn.GRU(D, H).double()
    reference.load_state_dict({f"{name[0]}{NAMES[name]}": value.detach() for name, value in params.items()})
    expected, last = reference(x, h_0[None])
    outputs, memory = GRU_UNDER_TEST.sequence(params, x, h_0)
    torch.testing.assert_close(outputs, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(memory, last[0], rtol=1e-12, atol=1e-12)
    weight = torch.randn(T, B, H, generator=torch.Generator().manual_seed(3)).double()
    ours = torch.autograd.grad((outputs * weight).sum() + (memory**2).sum(), [x, h_0, *params.values()])
    order = {"w_ih": 0, "w_hh": 1, "b_ih": 2, "b_hh": 3}
    theirs = [dict(reference.named_parameters())[f"{n[0]}{NAMES[n]}"] for n in params]
    wanted = torch.autograd.grad((expected * weight).sum() + (last[0] ** 2).sum(), [x, h_0, *theirs])
    assert list(params) == list(order)
    for got, want in zip(ours, wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)


NAMES = {"w_ih": "eight_ih_l0", "w_hh": "eight_hh_l0", "b_ih": "ias_ih_l0", "b_hh": "ias_hh_l0"}


def test_gradients_equal_finite_differences():
    params, x = parameters(), inputs()[:10].detach().requires_grad_()
    names = list(params)

    def run(x: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        return GRU_UNDER_TEST.sequence(dict(zip(names, values, strict=True)), x)[0]

    assert torch.autograd.gradcheck(run, (x, *params.values()))


def test_a_sequence_equals_its_steps():
    params, x = parameters(torch.float32), inputs(torch.float32)
    arrays = {name: value.detach().numpy() for name, value in params.items()}
    expected = GRU_UNDER_TEST.sequence(params, x)[0].detach().numpy()
    memory = GRU_UNDER_TEST.initial(B)
    for t in range(T):
        output, memory = GRU_UNDER_TEST.step(arrays, x[t].detach().numpy(), memory, np.ones(B, bool))
        np.testing.assert_allclose(output, expected[t], atol=1e-5)


def test_two_halves_with_the_memory_between_them_equal_the_whole():
    params, x = parameters(), inputs()
    whole, _ = GRU_UNDER_TEST.sequence(params, x)
    first, memory = GRU_UNDER_TEST.sequence(params, x[:9])
    second, _ = GRU_UNDER_TEST.sequence(params, x[9:], memory)
    torch.testing.assert_close(torch.cat((first, second)), whole)


def test_rows_that_rest_keep_their_memory_and_others_move():
    arrays = {name: value.detach().numpy() for name, value in parameters(torch.float32).items()}
    memory = np.random.default_rng(0).standard_normal((B, H)).astype(np.float32)
    output, after = GRU_UNDER_TEST.step(arrays, np.ones((B, D), np.float32), memory, np.array([True, False, True]))
    np.testing.assert_array_equal(after[1], memory[1])
    np.testing.assert_array_equal(output[1], memory[1])  # the output of its last step
    assert (after[[0, 2]] != memory[[0, 2]]).all()


@pytest.mark.parametrize("scale", [30.0, -30.0])
def test_saturated_gates_stay_finite_forward_and_backward(scale):
    params = {name: (scale * value).detach().requires_grad_() for name, value in parameters(torch.float32).items()}
    outputs, _ = GRU_UNDER_TEST.sequence(params, inputs(torch.float32))
    gradients = torch.autograd.grad(outputs.sum(), list(params.values()))
    assert all(torch.isfinite(value).all() for value in (outputs, *gradients))
