"""Running moments against those of all data at once."""

from __future__ import annotations

import pytest
import torch

from metarl.ops.moments import Moments, rescale_output_

CPU = torch.device("cpu")


def test_batch_by_batch_equals_all_at_once():
    data = 1e4 + torch.randn(60, 3, generator=torch.Generator().manual_seed(0)).double()
    moments = Moments.empty(3, CPU)
    for part in data.split([7, 1, 52]):
        moments = moments.including(part)
    torch.testing.assert_close(moments.mean, data.mean(0))
    torch.testing.assert_close(moments.std(), data.std(0, correction=0))
    assert float(moments.num) == 60


def test_before_anything_was_seen_the_deviation_is_one():
    assert (Moments.empty(2, CPU).std() == 1).all()


def test_what_never_varies_has_a_millionth_of_its_size_for_a_deviation_and_zeros_have_one():
    moments = Moments.empty(3, CPU).including(torch.tensor([5.0, -2e6, 0.0]).expand(9, 3))
    torch.testing.assert_close(moments.std(), torch.tensor([5e-6, 2.0, 1.0]).double())


@pytest.mark.parametrize("scale", [1e-12, 1e-5, 1.0, 1e7])
def test_a_deviation_of_any_size_is_measured(scale):
    data = scale * torch.tensor([[-1.0], [1.0], [3.0], [5.0]]).double()
    torch.testing.assert_close(Moments.empty(1, CPU).including(data).std(), torch.tensor([scale * 5**0.5]).double())


def test_half_forgotten_moments_keep_their_deviation():
    moments = Moments.empty(1, CPU).including(torch.tensor([[1.0], [3.0]])).forgetting(0.1)
    assert float(moments.num) == pytest.approx(0.2)
    assert float(moments.std()) == pytest.approx(1)


def test_a_rescaled_output_layer_says_the_same_in_the_new_units():
    weight, bias = torch.randn(1, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0.3])
    hidden = torch.randn(7, 4, generator=torch.Generator().manual_seed(1))
    before = 2 + 5 * (hidden @ weight.T + bias)
    rescale_output_(weight, bias, before=(2.0, 5.0), after=(-30.0, 0.01))
    torch.testing.assert_close(-30 + 0.01 * (hidden @ weight.T + bias), before, rtol=1e-4, atol=1e-4)


def test_forgetting_weighs_what_comes_more():
    old = Moments.empty(1, CPU).including(torch.zeros(10, 1)).forgetting(0.1)  # as much as one zero
    torch.testing.assert_close(old.including(torch.ones(1, 1)).mean, torch.tensor([0.5]).double())
