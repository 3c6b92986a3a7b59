"""Context encoders: no rows are the prior, parts are the whole, padding is nothing, and what the order means."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from metarl.nets.context_encoder import (
    MIN_VAR,
    ContextEncoder,
    PermutationInvariantEncoder,
    RecurrentEncoder,
    RecurrentMemory,
)
from metarl.ops.latents import posterior

B, C, D, Z = 3, 9, 4, 2
ENCODERS: dict[str, ContextEncoder] = {
    "permutation_invariant": PermutationInvariantEncoder("encoder", (D, 8, 8, 2 * Z)),
    "recurrent": RecurrentEncoder("encoder", D, 8, Z),
}
EACH = pytest.mark.parametrize("encoder", ENCODERS.values(), ids=ENCODERS)
NEVER_LIMITED = 10**9


def parameters(encoder: ContextEncoder, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Moved away from the start, where last layers are all but zero."""
    g = torch.Generator().manual_seed(0)
    return {n: (v + 0.3 * torch.randn(v.shape, generator=g)).to(dtype) for n, v in encoder.init(g).items()}


def rows(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(B, C, D, generator=torch.Generator().manual_seed(1)).to(dtype)


def belief(encoder: ContextEncoder, params: dict[str, Tensor], memory: Any) -> tuple[Tensor, Tensor]:
    return posterior(encoder.evidence(params, memory), NEVER_LIMITED)


@EACH
def test_an_empty_context_is_the_prior_exactly(encoder):
    params = parameters(encoder, torch.float32)
    padding = encoder.read(params, rows(torch.float32), mask=torch.zeros(B, C))
    for memory in (encoder.initial(B), padding):
        mean, var = belief(encoder, params, memory)
        assert mean.shape == var.shape == (B, Z)
        assert (mean == 0).all()
        assert (var == 1).all()


@EACH
def test_every_parameter_bears_the_encoders_name(encoder):
    assert all(name.startswith("encoder.") for name in encoder.init(torch.Generator().manual_seed(0)))


@EACH
def test_reading_in_parts_equals_reading_at_once(encoder):
    params, x = parameters(encoder), rows()
    whole = belief(encoder, params, encoder.read(params, x))
    memory = None
    for part in x.split([1, 3, 5], dim=1):
        memory = encoder.read(params, part, memory)
    torch.testing.assert_close(belief(encoder, params, memory), whole, rtol=1e-12, atol=1e-12)


@EACH
def test_the_initial_memory_is_that_of_having_read_nothing(encoder):
    params, x = parameters(encoder, torch.float32), rows(torch.float32)
    torch.testing.assert_close(
        tuple(encoder.read(params, x, encoder.initial(B))), tuple(encoder.read(params, x)), rtol=0, atol=0
    )


@EACH
def test_padding_has_no_say_and_a_context_without_rows_stays_as_it_was(encoder):
    params, x = parameters(encoder), rows()
    before = encoder.read(params, x[:, :4])
    number = torch.tensor([3, 0, 5])
    mask = (torch.arange(5) < number[:, None]).double()
    padded = torch.where(mask[..., None] > 0, x[:, 4:], 1e3)
    mean, var = belief(encoder, params, encoder.read(params, padded, before, mask))
    for b in range(B):
        alone = encoder.read(params, x[b : b + 1, : 4 + int(number[b])])
        expected = belief(encoder, params, alone)
        torch.testing.assert_close((mean[b : b + 1], var[b : b + 1]), expected, rtol=1e-10, atol=1e-12)


@EACH
def test_whether_the_order_matters(encoder):
    params, x = parameters(encoder), rows()
    forward, backward = (belief(encoder, params, encoder.read(params, c))[0] for c in (x, x.flip(1)))
    assert torch.allclose(forward, backward, atol=1e-10) != encoder.ordered


@EACH
def test_gradients_equal_finite_differences(encoder):
    params, x = parameters(encoder), rows()[:2, :5]
    names = list(params)

    def run(x: Tensor, *values: Tensor) -> tuple[Tensor, Tensor]:
        given = dict(zip(names, values, strict=True))
        return belief(encoder, given, encoder.read(given, x))

    assert torch.autograd.gradcheck(run, (x.requires_grad_(), *(v.requires_grad_() for v in params.values())))


@EACH
def test_half_precision_gives_single_precision_evidence_near_the_full_one(encoder):
    params, x = parameters(encoder, torch.float32), rows(torch.float32)
    found = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            memory = encoder.read(params, x)
            found.append(encoder.evidence(params, memory))
    full, half = found
    assert half.precision.dtype == half.weighted_mean.dtype == torch.float32
    assert float((half.precision - full.precision).norm() / full.precision.norm()) < 0.05
    assert not torch.equal(half.precision, full.precision)


def test_factors_add_up_by_hand():
    """All weights 0: every row is N(1/2, softplus(1) + 1e-7); n rows have n times its precision."""
    encoder = PermutationInvariantEncoder("encoder", (D, 2 * Z))
    params = {"encoder.w0": torch.zeros(D, 2 * Z), "encoder.b0": torch.tensor([0.5, 0.5, 1.0, 1.0])}
    var = math.log(1 + math.e) + MIN_VAR
    evidence = encoder.evidence(params, encoder.read(params, torch.ones(B, C, D)))
    for value, expected in ((evidence.precision, C / var), (evidence.weighted_mean, C * 0.5 / var)):
        torch.testing.assert_close(value, torch.full((B, Z), expected))
    assert (evidence.number == C).all()


def test_the_recurrent_evidence_is_one_factor_read_off_the_hidden_state():
    """The head's weights 0: N(1/2, softplus(1) + 1e-7) however many rows were read."""
    encoder = RecurrentEncoder("encoder", D, 8, Z)
    params = parameters(encoder, torch.float32)
    params |= {"encoder.head.w0": torch.zeros(8, 2 * Z), "encoder.head.b0": torch.tensor([0.5, 0.5, 1.0, 1.0])}
    precision = 1 / (math.log(1 + math.e) + MIN_VAR)
    for number in (1, C):
        memory = encoder.read(params, torch.ones(B, number, D))
        assert (memory.number == number).all()
        mean, var = belief(encoder, params, memory)
        torch.testing.assert_close(var, torch.full((B, Z), 1 / (1 + precision)))
        torch.testing.assert_close(mean, torch.full((B, Z), 0.5 * precision / (1 + precision)))


def test_the_hidden_state_does_not_keep_the_sequence_alive():
    """What a trial carries from round to round stays small."""
    encoder = RecurrentEncoder("encoder", D, 8, Z)
    memory = encoder.read(parameters(encoder, torch.float32), rows(torch.float32))
    assert isinstance(memory, RecurrentMemory)
    assert memory.hidden.untyped_storage().nbytes() == memory.hidden.numel() * 4
