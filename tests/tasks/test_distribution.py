"""Tasks, splits and sampling."""

from __future__ import annotations

import pickle
import subprocess
import sys

import gymnasium
import pytest

from metarl.errors import TaskError
from metarl.tasks import (
    SPLITS,
    Anchors,
    Choice,
    Mixture,
    Parameter,
    Task,
    TaskDistribution,
    Uniform,
    available_distributions,
    load_distribution,
)
from metarl.tasks.distribution import without_validation

FIRST_TEST_GOALS = [[0.2729522568354781, 0.5963805664565964], [-0.1769846754714801, 0.702979735596382]]


class Line(TaskDistribution):
    """A family without environments: for sampling alone."""

    name = "Line"
    horizon = 10

    def __init__(self, *parameters: Parameter):
        self.parameters = parameters or (Parameter("x", Uniform(0.0, 1.0), ood=Uniform(1.0, 2.0)),)

    def make(self, task: Task) -> gymnasium.Env:
        raise NotImplementedError


def test_a_task_is_immutable_hashable_and_survives_pickling() -> None:
    task = Task.of("Line", {"x": 0.5, "y": (1.0, 2.0)})
    assert pickle.loads(pickle.dumps(task)) == task
    assert len({task, Task.of("Line", {"x": 0.5, "y": (1.0, 2.0)})}) == 1
    assert task["y"] == (1.0, 2.0)
    assert task.vector().tolist() == [0.5, 1.0, 2.0]
    assert str(task) == "Line(x=0.5, y=(1, 2))"
    with pytest.raises(AttributeError):
        task.distribution = "other"  # type: ignore[misc]


def test_a_fingerprint_is_the_same_in_another_process() -> None:
    code = "from metarl.tasks import Task; print(Task.of('Line', {'x': 0.1}).fingerprint())"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(other.stdout) == Task.of("Line", {"x": 0.1}).fingerprint()


def test_the_tasks_package_imports_neither_torch_nor_ray() -> None:
    code = "import sys, metarl.tasks, metarl.tasks.check; assert not {'torch', 'ray'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("split", SPLITS)
def test_a_draw_is_a_function_of_split_and_seed_and_begins_any_longer_draw(split: str) -> None:
    line = Line()
    tasks = line.sample(split, 20, seed=3)  # type: ignore[arg-type]
    assert line.sample(split, 20, seed=3) == tasks  # type: ignore[arg-type]
    assert line.sample(split, 5, seed=3) == tasks[:5]  # type: ignore[arg-type]
    assert line.sample(split, 20, seed=4) != tasks  # type: ignore[arg-type]
    assert line.sample(split, 20, seed=(3, 1)) != tasks  # type: ignore[arg-type]


def test_no_continuous_task_is_in_two_splits_a_quarter_of_the_space_is_test_and_an_eighth_validation() -> None:
    line = Line()
    drawn = [set(line.sample(split, 500, seed=0)) | set(line.sample(split, 500, seed=1)) for split in SPLITS]
    assert len(set.union(*drawn)) == sum(map(len, drawn))
    values = [Task.of("Line", {"x": i / 4000}) for i in range(4000)]
    shares = {split: sum(line.split_of(task) == (split,) for task in values) / 4000 for split in SPLITS}
    assert shares == pytest.approx({"train": 0.625, "test": 0.25, "validation": 0.125, "ood": 0.0}, abs=0.03)


def test_giving_validation_back_to_training_moves_no_test_task_and_no_other() -> None:
    line, earlier = Line(), without_validation(Line())
    tasks = [Task.of("Line", {"x": i / 1000}) for i in range(2000)]
    for task in tasks:
        now = line.split_of(task)
        assert earlier.split_of(task) == (("train",) if now == ("validation",) else now)
    assert earlier.sample("test", 50, seed=3) == line.sample("test", 50, seed=3)
    assert earlier.sample("ood", 50, seed=3) == line.sample("ood", 50, seed=3)
    trained_on = earlier.sample("train", 50, seed=3)
    kept = [task for task in trained_on if line.split_of(task) == ("train",)]
    assert tuple(kept) == line.sample("train", len(kept), seed=3)
    assert len(kept) < 50
    with pytest.raises(TaskError, match=r"hold_out_validation = false\); allowed splits: train, test, ood"):
        earlier.sample("validation", 1, seed=0)


def test_test_tasks_are_those_that_seeds_have_always_drawn() -> None:
    first = [task.vector().tolist() for task in load_distribution("PointGoal").sample("test", 2, seed=(1, 1, 1))]
    assert first == FIRST_TEST_GOALS


def test_ood_tasks_lie_outside_the_training_range() -> None:
    assert all(float(t.vector()[0]) > 1.0 for t in Line().sample("ood", 100, seed=0))


def test_an_interpolation_protocol_tests_between_its_training_ranges() -> None:
    x = Parameter("x", Mixture(Uniform(0.0, 1.0), Uniform(2.0, 3.0)), test=Uniform(1.0, 2.0), ood=Uniform(3.0, 4.0))
    line = Line(x)
    assert line.split_of(line.task(x=0.5)) == ("train",)
    assert line.split_of(line.task(x=1.5)) == ("test",)
    assert line.split_of(line.task(x=3.5)) == ("ood",)
    assert all(1.0 < float(t.vector()[0]) < 2.0 for t in line.sample("test", 100, seed=0))


