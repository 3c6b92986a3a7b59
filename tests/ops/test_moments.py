"""Running moments against those of all data at once."""

from __future__ import annotations

import torch

from metarl.ops.moments import Moments

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


def test_what_never_varies_has_the_floor_for_a_deviation():
    assert float(Moments.empty(1, CPU).including(torch.full((9, 1), 5.0)).std(floor=0.01)) == 0.01


def test_forgetting_weighs_what_comes_more():
    old = Moments.empty(1, CPU).including(torch.zeros(10, 1)).forgetting(0.1)  # as much as one zero
    torch.testing.assert_close(old.including(torch.ones(1, 1)).mean, torch.tensor([0.5]).double())
