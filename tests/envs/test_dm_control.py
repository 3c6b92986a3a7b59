"""DeepMind Control through shimmy: its models are edited as Gymnasium's are. Without the package a stand-in has its
layout, `physics.model.ptr`."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest

from metarl.errors import TaskError
from metarl.tasks.batch import EnvBatch
from metarl.tasks.check import check_distribution
from metarl.tasks.variation import GymVariation, MujocoVariation

STAND_IN = "Pole-v0"
VARY = {"mass": {"field": "body_mass[pole]", "prior": {"log_uniform": [0.5, 2.0]}}}
POLE = """
<mujoco><worldbody><body name="pole"><joint name="hinge" axis="0 1 0" damping="0.1"/>
<geom type="capsule" fromto="0 0 0 0 0 -1" size="0.05"/></body></worldbody>
<actuator><motor joint="hinge" ctrlrange="-1 1"/></actuator></mujoco>
"""


class Pole(gymnasium.Env[dict[str, np.ndarray], np.ndarray]):
    """A pendulum, laid out as shimmy's environments are."""

    observation_space: Any = gymnasium.spaces.Dict({"state": gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)})
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float64)

    def __init__(self, **_: Any) -> None:
        model = mujoco.MjModel.from_xml_string(POLE)
        self._model, self._data = model, mujoco.MjData(model)
        self.physics = SimpleNamespace(model=SimpleNamespace(ptr=model), data=SimpleNamespace(ptr=self._data))

    def _observe(self) -> dict[str, np.ndarray]:
        return {"state": np.concatenate((self._data.qpos, self._data.qvel))}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict, dict]:
        super().reset(seed=seed)
        mujoco.mj_resetData(self._model, self._data)
        self._data.qpos[:] = self.np_random.uniform(0.5, 1.5, 1)
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[dict, float, bool, bool, dict]:
        self._data.ctrl[:] = action
        mujoco.mj_step(self._model, self._data, 5)
        return self._observe(), float(np.cos(self._data.qpos[0])), False, False, {}


@pytest.fixture
def _stand_in() -> Iterator[None]:
    gymnasium.register(STAND_IN, Pole)
    yield
    del gymnasium.registry[STAND_IN]


@pytest.mark.usefixtures("_stand_in")
def test_a_model_behind_physics_is_varied_and_passes_all_checks() -> None:
    family = MujocoVariation(env=STAND_IN, vary=VARY, effects={"action_delay": {"prior": {"choice": [0, 1]}}})
    assert {r.name: r.message for r in check_distribution(family) if not r.passed} == {}


@pytest.mark.parametrize("env_id", [STAND_IN, "shimmy:dm_control/cartpole-swingup-v0"])
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("_stand_in")
def test_the_tasks_mass_holds_after_resets_and_the_models_own_gives_the_bare_environment(
    env_id: str,
) -> None:
    if env_id != STAND_IN:
        pytest.importorskip("shimmy", reason="needs shimmy[dm-control]")
        pytest.importorskip("dm_control", reason="needs shimmy[dm-control]")
    body = "pole" if env_id == STAND_IN else "pole_1"
    family = MujocoVariation(env=env_id, vary={"mass": VARY["mass"] | {"field": f"body_mass[{body}]"}}, horizon=50)
    (index,) = (i for i in range(family.model().nbody) if family.model().body(i).name == body)
    tasks = [family.task(mass=1.0), family.task(mass=2.0)]
    batch = family.make_batch(tasks)
    assert isinstance(batch, EnvBatch)
    own = family.model().body_mass[index]
    for seed in range(3):
        obs, _ = batch.reset(seed=seed)
        np.testing.assert_array_equal(family.fields_in(batch)["body_mass"][:, index], [own, 2 * own])
    bare = gymnasium.make(env_id, disable_env_checker=True)
    actions = np.random.default_rng(0).uniform(-1, 1, (20, 2, 1))
    batch.set_tasks([tasks[0]] * 2)
    obs, _ = batch.reset(seed=[3, 4])
    plain, _ = bare.reset(seed=3)
    for action in actions:
        np.testing.assert_array_equal(obs[0], gymnasium.spaces.flatten(bare.observation_space, plain))
        obs, rewards, *_ = batch.step(action)
        plain, reward, *_ = bare.step(action[0])
        assert rewards[0] == reward


def test_missing_packages_are_named_with_pips_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    command = f'needs shimmy and dm_control: pip install "shimmy[dm-control]" mujoco=={mujoco.__version__}'
    for env in ("dm_control/walker-run-v0", "shimmy:dm_control/walker-run-v0"):
        with pytest.raises(TaskError, match=re.escape(command)):
            MujocoVariation(env=env, vary=VARY)
        with pytest.raises(TaskError, match=re.escape(command)):
            GymVariation(env=env, effects={"action_delay": {"prior": {"choice": [0, 1]}}})


class Compiled(Pole):
    """As `dm_control.composer` does: a new model at every reset."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict, dict]:
        Pole.__init__(self)
        return super().reset(seed=seed, options=options)


def test_a_model_that_every_reset_compiles_anew_is_refused() -> None:
    gymnasium.register("Compiled-v0", Compiled)
    try:
        with pytest.raises(TaskError, match="Compiled-v0 compiles a new model at every reset"):
            MujocoVariation(env="Compiled-v0", vary=VARY)
    finally:
        del gymnasium.registry["Compiled-v0"]


EFFECTS = {
    "action_delay": {"prior": {"choice": [2]}},
    "observation_noise": {"prior": {"uniform": [0.01, 0.02]}},
    "dead_motor": {"prior": {"choice": [0]}, "at_step": 5},
}


@pytest.mark.filterwarnings("ignore")
def test_effects_lie_before_and_behind_deepmind_control() -> None:
    pytest.importorskip("shimmy", reason="needs shimmy[dm-control]")
    pytest.importorskip("dm_control", reason="needs shimmy[dm-control]")
    name = "dm_control/walker-run-v0"
    family = MujocoVariation(env=name, effects=EFFECTS, horizon=20)
    assert family.env_id == f"shimmy:{name}"
    task = family.sample("train", 1, 0)[0]
    env, bare = family.make(task), gymnasium.make(f"shimmy:{name}", disable_env_checker=True)
    seen, plain = env.reset(seed=3)[0], bare.reset(seed=3)[0]
    actions = np.random.default_rng(0).uniform(-1, 1, (12, 6))
    noise = []
    for step, action in enumerate(actions):
        noise.append(seen - gymnasium.spaces.flatten(bare.observation_space, plain))
        arrived = actions[step - 2].copy() if step >= 2 else np.zeros(6)
        if step >= 5:
            arrived[0] = 0.0
        seen, reward, *_ = env.step(action)
        plain, expected, *_ = bare.step(arrived)
        assert reward == pytest.approx(expected, abs=1e-12)
    assert 0.002 < np.std(noise) < 0.04