def test_an_interpolation_protocol_holds_an_eighth_of_its_training_range_out_for_validation() -> None:
    line = Line(Parameter("x", Mixture(Uniform(0.0, 1.0), Uniform(2.0, 3.0)), test=Uniform(1.0, 2.0)))
    validation, train = line.sample("validation", 300, seed=0), line.sample("train", 300, seed=0)
    assert not set(validation) & set(train)
    assert all(not 1.0 < float(task.vector()[0]) < 2.0 for task in validation)
    splits = [line.split_of(Task.of("Line", {"x": i / 4000})) for i in range(4000)]
    assert splits.count(("validation",)) / 4000 == pytest.approx(0.125, abs=0.02)
    assert splits.count(("train",)) == 4000 - splits.count(("validation",))


def test_a_finite_training_range_is_its_own_validation_split_and_says_so() -> None:
    line = Line(Parameter("x", Choice((0.0, 1.0)), test=Choice((2.0, 3.0))))
    assert (line.splits_coincide, line.validation_coincides) == (False, True)
    assert line.split_of(line.task(x=0.0)) == ("train", "validation")
    assert line.split_of(line.task(x=2.0)) == ("test",)
    assert {task["x"] for task in line.sample("validation", 20, seed=0)} == {0.0, 1.0}
    assert not Line().validation_coincides


def test_finite_families_deal_their_tasks_out_equally_and_say_that_splits_coincide() -> None:
    line = Line(Parameter("x", Choice((-1.0, 1.0))), Parameter("y", Choice((0.0, 1.0))))
    assert line.splits_coincide
    assert not line.has_ood
    tasks = line.sample("train", 8, seed=0)
    assert {tasks.count(task) for task in tasks} == {2}
    assert line.split_of(tasks[0]) == ("train", "test", "validation")
    held_out = line.sample("validation", 8, seed=0)
    assert {held_out.count(task) for task in held_out} == {2}


def test_finite_test_priors_are_dealt_out_in_rounds_but_for_what_is_trained_on() -> None:
    line = Line(Parameter("x", Choice((0.0, 1.0)), test=Choice((1.0, 2.0, 3.0))))
    held_out = line.sample("test", 6, seed=0)
    assert {task["x"]: held_out.count(task) for task in held_out} == {2.0: 3, 3.0: 3}
    assert line.sample("test", 3, seed=0) == held_out[:3]
    train = line.sample("train", 6, seed=0)
    assert {task["x"]: train.count(task) for task in train} == {0.0: 3, 1.0: 3}
    with pytest.raises(TaskError, match="the test split is empty"):
        Line(Parameter("x", Choice((0.0, 1.0)), test=Choice((1.0,)))).sample("test", 1, seed=0)


def test_an_unknown_split_is_refused_with_the_allowed_ones() -> None:
    with pytest.raises(TaskError, match="allowed: train, test, ood, validation"):
        Line().sample("held_out", 1, seed=0)  # type: ignore[arg-type]


def test_a_family_without_ood_range_says_so() -> None:
    with pytest.raises(TaskError, match="no out-of-distribution range; allowed splits: train, validation, test"):
        Line(Parameter("x", Choice((1.0, 2.0)))).sample("ood", 1, seed=0)


def test_no_tasks_at_all_are_refused() -> None:
    with pytest.raises(TaskError, match="at least 1, got 0"):
        Line().sample("train", 0, seed=0)


def test_an_empty_split_is_reported_instead_of_searched_for_ever() -> None:
    with pytest.raises(TaskError, match="the test split is empty"):
        Line(Parameter("x", Uniform(0.0, 1.0), test=Uniform(0.2, 0.4))).sample("test", 1, seed=0)


def test_a_task_outside_every_range_is_refused_with_the_ranges() -> None:
    with pytest.raises(TaskError, match=r"x=5.0 lies outside U\[0, 1\] or U\[1, 2\]"):
        Line().task(x=5.0)


def test_a_task_with_a_wrong_name_is_refused_with_the_right_ones() -> None:
    with pytest.raises(TaskError, match=r"exactly the parameters \['x'\], got \['z'\]"):
        Line().task(z=1.0)


def test_a_number_is_normalised_between_task_blind_and_expert() -> None:
    # (75 - 50) / (100 - 50) = 0.5
    assert Anchors(0.0, 50.0, 100.0).normalise(75.0) == 0.5
    assert Anchors(0.0, 50.0, None).normalise(75.0) is None


def test_every_built_in_family_is_registered() -> None:
    assert set(available_distributions()) >= {
        "AntDir",
        "AntDir2D",
        "AntGoal",
        "Bandit",
        "HalfCheetahDir",
        "HalfCheetahDynamics",
        "HalfCheetahVel",
        "HopperRandParams",
        "HumanoidDir",
        "PointGoal",
        "Quadruped",
        "SparsePointGoal",
        "TabularMDP",
        "Walker2dRandParams",
    }


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(TaskError, match=r"unknown task distribution 'Nope'; known: .*PointGoal"):
        load_distribution("Nope")


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(TaskError, match="options"):
        load_distribution("PointGoal", color="red")


def test_module_and_attribute_name_a_family_of_ones_own() -> None:
    assert load_distribution("metarl_envs.point:PointGoal", horizon=5).horizon == 5
    with pytest.raises(TaskError, match=r"has no 'Goal'; did you mean 'PointGoal'\? it defines PointGoal"):
        load_distribution("metarl_envs.point:Goal")
    with pytest.raises(TaskError, match="cannot import"):
        load_distribution("no_such_module_here:Thing")
