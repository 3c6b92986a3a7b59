"""The check of parameters compares runs with the same random numbers: other noise is no effect of a parameter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metarl.errors import TaskError
from metarl.tasks import Task
from metarl.tasks.check.effects import check_parameters
from metarl.tasks.task import ComparedTask
from metarl.tasks.variation.gym import GymVariation
from tests.tasks.varied import arm, hopper

# The arm touches nothing, so that friction has no effect.
USELESS = {"field": "geom_friction[fore_link]", "prior": {"uniform": [0.5, 1.5]}}
RANDOM: dict[str, dict[str, Any]] = {
    "observation_noise": {"prior": {"uniform": [0.01, 0.02]}},
    "action_noise": {"prior": {"uniform": [0.1, 0.2]}},
    "sensor_dropout": {"prior": {"uniform": [0.1, 0.5]}},
    "encoder_bias": {"prior": {"uniform": [0.0, 0.5]}, "redraw": 0.3},
}


@pytest.mark.parametrize("name", RANDOM)
def test_a_parameter_without_effect_is_found_beside_each_random_effect(tmp_path: Path, name: str) -> None:
    with pytest.raises(TaskError, match="parameter 'rub' has no effect"):
        check_parameters(arm(tmp_path, {"rub": USELESS}, effects={name: RANDOM[name]}))


def test_a_parameter_without_effect_is_found_beside_a_redrawn_field(tmp_path: Path) -> None:
    damping = {"field": "dof_damping[*]", "prior": {"uniform": [0.5, 2.0]}, "redraw": 0.2}
    with pytest.raises(TaskError, match="parameter 'rub' has no effect"):
        check_parameters(arm(tmp_path, {"rub": USELESS, "damping": damping}))


def test_an_attribute_without_effect_is_found_beside_noise_in_single_environments() -> None:
    entry = {"attribute": "x_threshold", "prior": {"uniform": [50.0, 60.0]}}  # a cart never gets there
    noise = {"observation_noise": RANDOM["observation_noise"]}
    with pytest.raises(TaskError, match="parameter 'far' has no effect"):
        check_parameters(GymVariation("CartPole-v1", {"far": entry}, effects=noise))


@pytest.mark.parametrize("name", RANDOM)
def test_the_size_of_each_random_effect_is_an_effect(tmp_path: Path, name: str) -> None:
    (remark,) = check_parameters(arm(tmp_path, effects={name: RANDOM[name]}))
    assert remark.text.startswith(f"{name} changes ")


def test_a_value_that_is_redrawn_before_it_matters_has_an_effect() -> None:
    """A Hopper touches the ground after several steps, when nothing is left of the value it began with."""
    friction = {"field": "geom_friction[*]", "prior": {"uniform": [0.1, 0.5]}, "redraw": 1.0}
    (remark,) = check_parameters(hopper({"friction": friction}))
    assert remark.text.startswith("friction changes ")


def test_a_compared_task_has_its_own_values_and_the_random_numbers_of_its_base() -> None:
    base = Task.of("Body", {"mass": 1.0, "leg": 2.0})
    other = ComparedTask.with_value(base, "mass", 3.0)
    plain = Task.of("Body", {"mass": 3.0, "leg": 2.0})
    assert other == plain
    assert hash(other) == hash(plain)
    assert other.fingerprint() == base.fingerprint() != plain.fingerprint()


def test_two_tasks_of_training_draw_different_noise(tmp_path: Path) -> None:
    """The same noise is for comparisons alone."""
    family = arm(tmp_path, {"rub": USELESS}, effects={"observation_noise": {"prior": {"choice": [0.1]}}})
    one, other = (family.task(rub=rub, observation_noise=0.1) for rub in (0.75, 1.25))
    batch = family.make_batch([one, other])
    seen = batch.reset(seed=[3, 3])[0]
    assert not np.allclose(seen[0], seen[1])
