"""Values of parameters as users write them: made plain, or refused with the parameter's name."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from metarl.cli.app import app
from metarl.errors import TaskError
from metarl.tasks import Choice, Parameter, Task, TaskDistribution, Uniform, load_distribution
from tests.field.robots import Carts


@pytest.mark.parametrize(
    ("values", "plain"),
    [
        (np.arange(3), (0.0, 1.0, 2.0)),
        (np.linspace(0, 1, 2, dtype=np.float32), (0.0, 1.0)),
        ((True, False), (1.0, 0.0)),
        ([[0.0, 1], [2, 0.5]], ((0.0, 1.0), (2.0, 0.5))),
        (np.eye(2), ((1.0, 0.0), (0.0, 1.0))),
        ([np.array(3), np.float16(0.5)], (3.0, 0.5)),
    ],
)
def test_numbers_of_any_kind_become_floats_and_tuples_that_json_can_hold(values, plain) -> None:
    """NumPy's integers and floats, booleans, lists, arrays."""
    family = Carts(None, Parameter("p", Choice(values)))
    assert family.parameters[0].prior.options == plain
    tasks = family.sample("train", len(plain), 0)
    assert {task["p"] for task in tasks} == set(plain)
    json.dumps([task.values for task in tasks])
    assert family.task(p=values[0]) == Task.of("Carts", {"p": plain[0]})


@pytest.mark.parametrize("value", ["reach", None, [[1.0, 2.0]], float("nan"), np.inf, 1j, (), {"a": 1}])
def test_what_is_no_number_is_refused_with_the_parameters_name(value) -> None:
    """Strings, None, nested lists, not finite."""
    with pytest.raises(TaskError, match=r"parameter 'p' = .*allowed are finite numbers"):
        Parameter("p", Choice((value, value)))
    with pytest.raises(TaskError, match=r"parameter 'p' = .*allowed are finite numbers"):
        Task.of("Carts", {"p": value})


@pytest.mark.parametrize("prior", [(0.5, 2.0), 1.0, Uniform, None])
def test_what_is_no_prior_is_refused_with_the_parameters_name(prior) -> None:
    """A tuple in place of a prior, a number, the class itself."""
    with pytest.raises(TaskError, match="parameter 'p': needs a prior such as"):
        Parameter("p", prior)


def test_a_prior_of_the_test_split_is_looked_at_too() -> None:
    """Wrong in `ood` alone."""
    with pytest.raises(TaskError, match="parameter 'p': needs a prior"):
        Parameter("p", Uniform(0.0, 1.0), ood=(1.0, 2.0))  # type: ignore[arg-type]


def test_values_of_different_sizes_are_refused() -> None:
    """A number beside a pair."""
    with pytest.raises(TaskError, match="parameter 'p': its values must all have the same size"):
        Parameter("p", Choice((1.0, (1.0, 2.0))))


def test_a_unit_in_brackets_is_shown(tmp_path, monkeypatch) -> None:
    """Brackets are markup for the table's library."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "bracketed.py").write_text(
        "from metarl.tasks import Parameter, TaskDistribution, Uniform\n"
        "class Load(TaskDistribution):\n"
        "    name, horizon, parameters = 'Load', 5, (Parameter('mass', Uniform(1, 2), '[kg]'),)\n"
        "    def make(self, task): ...\n"
    )
    shown = CliRunner().invoke(app, ["tasks", "show", "bracketed:Load"])
    assert "[kg]" in shown.output


class Grid(TaskDistribution):
    """Parameters with ten choices each."""

    name, horizon = "Grid", 5

    def __init__(self, num_parameters: int):
        choices = Choice(tuple(i / 10 for i in range(10)))
        self.parameters = tuple(Parameter(f"p{i}", choices) for i in range(num_parameters))

    def make(self, task: Task):
        raise NotImplementedError


@pytest.mark.parametrize("num_parameters", [6, 20])
def test_a_large_finite_family_is_drawn_without_being_listed(num_parameters: int) -> None:
    """A million tasks, and more than an integer can count."""
    grid = Grid(num_parameters)
    tasks = grid.sample("train", 50, 3)
    assert grid.num_tasks == 10**num_parameters
    assert len(set(tasks)) == 50
    assert grid.sample("train", 20, 3) == tasks[:20]
    assert grid.sample("train", 50, 4) != tasks
    assert grid.splits_coincide
    assert all(grid.task(**task.values) == task for task in tasks)


def test_a_large_finite_family_deals_every_task_out_before_any_comes_again(monkeypatch) -> None:
    """As small ones do."""
    monkeypatch.setattr("metarl.tasks.distribution._MAX_PERMUTED", 1)
    tasks = Grid(2).sample("train", 250, 0)
    assert len(set(tasks[:100])) == len(set(tasks[100:200])) == 100


def test_the_draws_of_small_finite_families_are_those_of_before() -> None:
    """Shuffled rounds of the listed tasks, as runs on disk were drawn."""
    for name in ("AntDir", "HalfCheetahDir"):
        family = load_distribution(name)
        finite = family.finite_tasks()
        assert finite is not None
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([0, 5])))
        order = np.concatenate([rng.permutation(len(finite)) for _ in range(4)])
        assert family.sample("train", 7, 5) == tuple(finite[int(i)] for i in order[:7])
