"""Mistakes in `vary`, `effects` and `parameters`: one paragraph that says what is wrong and what is allowed; exit 2."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.field.conftest import command

MODEL = """<mujoco><worldbody><body name="link"><joint name="hinge" type="hinge" axis="0 0 1" damping="0.1"/>
<geom name="rod" type="capsule" fromto="0 0 0 0.4 0 0" size="0.03"/></body></worldbody>
<actuator><motor name="motor" joint="hinge" ctrlrange="-1 1"/></actuator></mujoco>"""
PLUGIN = """
import gymnasium, numpy as np
def reward(before, action, after, task):
    return -np.abs(after.joint("hinge")[:, 0])
def one_number(before, action, after, task):
    return 1.0
def wrong_name(before, action, after, task):
    return after.joint("hing")[:, 0]
def fails(before, action, after, task):
    return 1 / 0 + action
def always(state):
    return np.ones(len(state.qpos), bool)
class Env(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (2,))
    action_space = gymnasium.spaces.Box(-1, 1, (1,))
    def __init__(self, goal=0.0):
        self.goal = goal
        self.target = 1.0
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}
    def step(self, action):
        return np.zeros(2, np.float32), float(self.goal * action[0]), False, False, {}
class Combination(Env):
    action_space = gymnasium.spaces.MultiDiscrete([100, 100])
