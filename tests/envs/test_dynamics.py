"""Families that change the model: each multiplier reaches its field, and derived constants follow."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
import pytest

from metarl.tasks import TaskDistribution, load_distribution
from metarl.tasks.mujoco import MujocoBatch
from metarl.tasks.physics import mjbatch_is_available

BACKENDS = [
    "mujoco",
    pytest.param("mjbatch", marks=pytest.mark.skipif(not mjbatch_is_available(), reason="mjbatch is not installed")),
]
NEUTRAL = {"mass": 1.0, "friction": 1.0, "damping": 1.0, "gravity": 1.0, "strength": 1.0, "failed_motor": -1.0}


def cheetah_batch(backend: str, *changes: dict[str, float]) -> MujocoBatch:
    family = load_distribution("HalfCheetahDynamics", backend=backend)
    batch = family.make_batch([family.task(**{**NEUTRAL, **change}) for change in changes])
    assert isinstance(batch, MujocoBatch)
    return batch


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_multiplier_scales_its_own_fields(backend: str) -> None:
    changes = [{"mass": 2.0}, {"friction": 0.5}, {"damping": 1.5}, {"gravity": 1.25}, {"strength": 0.75}]
    physics = cheetah_batch(backend, *changes).physics
    model = physics.model
    fields = {
        "body_mass": (model.body_mass, [2.0, 1, 1, 1, 1]),
        "body_inertia": (model.body_inertia, [2.0, 1, 1, 1, 1]),
        "geom_friction": (model.geom_friction, [1, 0.5, 1, 1, 1]),
        "dof_damping": (model.dof_damping, [1, 1, 1.5, 1, 1]),
        "gravity": (model.opt.gravity, [1, 1, 1, 1.25, 1]),
        "actuator_gear": (model.actuator_gear, [1, 1, 1, 1, 0.75]),
    }
    for field, (base, factors) in fields.items():
        for i, factor in enumerate(factors):
            np.testing.assert_allclose(physics.field(field)[i], base * factor, rtol=1e-15, err_msg=field)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_failed_motor_has_no_gear_and_its_action_no_effect(backend: str) -> None:
    batch = cheetah_batch(backend, {"failed_motor": 2.0}, {"failed_motor": -1.0})
    gear = batch.physics.field("actuator_gear")[:, :, 0]
    assert gear[0].tolist() == [120, 90, 0, 120, 60, 30]
    assert gear[1].tolist() == [120, 90, 60, 120, 60, 30]
    pushed, idle = np.zeros((2, 6)), np.zeros((2, 6))
    pushed[:, 2] = 1.0
    batch.reset(seed=0)
    with_push, *_ = batch.step(pushed)
    batch.reset(seed=0)
    without, *_ = batch.step(idle)
    np.testing.assert_array_equal(with_push[0], without[0])
    assert not np.allclose(with_push[1], without[1])


def neutral(family: TaskDistribution) -> dict[str, Any]:
    return {p.name: (1.0,) * p.prior.size for p in family.parameters}  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["Walker2dRandParams", "HopperRandParams"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_each_element_has_its_own_multiplier_in_the_models_order(name: str, backend: str) -> None:
    family = load_distribution(name, backend=backend)
    task = family.sample("train", 1, seed=0)[0]
    batch = family.make_batch([task])
    assert isinstance(batch, MujocoBatch)
    physics = batch.physics
    for field in ("body_mass", "body_inertia", "geom_friction", "dof_damping"):
        base = getattr(physics.model, field)
        rows = base[1:] if field.startswith("body") else base
        expected = rows * np.reshape(task[field], rows.shape)
        np.testing.assert_array_equal(physics.field(field)[0][len(base) - len(rows) :], expected, err_msg=field)


@pytest.mark.parametrize("backend", BACKENDS)
def test_derived_constants_follow_the_changed_masses(backend: str) -> None:
    family = load_distribution("HopperRandParams", backend=backend)
    task = family.sample("train", 1, seed=0)[0]
    batch = family.make_batch([task])
    assert isinstance(batch, MujocoBatch)
    batch.reset(seed=0)
    right, stale = (_hopper(family, batch, set_const=set_const) for set_const in (True, False))
    steps = 0
    while not batch._terminated.any() and steps < 60:
        action = np.array([0.3, -0.2, 0.1]) * np.cos(0.3 * steps)
        for model, data in (right, stale):
            data.ctrl[:] = action
            mujoco.mj_step(model, data, 4)
        batch.step(action[None])
        np.testing.assert_array_equal(batch.physics.qpos[0], right[1].qpos)
        steps += 1
    assert steps > 15
    assert not np.allclose(batch.physics.qpos[0], stale[1].qpos, rtol=0, atol=1e-6)


def _hopper(family: TaskDistribution, batch: MujocoBatch, set_const: bool) -> tuple[Any, Any]:
    """A model of our own with the batch's fields, with or without new derived constants, in the batch's state."""
    model = family.model()  # type: ignore[attr-defined]
    for field in ("body_mass", "body_inertia", "geom_friction", "dof_damping"):
        getattr(model, field)[:] = batch.physics.field(field)[0]
    if set_const:
        mujoco.mj_setConst(model, mujoco.MjData(model))
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:] = batch.physics.qpos[0], batch.physics.qvel[0]
    mujoco.mj_forward(model, data)
    return model, data


@pytest.mark.parametrize("name", ["HalfCheetahDynamics", "Walker2dRandParams", "HopperRandParams"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_tasks_set_again_start_from_the_models_own_values(name: str, backend: str) -> None:
    family = load_distribution(name, backend=backend)
    first, second = family.sample("train", 3, seed=0), family.sample("ood", 3, seed=0)
    used, fresh = family.make_batch(first), family.make_batch(first)
    assert isinstance(used, MujocoBatch)
    assert isinstance(fresh, MujocoBatch)
    used.set_tasks(second)
    used.set_tasks(first)
    derived = ("body_mass", "body_subtreemass", "body_invweight0", "dof_invweight0", "dof_M0", "actuator_acc0")
    assert used.action_space.shape is not None
    actions = np.full((10, *used.action_space.shape), 0.3)
    used.reset(seed=0)
    fresh.reset(seed=0)
    for action in actions:
        np.testing.assert_array_equal(used.step(action)[0], fresh.step(action)[0])
    if backend == "mjbatch":
        for field in derived:
            np.testing.assert_array_equal(used.physics.field(field), fresh.physics.field(field), err_msg=field)


def test_out_of_distribution_dynamics_lie_beyond_the_training_range_on_both_sides() -> None:
    family = load_distribution("HalfCheetahDynamics")
    mass = np.array([task["mass"] for task in family.sample("ood", 60, seed=0)])
    assert ((mass < 0.5) | (mass > 2.0)).all()
    assert (mass < 0.5).any()
    assert (mass > 2.0).any()
