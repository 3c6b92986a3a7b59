"""The native and the Gymnasium path give the same trajectories: fields, every effect, changes in mid-episode."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metarl.tasks import TaskDistribution, load_distribution
from metarl.tasks.check import CHECKS
from metarl.tasks.mujoco import MujocoBatch
from metarl.tasks.physics import mjbatch_is_available
from metarl.tasks.variation import MujocoVariation
from metarl.tasks.variation.effects import EFFECTS
from metarl.tasks.variation.equations import registered_equations
from tests.registered import load
from tests.tasks.varied import MASS, side_by_side

PRIORS: dict[str, dict[str, Any]] = {
    "action_delay": {"prior": {"uniform": [0, 3]}},
    "dead_band": {"prior": {"uniform": [0, 0.5]}},
    "motor_strength": {"prior": {"uniform": [0.5, 1.5]}, "shared": False, "dimensions": [0, 2]},
    "action_noise": {"prior": {"uniform": [0, 0.5]}},
    "stuck_motor": {"prior": {"choice": [0, 1, 2]}, "at_step": {"uniform": [1, 4]}},
    "dead_motor": {"prior": {"choice": [-1, 0, 1, 2]}},
    "encoder_bias": {"prior": {"uniform": [-0.1, 0.1]}, "shared": False, "dimensions": [1, 2, 3]},
    "sensor_drift": {"prior": {"uniform": [-0.1, 0.1]}},
    "observation_noise": {"prior": {"uniform": [0, 0.2]}},
    "sensor_freeze": {"prior": {"choice": [0, 5]}, "at_step": {"uniform": [1, 4]}},
    "sensor_dropout": {"prior": {"uniform": [0.1, 0.5]}},
    "observation_delay": {"prior": {"uniform": [0, 3]}},
}
SCHEDULED: dict[str, dict[str, Any]] = {
    "friction": {"field": "geom_friction[*]", "prior": {"uniform": [0.1, 0.5]}, "redraw": 0.3},
    "gear": {
        "field": "actuator_gear[*]",
        "prior": {"uniform": [0.1, 0.5]},
        "shared": False,
        "at_step": {"choice": [2, 6]},
    },
    "damping": {"field": "dof_damping[leg_joint]", "mode": "set", "prior": {"uniform": [3, 5]}, "at_step": 4},
}
NUM_TASKS, NUM_STEPS = 4, 12


def largest_difference(tasks: Any, scale: float = 0.3, **options: Any) -> tuple[float, np.ndarray]:
    """Over some steps and two episodes, of observations and rewards; and the native observations."""
    one, other = side_by_side(tasks, **options)
    rng = np.random.default_rng(0)
    low, high = one.single_action_space.low, one.single_action_space.high  # type: ignore[attr-defined]
    differences, seen = [0.0], []
    for _ in range(NUM_STEPS):
        action = (scale * rng.uniform(low, high, (len(tasks), len(low)))).astype(np.float32)
        (a, reward, ended, _, _), (b, gym_reward, gym_ended, _, _) = one.step(action), other.step(action)
        np.testing.assert_array_equal(ended, gym_ended)
        differences += [np.abs(a - b).max(), np.abs(reward - gym_reward).max()]
        seen.append(a)
    other.close()
    return max(differences), np.array(seen)


def test_every_effect_has_a_case_here() -> None:
    assert set(PRIORS) == set(EFFECTS)


@pytest.mark.parametrize("effect", EFFECTS)
def test_an_effect_is_the_same_in_a_batch_and_as_a_wrapper(effect: str) -> None:
    options: dict[str, Any] = {"env": "Hopper-v5", "effects": {effect: PRIORS[effect]}}
    tasks = MujocoVariation(**options).sample("train", NUM_TASKS, 0)
    difference, seen = largest_difference(tasks, **options)
    assert difference <= 1e-12
    neutral = MujocoVariation(env="Hopper-v5", vary={"mass": MASS})
    batch = neutral.make_batch([neutral.task(mass=1.0)] * NUM_TASKS)
    batch.reset(seed=5)
    rng, plain = np.random.default_rng(0), []
    for _ in range(NUM_STEPS):
        plain.append(batch.step((0.3 * rng.uniform(-1, 1, (NUM_TASKS, 3))).astype(np.float32))[0])
    assert np.abs(seen - np.array(plain)).max() > 1e-6, "the effect must be there"


@pytest.mark.parametrize("backend", ["mujoco", "mjbatch"])
def test_values_that_change_in_mid_episode_are_the_same_on_both_paths(backend: str) -> None:
    if backend == "mjbatch" and not mjbatch_is_available():
        pytest.skip("mjbatch is not installed")
    options: dict[str, Any] = {"env": "Hopper-v5", "vary": SCHEDULED, "backend": backend}
    tasks = MujocoVariation(**options).sample("train", NUM_TASKS, 0)
    assert largest_difference(tasks, **options)[0] <= 1e-12


def test_all_effects_together_are_the_same_on_both_paths() -> None:
    options: dict[str, Any] = {
        "env": "Walker2d-v5",
        "effects": PRIORS,
        "vary": {"mass": {**MASS, "field": "body_mass[*]"}},
    }
    tasks = MujocoVariation(**options).sample("train", NUM_TASKS, 0)
    assert largest_difference(tasks, **options)[0] <= 1e-12


@pytest.mark.parametrize("env", registered_equations())
def test_registered_equations_are_gymnasiums(env: str) -> None:
    options: dict[str, Any] = {
        "env": env,
        "vary": {"gear": {"field": "actuator_gear[*]", "prior": {"uniform": [0.5, 2.0]}}},
    }
    tasks = MujocoVariation(**options).sample("train", NUM_TASKS, 0)
    assert largest_difference(tasks, scale=0.6, **options)[0] <= 1e-12


def test_a_model_of_ones_own_takes_the_place_of_gymnasiums_on_both_paths(tmp_path: Path) -> None:
    import gymnasium.envs.mujoco as shipped

    text = (Path(shipped.__file__).parent / "assets" / "hopper.xml").read_text()
    model = tmp_path / "light.xml"
    model.write_text(text.replace('size="0.05 ', 'size="0.04 '))
    assert model.read_text() != text
    options: dict[str, Any] = {"env": "Hopper-v5", "model": str(model), "vary": {"mass": MASS}}
    family = MujocoVariation(**options)
    assert family.model().body_mass[1] < MujocoVariation(env="Hopper-v5", vary={"mass": MASS}).model().body_mass[1]
    assert largest_difference(family.sample("train", NUM_TASKS, 0), **options)[0] <= 1e-12


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_gymnasium_path_keeps_the_contract(check: Callable[[TaskDistribution], None]) -> None:
    check(load("MujocoVariation", path="gymnasium"))


def test_a_declared_variation_is_bitwise_that_of_the_class() -> None:
    def multiplier(field: str) -> dict[str, Any]:
        return {"field": field, "prior": {"log_uniform": [0.5, 2.0]}}

    vary = {name: multiplier(field) for name, field in FIELDS_OF_CHEETAH.items()}
    vary["failed_motor"] = {"field": "actuator_gear[*]", "mode": "zero", "prior": {"choice": [-1, 0, 1, 2, 3, 4, 5]}}
    family = load_distribution("HalfCheetahDynamics")
    declared = MujocoVariation(env="HalfCheetah-v5", reward=family_reward, vary=vary)
    tasks = family.sample("train", 6, 0)
    batches = [family.make_batch(tasks), declared.make_batch([declared.task(**task.values) for task in tasks])]
    observations = [batch.reset(seed=3)[0] for batch in batches]
    np.testing.assert_array_equal(observations[0], observations[1])
    for action in np.random.default_rng(0).uniform(-1, 1, (30, 6, 6)).astype(np.float32):
        (one, reward, *_), (other, other_reward, *_) = (batch.step(action) for batch in batches)
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(reward, other_reward)
    assert all(isinstance(batch, MujocoBatch) for batch in batches)


FIELDS_OF_CHEETAH = {
    "mass": "body_mass[*]",
    "friction": "geom_friction[*]",
    "damping": "dof_damping[*]",
    "gravity": "gravity",
    "strength": "actuator_gear[*]",
}


def family_reward(before: Any, action: np.ndarray, after: Any, task: Any) -> np.ndarray:
    """That of HalfCheetahDynamics, whose control cost is half of HalfCheetah-v5's."""
    velocity = (after.qpos[:, 0] - before.qpos[:, 0]) / (after.model.opt.timestep * 5)
    return velocity - 0.05 * np.einsum("na,na->n", action, action)
