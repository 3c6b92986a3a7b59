"""The policy acts in NumPy as it learns in torch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from metarl.nets.mlp_policy import MLPPolicy
from metarl.ops.distributions import Gaussian


@pytest.mark.parametrize("discrete", [False, True])
def test_acting_forward_equals_learning_forward(discrete):
    net = MLPPolicy(5, 3, discrete, (8, 8), init_std=0.5, min_std=0.1)
    params = {n: v.expand(2, *v.shape).contiguous() for n, v in net.init(torch.Generator().manual_seed(0)).items()}
    observations = np.random.default_rng(0).standard_normal((2, 6, 5)).astype(np.float32)
    distribution = net.distribution(params, torch.from_numpy(observations))
    acted = net.output({name: value.numpy() for name, value in params.items()}, observations)
    np.testing.assert_allclose(acted, distribution[0].numpy(), atol=1e-6)


def test_standard_deviation_never_falls_below_its_floor():
    net = MLPPolicy(2, 1, False, (), init_std=0.5, min_std=0.1)
    params = {"w0": torch.zeros(1, 2, 1), "b0": torch.zeros(1, 1), "log_std": torch.full((1, 1), -9.0)}
    distribution = net.distribution(params, torch.zeros(1, 4, 2))
    assert isinstance(distribution, Gaussian)
    assert math.isclose(float(distribution.log_std.exp()), 0.1, rel_tol=1e-6)
    assert math.isclose(
        float(np.exp(net.log_std({"log_std": np.full((1, 1), -9.0, np.float32)})).item()), 0.1, rel_tol=1e-6
    )


def test_equal_seeds_give_equal_parameters_without_touching_the_global_generator():
    net = MLPPolicy(2, 1, False, (4,), init_std=0.5, min_std=0.1)
    before = torch.random.get_rng_state()
    first, second = (net.init(torch.Generator().manual_seed(3)) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(before, torch.random.get_rng_state())
