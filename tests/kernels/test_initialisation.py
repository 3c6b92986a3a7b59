"""Initial weights depend on the generator and on nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from metarl.kernels.gru import GRU
from metarl.kernels.initialisation import orthogonal
from metarl.kernels.lstm import LSTM
from metarl.nets.context_encoder import RecurrentEncoder
from metarl.nets.recurrent_policy import Core, RecurrentPolicy
from metarl.nets.transformer import Transformer

HIDDEN = 128
DIM = RecurrentPolicy.encoded_dim(64)


def policy(core: Core) -> RecurrentPolicy:
    return RecurrentPolicy(17, 6, False, core, 64, 64, 0.6, 0.05)


NETS: dict[str, RecurrentPolicy | RecurrentEncoder] = {
    "gru": policy(GRU(DIM, HIDDEN)),
    "lstm": policy(LSTM(DIM, HIDDEN)),
    "transformer": policy(Transformer(DIM, HIDDEN)),
    "context encoder": RecurrentEncoder("encoder", 20, HIDDEN, 5),
}


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("name", NETS)
def test_weights_are_bitwise_the_same_under_any_number_of_threads(name):
    drawn = []
    for number in (1, 2, 3):
        torch.set_num_threads(number)
        drawn.append(NETS[name].init(torch.Generator().manual_seed(1)))
        assert torch.get_num_threads() == number
    for other in drawn[1:]:
        assert {n for n, value in drawn[0].items() if not torch.equal(value, other[n])} == set()


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4)])
def test_the_fewer_of_rows_and_columns_are_orthogonal_and_as_long_as_the_gain(shape):
    w = orthogonal(shape, torch.Generator().manual_seed(0), gain=2.0)
    gram = w @ w.T if shape[0] <= shape[1] else w.T @ w
    torch.testing.assert_close(gram, 4 * torch.eye(min(shape)), rtol=1e-5, atol=1e-5)


def test_no_global_generator_is_touched():
    before = torch.random.get_rng_state()
    assert torch.equal(
        orthogonal((4, 4), torch.Generator().manual_seed(3)), orthogonal((4, 4), torch.Generator().manual_seed(3))
    )
    assert torch.equal(before, torch.random.get_rng_state())