"""
HALF = {"uniform": [0.5, 1.5]}
LINK = {"model": "link.xml", "vary": {"damping": {"field": "dof_damping[*]", "prior": HALF}}}


def vary(**entry: Any) -> dict[str, Any]:
    return {"env": "Hopper-v5", "vary": {"mass": {"field": "body_mass[torso]", "prior": HALF, **entry}}}


def effect(name: str, **entry: Any) -> dict[str, Any]:
    return {"env": "Hopper-v5", "effects": {name: {"prior": {"uniform": [0.1, 0.2]}, **entry}}}


def gym(**entry: Any) -> dict[str, Any]:
    return {"env": "my_plugin:Env", "parameters": {"goal": {"prior": HALF, **entry}}}


MUJOCO: dict[str, tuple[dict[str, Any], str]] = {
    "a field that does not exist": (
        vary(field="body_mas[torso]"),
        "unknown field 'body_mas'; did you mean 'body_mass'",
    ),
    "an element that does not exist": (
        vary(field="body_mass[torsoo]"),
        "has no body 'torsoo'; did you mean 'torso'? there",
    ),
    "a pattern that fits nothing": (vary(field="geom_friction[wheel_*]"), "no geom 'wheel_*'; there are: floor, "),
    "no element": (vary(field="body_mass"), "which body? Write body_mass[NAME] or body_mass[*]"),
    "an element of the world": (vary(field="gravity[x]"), "gravity is one for the whole world; write it without [...]"),
    "no field at all": (vary(field="[torso]"), "must be a field and its elements, such as body_mass[torso]"),
    "a mass of 0": (vary(prior={"uniform": [0.0, 1.0]}), "body_mass of torso would be [0.]; allowed: above 0"),
    "a mass of 0 out of distribution": (vary(ood={"uniform": [-1.0, 0.4]}), "allowed: above 0"),
    "a negative friction": (
        vary(field="geom_friction[*]", mode="add", columns=[0], prior={"uniform": [-3.0, 0.0]}),
        "geom_friction of floor would be [-2.",
    ),
    "a joint range upside down": (
        vary(field="jnt_range[leg_joint]", prior={"uniform": [-1.0, 1.0]}),
        "a lower end",
    ),
    "an unknown mode": (vary(mode="scal"), "vary.mass.mode = 'scal': must be 'scale', 'add', 'set' or 'zero'"),
    "an unknown key": (vary(prio=HALF), "unknown key 'prio'; did you mean 'prior'?"),
    "no prior": ({"env": "Hopper-v5", "vary": {"mass": {"field": "gravity"}}}, "prior is missing; it has no default"),
    "an unknown prior": (
        vary(prior={"unifrom": [1, 2]}),
        "unknown prior 'unifrom'; did you mean 'uniform' or 'log_uniform'? allowed:",
    ),
    "a prior without width": (vary(prior={"uniform": [1.0, 1.0]}), "low must be below high"),
    "a prior of three numbers": (vary(prior={"uniform": [1, 2, 3]}), "must be [LOW, HIGH], got [1, 2, 3]"),
    "a prior that is a number": (vary(prior=2.0), "must be a prior: {uniform: [LOW, HIGH]}"),
    "a log prior from 0": (vary(prior={"log_uniform": [0.0, 1.0]}), "low must be positive"),
    "ood inside of training": (vary(ood={"uniform": [0.8, 1.2]}), "lies inside the training range U[0.5, 1.5]"),
    "a field that is 0 throughout": (vary(field="dof_damping[root*]"), "it changes nothing: dof_damping is 0"),
    "a column that does not exist": (vary(field="geom_friction[*]", columns=[3]), "columns 0 to 2"),
    "one number for three": (vary(field="gravity", mode="set"), "say which are meant, such as columns: [2]"),
    "an index that does not exist": (
        vary(field="actuator_gear[*]", mode="zero", prior={"choice": [-1, 3]}),
        "3 is no index of an element; allowed: 0 to 2",
    ),
    "a mass that changes in mid-episode": (vary(at_step=5), "body_mass cannot change in mid-episode"),
    "a change after the end": (vary(field="gravity", at_step=900), "never happens: the horizon is 200"),
    "a change before the start": (vary(field="gravity", at_step={"uniform": [-5, 5]}), "must be steps of an episode"),
    "half a step": (vary(field="gravity", at_step=2.5), "at_step = 2.5: must be a whole number from 0, or a prior: {"),
    "a step that is true": (vary(field="gravity", at_step=True), "at_step = True: must be a whole number from 0, or"),
    "a step before the start": (vary(field="gravity", at_step=-1), "at_step = -1: must be a whole number from 0, or"),
    "columns that are a number": (vary(columns=0), "columns = 0: must be a list of whole numbers from 0, such as [0]"),
    "half a column": (vary(columns=[0, 1.5]), "columns = [0, 1.5]: must be a list of whole numbers from 0"),
    "a dimension that is a number": (effect("encoder_bias", dimensions=0), "dimensions = 0: must be a list of whole"),
    "at_step and redraw": (vary(field="gravity", at_step=5, redraw=0.1), "at_step and redraw exclude each other"),
    "a probability above 1": (
        vary(field="gravity", redraw=2.0),
        "vary.mass.redraw = 2.0: must be less than",
    ),
    "a payload on two bodies": (vary(field="payload[*]"), "a payload is on one body"),
    "a payload with a mode": (vary(field="payload[torso]", mode="scale"), "leave mode out"),
    "an unknown effect": (effect("action_delays"), "unknown effect 'action_delays'; did you mean 'action_delay'"),
    "a negative delay": (
        effect("action_delay", prior={"choice": [-1, 0]}),
        "action_delay = -1 is in its",
    ),
    "a dropout above 1": (effect("sensor_dropout", prior={"uniform": [0, 2]}), "allowed: 0 to 1"),
    "a motor that does not exist": (
        effect("dead_motor", prior={"choice": [-1, 5]}),
        "no action dimension 5",
    ),
    "a motor that is no index": (effect("dead_motor"), "its value is an index, -1 for none"),
    "a dimension that does not exist": (effect("encoder_bias", dimensions=[30]), "no observation dimension 30"),
    "a name used twice": (
        {**vary(), "effects": {"mass": {"effect": "dead_band", "prior": {"uniform": [0, 0.1]}}}},
        "mass: named both in vary and in effects",
    ),
    "an environment that does not exist": ({**vary(), "env": "Hoper-v5"}, "did you mean 'Hopper-v5'"),
    "an environment without MuJoCo": ({**vary(), "env": "CartPole-v1"}, "GymVariation varies environments of any kind"),
    "a model that does not exist": (
        {**vary(), "env": None, "model": "lnk.xml", "reward": "my_plugin:reward"},
        "did you mean 'link.xml'",
    ),
    "a model without a reward": (
        {**vary(), "env": None, "model": "link.xml"},
        "needs a reward: reward:",
    ),
    "nothing to vary": ({"env": "Hopper-v5"}, "nothing varies; name at least one entry"),
    "neither env nor model": ({"vary": {}}, "needs env (a Gymnasium id such as Hopper-v5) or model"),
    "an unknown option": ({**vary(), "envv": 1}, "unexpected keyword argument 'envv'; there are: env, model"),
    "a horizon of 0": ({**vary(), "horizon": 0}, "horizon must be at least 1, got 0"),
    "a section that is a list": ({"env": "Hopper-v5", "vary": [1]}, "vary = [1]: must be a section of names"),
    "a reward of one number": ({**LINK, "reward": "my_plugin:one_number"}, "gave an array of shape () for"),
    "a reward that names nothing": (
        {**LINK, "reward": "my_plugin:wrong_name"},
        "the model has no joint 'hing'; did",
    ),
    "a reward that raises": (
        {**LINK, "reward": "my_plugin:fails"},
        "by zero (my_plugin.py, line 10)",
    ),
    "a reward that is not there": ({**LINK, "reward": "my_plugin:rewards"}, "has no 'rewards'"),
    "episodes of one step": (
        {**LINK, "reward": "my_plugin:reward", "terminated": "my_plugin:always"},
        "every episode ends in a terminal state at its first step",
    ),
}
GYM: dict[str, tuple[dict[str, Any], str]] = {
    "no way in": (
        gym(),
        "how it gets into the environment is missing; give exactly one of",
    ),
    "two ways in": (gym(argument="goal", attribute="goal"), "argument and attribute exclude each other"),
    "an attribute that does not exist": (gym(attribute="gaol"), "Env has no such attribute; did you mean 'goal'?"),
    "an argument that does not exist": (gym(argument="gaol"), "does not take these keyword arguments"),
    "no method set_task": (gym(set_task="goal"), "Env has no method `set_task`"),
    "an argument that changes": (gym(argument="goal", at_step=3), "at_step and redraw need an attribute"),
    "too many actions": (
        {**gym(attribute="goal"), "env": "my_plugin:Combination"},
        "has 10000 actions",
    ),
    "an id that does not exist": ({**gym(attribute="goal"), "env": "CartPol-v1"}, "did you mean 'CartPole-v1'"),
}


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("link.xml").write_text(MODEL)
    Path("my_plugin.py").write_text(PLUGIN)
    monkeypatch.delitem(sys.modules, "my_plugin", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))


def checked(name: str, options: dict[str, Any]) -> str:
    """What `metarl tasks check` says of a file with this section; its exit code is 2."""
    content = {"task_distribution": {"name": name, "options": {k: v for k, v in options.items() if v is not None}}}
    Path("robot.yaml").write_text(yaml.safe_dump(content))
    result = command("tasks", "check", "robot.yaml")
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    said = result.output
    assert all(len(line) < 700 for line in said.splitlines())
    return said


@pytest.mark.parametrize("mistake", MUJOCO)
def test_a_mistake_in_a_mujoco_variation_is_explained(mistake: str) -> None:
    options, message = MUJOCO[mistake]
    assert message in checked("MujocoVariation", options)


@pytest.mark.parametrize("mistake", GYM)
def test_a_mistake_in_a_variation_of_any_environment_is_explained(mistake: str) -> None:
    options, message = GYM[mistake]
    assert message in checked("GymVariation", options)
