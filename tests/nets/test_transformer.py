"""The transformer is torch's pre-norm encoder under a causal mask when learning, and the same one when acting."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from metarl.errors import ConfigError
from metarl.nets import transformer
from metarl.nets.transformer import FIRST_CAPACITY, Transformer, positions

T, B, D = 9, 4, 3
NET = Transformer(D, model_dim=8, num_layers=2, num_heads=2)


def parameters() -> dict[str, torch.Tensor]:
    """Nothing at its initial value: zero biases and unit gains could be forgotten without being missed."""
    g = torch.Generator().manual_seed(0)
    return {name: value + 0.3 * torch.randn(value.shape, generator=g) for name, value in NET.init(g).items()}


def inputs(num_steps: int = T) -> torch.Tensor:
    return torch.randn(num_steps, B, D, generator=torch.Generator().manual_seed(1))


def step_through(x: torch.Tensor, running: np.ndarray) -> tuple[np.ndarray, transformer.KeyValueCache]:
    """Outputs [T, B, M] and the cache after the last step."""
    params = {name: value.numpy() for name, value in parameters().items()}
    memory, outputs = NET.initial(x.shape[1]), []
    for x_t, moving_t in zip(x.numpy(), running, strict=True):
        y_t, memory = NET.step(params, x_t, memory, moving_t)
        outputs.append(y_t)
    return np.stack(outputs), memory


def torchs_encoder(params: dict[str, torch.Tensor]) -> torch.nn.Module:
    layer = torch.nn.TransformerEncoderLayer(8, 2, 32, dropout=0.0, batch_first=True, norm_first=True)
    encoder = torch.nn.TransformerEncoder(layer, 2, torch.nn.LayerNorm(8), enable_nested_tensor=False)
    state = {"norm.weight": params["gain_output"], "norm.bias": params["shift_output"]}
    for i in range(2):
        theirs = {
            "self_attn.in_proj_weight": params[f"w_qkv{i}"].T,
            "self_attn.in_proj_bias": torch.zeros(24),
            "self_attn.out_proj.weight": params[f"w_mix{i}"].T,
            "self_attn.out_proj.bias": params[f"b_mix{i}"],
            "linear1.weight": params[f"w_up{i}"].T,
            "linear1.bias": params[f"b_up{i}"],
            "linear2.weight": params[f"w_down{i}"].T,
            "linear2.bias": params[f"b_down{i}"],
            "norm1.weight": params[f"gain_attention{i}"],
            "norm1.bias": params[f"shift_attention{i}"],
            "norm2.weight": params[f"gain_mlp{i}"],
            "norm2.bias": params[f"shift_mlp{i}"],
        }
        state |= {f"layers.{i}.{name}": value for name, value in theirs.items()}
    encoder.load_state_dict(state)
    return encoder


def test_sequence_equals_torchs_causal_encoder_with_the_same_parameters():
    params, x = parameters(), inputs()
    z = x @ params["w_embed"] + params["b_embed"]
    z = z + torch.from_numpy(positions(np.arange(T), 8)).float()[:, None]
    mask = torch.ones(T, T, dtype=torch.bool).triu(1)  # True: not to be looked at
    expected = torchs_encoder(params)(z.transpose(0, 1), mask=mask).transpose(0, 1)
    output, memory = NET.sequence(params, x)
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=0)
    assert memory is None


def test_positions_are_sines_and_cosines_of_two_speeds():
    """M = 4: the second pair turns 10000^(2/4) = 100 times as slowly as the first."""
    expected = [
        [0.0, 1.0, 0.0, 1.0],
        [math.sin(1), math.cos(1), math.sin(0.01), math.cos(0.01)],
        [math.sin(300), math.cos(300), math.sin(3), math.cos(3)],
    ]
    np.testing.assert_allclose(positions(np.array([0, 1, 300]), 4), expected, atol=1e-12)


def test_steps_equal_the_sequence():
    x = inputs()
    expected, _ = NET.sequence(parameters(), x)
    outputs, memory = step_through(x, np.ones((T, B), bool))
    assert outputs.dtype == np.float32
    np.testing.assert_allclose(outputs, expected, atol=1e-5)
    np.testing.assert_array_equal(memory.length, [T] * B)


def test_a_row_frozen_in_between_equals_the_sequence_of_its_own_steps():
    params, x = parameters(), inputs()
    running = np.random.default_rng(0).random((T, B)) < 0.6
    running[0, 0] = False  # a row without any past that does not move
    outputs, memory = step_through(x, running)
    assert np.isfinite(outputs).all()
    np.testing.assert_array_equal(memory.length, running.sum(0))
    for row in range(B):
        assert 0 < running[:, row].sum() < T
        expected, _ = NET.sequence(params, x[torch.from_numpy(running[:, row])][:, [row]])
        np.testing.assert_allclose(outputs[running[:, row], row], expected[:, 0], atol=1e-5)


def test_a_frozen_row_keeps_its_memory_and_the_others_append_to_theirs():
    params, x = {name: value.numpy() for name, value in parameters().items()}, inputs().numpy()
    _, before = NET.step(params, x[0], NET.initial(B), np.ones(B, bool))
    keys, values = before.keys.copy(), before.values.copy()
    running = np.array([True, False, True, False])
    _, after = NET.step(params, x[1], before, running)
    np.testing.assert_array_equal(after.length, [2, 1, 2, 1])
    np.testing.assert_array_equal(before.length, [1, 1, 1, 1])
    for kept, copy in ((after.keys, keys), (after.values, values)):
        np.testing.assert_array_equal(kept[:, ~running], copy[:, ~running])
        np.testing.assert_array_equal(kept[:, running, :, :1], copy[:, running, :, :1])
        assert (kept[:, running, :, 1] != 0).all()


def test_what_a_frozen_row_is_shown_changes_nothing_later():
    x, running = inputs(), np.ones((T, B), bool)
    running[3:6, 1] = False
    disturbed = x.clone()
    disturbed[3:6, 1] = float("nan")
    outputs, _ = step_through(x, running)
    others, _ = step_through(disturbed, running)
    np.testing.assert_array_equal(outputs[running], others[running])


def test_the_future_does_not_change_the_past():
    params, x = parameters(), inputs()
    changed = x.clone()
    changed[4:] += 1
    output, _ = NET.sequence(params, x)
    other, _ = NET.sequence(params, changed)
    torch.testing.assert_close(output[:4], other[:4], atol=1e-6, rtol=0)
    assert (output[4:] - other[4:]).abs().amax(-1).min() > 1e-3


def test_the_order_of_the_past_matters():
    params, x = parameters(), inputs()
    swapped = x[[1, 0, *range(2, T)]]
    assert (NET.sequence(params, x)[0][-1] - NET.sequence(params, swapped)[0][-1]).abs().max() > 1e-3


def test_a_memory_is_refused_by_the_sequence():
    with pytest.raises(ValueError, match="whole trials only"):
        NET.sequence(parameters(), inputs(), NET.initial(B))


def test_gradients_agree_with_finite_differences_and_reach_every_parameter_and_the_input():
    names = list(parameters())
    leaves = [value.double().requires_grad_() for value in parameters().values()]
    x = inputs(4)[:, :2].double().requires_grad_()

    def output(x: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        return NET.sequence(dict(zip(names, values, strict=True)), x)[0]

    assert torch.autograd.gradcheck(output, (x, *leaves), fast_mode=True)
    # Not the plain sum: over a normalised output it is constant in everything but the last gain and shift.
    weights = torch.randn(4, 2, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    grads = torch.autograd.grad((output(x, *leaves) * weights).sum(), (x, *leaves))
    for name, grad in zip(("x", *names), grads, strict=True):
        assert (grad.abs() > 1e-9).double().mean() > 0.5, name  # a unit whose ReLU never opened gets none
    for i in range(NET.num_layers):
        assert (grads[1 + names.index(f"w_qkv{i}")].abs() > 1e-9).all()


def test_growing_the_cache_past_its_first_capacity_is_exact(monkeypatch):
    num_steps = 2 * FIRST_CAPACITY + 5
    x, running = inputs(num_steps), np.ones((num_steps, B), bool)
    running[FIRST_CAPACITY - 1 : FIRST_CAPACITY + 1, 1] = False  # one row rests while the others fill the cache
    grown, memory = step_through(x, running)
    assert memory.keys.shape[3] == 4 * FIRST_CAPACITY
    np.testing.assert_allclose(grown[:, 0], NET.sequence(parameters(), x)[0][:, 0], atol=1e-5)
    monkeypatch.setattr(transformer, "FIRST_CAPACITY", 4 * FIRST_CAPACITY)
    roomy, never_grown = step_through(x, running)
    np.testing.assert_array_equal(grown[running], roomy[running])
    np.testing.assert_array_equal(memory.keys, never_grown.keys)
    np.testing.assert_array_equal(memory.values, never_grown.values)


@pytest.mark.parametrize(("model_dim", "num_heads"), [(8, 3), (9, 3), (8, 0), (0, 1)])
def test_a_width_that_heads_or_positions_do_not_divide_is_refused(model_dim, num_heads):
    with pytest.raises(ConfigError, match=f"model_dim is {model_dim} with num_heads {num_heads}"):
        Transformer(D, model_dim, 1, num_heads)


def test_equal_seeds_give_equal_parameters_without_touching_the_global_generator():
    before = torch.random.get_rng_state()
    first, second = (NET.init(torch.Generator().manual_seed(3)) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(before, torch.random.get_rng_state())
