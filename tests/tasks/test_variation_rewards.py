"""The declared rewards: what is paid for, and what control costs, whatever unit it has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metarl.errors import TaskError
from metarl.tasks.mujoco import MujocoBatch
from metarl.tasks.variation import MujocoVariation
from metarl.tasks.variation.rewards import REWARDS, effort
from tests.tasks.varied import ARM

PAYLOAD = {"payload": {"field": "payload[hand]", "prior": {"uniform": [0.0, 1.0]}}}
REACH = {"site": "tip", "target": "target"}


def arm(folder: Path, reward: dict[str, Any], text: str = ARM) -> MujocoVariation:
    path = folder / "arm.xml"
    path.write_text(text)
    return MujocoVariation(model=str(path), reward=reward, vary=PAYLOAD, reset_noise=0.0, horizon=5)


def step(family: MujocoVariation, action: list[float]) -> tuple[float, MujocoBatch]:
    batch = family.make_batch([family.task(payload=0.5)])
    assert isinstance(batch, MujocoBatch)
    batch.reset(seed=0)
    return float(batch.step(np.array([action]))[1][0]), batch


def test_effort_is_0_at_rest_and_1_per_actuator_at_the_far_end_of_its_range() -> None:
    ranges = np.array([[-1.0, 1.0], [-300.0, 300.0], [0.0, 1.0], [0.5, 2.5], [-1.0, 3.0]])
    assert effort(np.array([[0.0, 0.0, 0.0, 0.5, 0.0]]), ranges).tolist() == [0.0]
    assert effort(np.array([[-1.0, 300.0, 1.0, 2.5, 3.0]]), ranges).tolist() == [5.0]
    # half of the way: 1/4 each
    assert effort(np.array([[0.5, -150.0, 0.5, 1.5, -1.5]]), ranges).tolist() == [1.25]


def test_the_cost_of_a_range_of_1_is_the_sum_of_squares() -> None:
    action = np.random.default_rng(0).uniform(-1, 1, (4, 3))
    np.testing.assert_array_equal(effort(action, np.array([[-1.0, 1.0]] * 3)), np.square(action).sum(axis=1))


def test_reach_is_minus_the_distance_minus_the_cost(tmp_path: Path) -> None:
    reward, batch = step(arm(tmp_path, {"reach": {**REACH, "control_cost": 0.5}}), [0.5, -1.0])
    sites = batch.physics.data("site_xpos")[0]
    distance = float(np.linalg.norm(sites[1] - sites[0]))
    assert reward == pytest.approx(-distance - 0.5 * (0.25 + 1.0), rel=1e-9)


def test_forward_is_the_distance_times_its_scale_minus_the_cost(tmp_path: Path) -> None:
    free = {"body": "hand", "control_cost": 0.0}
    covered, _ = step(arm(tmp_path, {"forward": free}), [1.0, 0.5])
    assert covered != 0.0
    reward, _ = step(arm(tmp_path, {"forward": {**free, "scale": 20.0, "control_cost": 0.1}}), [1.0, 0.5])
    assert reward == pytest.approx(20.0 * covered - 0.1 * (1.0 + 0.25), rel=1e-9)


@pytest.mark.parametrize("kind", REWARDS)
def test_the_unit_of_a_control_does_not_change_what_full_control_costs(kind: str, tmp_path: Path) -> None:
    """A servo whose control is in degrees: the same motion from 57 times the number."""
    options = REACH if kind == "reach" else {"body": "hand"}
    degrees = np.rad2deg(1.0)
    in_degrees = ARM.replace('<position name="elbow" joint="elbow" kp="20" kv="1" ctrlrange="-1 1"/>', DEGREES)
    assert in_degrees != ARM
    rewards = []
    for text, control in ((ARM, 1.0), (in_degrees, degrees)):
        rewards.append(step(arm(tmp_path, {kind: options}, text), [0.3, 0.5 * control])[0])
    assert rewards[1] == pytest.approx(rewards[0], rel=1e-6)


DEGREES = (
    f'<general name="elbow" joint="elbow" biastype="affine" gainprm="{20 / np.rad2deg(1.0):.12f}" biasprm="0 -20 -1" '
    f'ctrlrange="{-np.rad2deg(1.0):.12f} {np.rad2deg(1.0):.12f}"/>'
)


def test_an_option_that_does_not_exist_is_refused_with_those_that_do(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"reward\.reach\.cost: .*; keys here: control_cost, site, target"):
        arm(tmp_path, {"reach": {**REACH, "cost": 0.1}})


def test_the_manual_names_every_option_and_its_default() -> None:
    manual = (Path(__file__).parents[2] / "docs" / "task-distributions.md").read_text()
    for name, kind in REWARDS.items():
        rows = manual[manual.index(f"| `{name}`: ") :].split("\n| `" if name == "reach" else "\n\n")[0]
        for option, field in kind.model_fields.items():
            assert f"`{option}`" in rows
            assert field.is_required() or f"| {field.default} |" in rows
