"""Conjugate gradient, the step's length, and the line search."""

from __future__ import annotations

import torch

from metarl.ops.trust_region import backtracking_line_search, conjugate_gradient, flatten, step_to_boundary, unflatten

F64 = torch.float64


def spd(n: int) -> torch.Tensor:
    m = torch.randn(n, n, generator=torch.Generator().manual_seed(0), dtype=F64)
    return m @ m.T + n * torch.eye(n, dtype=F64)


def test_conjugate_gradient_solves_an_n_dimensional_system_in_n_iterations():
    A, b = spd(6), torch.arange(6, dtype=F64)
    torch.testing.assert_close(conjugate_gradient(lambda v: A @ v, b, 6), torch.linalg.solve(A, b))


def test_conjugate_gradient_stays_at_the_solution_in_further_iterations():
    A, b = spd(4), torch.arange(4, dtype=F64)
    torch.testing.assert_close(conjugate_gradient(lambda v: A @ v, b, 20), torch.linalg.solve(A, b))
    assert conjugate_gradient(lambda v: A @ v, 0 * b, 5).tolist() == [0.0] * 4


def test_step_lies_on_the_boundary_of_the_quadratic_model():
    A, direction = spd(4), torch.ones(4, dtype=F64)
    step = step_to_boundary(direction, A @ direction, max_kl=0.01)
    torch.testing.assert_close(0.5 * step @ A @ step, torch.tensor(0.01, dtype=F64))


def test_line_search_takes_the_first_candidate_inside_the_region_that_improves():
    # loss falls for every step, KL = 4 |step|: 1 -> 4, .5 -> 2, .25 -> 1 is the first within 1
    found = backtracking_line_search(lambda s: (-float(s), 4 * float(s)), torch.ones(1), 0.0, 1.0, 15, 0.5)
    assert (float(found.step), found.loss, found.kl, found.tries) == (0.25, -0.25, 1.0, 3)


def test_line_search_stays_where_it_is_when_nothing_improves():
    found = backtracking_line_search(lambda s: (1.0, float(s.sum())), torch.ones(2), 0.0, 1.0, 4, 0.8)
    assert (found.step.tolist(), found.loss, found.kl, found.tries) == ([0.0, 0.0], 1.0, 0.0, 4)


def test_flatten_and_unflatten_are_inverse():
    tensors = {"w": torch.arange(6.0).view(2, 3), "b": torch.ones(2)}
    back = unflatten(flatten(tensors), tensors)
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)
