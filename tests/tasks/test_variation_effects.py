"""Effects, schedules and their random numbers, worked by hand."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from metarl.errors import TaskError
from metarl.tasks import Task
from metarl.tasks.variation.body import Body, BodyState

MOTORS = Box(np.array([-1.0, -2.0, 0.0], np.float32), np.array([1.0, 2.0, 4.0], np.float32))
ONE = np.ones(1, bool)


def running(effects: dict[str, Any], values: dict[str, Any], space: Any = MOTORS, rows: int = 1) -> BodyState:
    """A body with these values in every row, at the start of an episode of seed 0."""
    body = Body.of(effects)
    state = body.start(space, 2, rows)
    task = Task.of("t", {p.name: values[p.name] for p in body.parameters})
    state.set_tasks([task] * rows, {name: np.array([value] * rows) for name, value in task.items})
    state.reset(np.ones(rows, bool), [0] * rows)
    return state


def acted(state: BodyState, actions: list[list[float]]) -> np.ndarray:
    """What arrives of the actions of one robot, step by step."""
    arrived = []
    for action in actions:
        state.advance(None)
        arrived.append(state.act(np.array([action], np.float32), None)[0])
    return np.array(arrived)


def seen(state: BodyState, observations: list[list[float]]) -> np.ndarray:
    """What is seen of the observations of one robot, the first after the reset."""
    result = [state.observe(np.array([observations[0]]), ONE)[0]]
    for observation in observations[1:]:
        state.advance(None)
        result.append(state.observe(np.array([observation]), None)[0])
    return np.array(result)


def prior(*values: float) -> dict[str, Any]:
    return {"prior": {"choice": list(values)}}


RAMP: list[list[float]] = [[0.1, 0.2, 1.0], [0.2, 0.4, 2.0], [0.3, 0.6, 3.0], [0.4, 0.8, 4.0]]


def test_an_action_delay_of_one_step_gives_rest_first_and_then_the_action_before() -> None:
    arrived = acted(running({"action_delay": prior(1)}, {"action_delay": 1.0}), RAMP)
    np.testing.assert_allclose(arrived, [[0.0] * 3, *RAMP[:3]], rtol=1e-6)


def test_a_fractional_delay_mixes_two_neighbours() -> None:
    arrived = acted(running({"action_delay": prior(1.25)}, {"action_delay": 1.25}), RAMP)
    np.testing.assert_allclose(arrived[3], 0.75 * np.array(RAMP[2]) + 0.25 * np.array(RAMP[1]), rtol=1e-6)
    np.testing.assert_allclose(arrived[1], 0.75 * np.array(RAMP[0]), rtol=1e-6)


def test_an_observation_delay_shows_the_first_observation_until_the_next_arrives() -> None:
    shown = seen(running({"observation_delay": prior(2)}, {"observation_delay": 2.0}), [[1, 1], [2, 2], [3, 3], [4, 4]])
    np.testing.assert_array_equal(shown[:, 0], [1, 1, 1, 2])


def test_a_dead_band_is_a_part_of_each_motors_half_range() -> None:
    arrived = acted(running({"dead_band": prior(0.25)}, {"dead_band": 0.25}), [[0.2, 0.6, 0.4], [0.3, 0.4, 0.6]])
    np.testing.assert_allclose(arrived, [[0, 0.6, 0], [0.3, 0, 0.6]], rtol=1e-6)


def test_a_motors_strength_multiplies_its_action_within_its_range() -> None:
    effect = {"motor_strength": {**prior(0.5), "dimensions": [1]}}
    arrived = acted(running(effect, {"motor_strength": 0.5}), [[0.5, 1.0, 1.0]])
    np.testing.assert_allclose(arrived, [[0.5, 0.5, 1.0]])
    arrived = acted(running({"motor_strength": prior(3)}, {"motor_strength": 3.0}), [[0.5, 1.0, 1.0]])
    np.testing.assert_allclose(arrived, [[1.0, 2.0, 3.0]])


def test_a_dead_motor_is_at_rest_and_a_stuck_one_stays_at_its_last_action() -> None:
    dead = running({"dead_motor": {**prior(1), "at_step": 2}}, {"dead_motor": 1.0, "dead_motor.at_step": 2.0})
    np.testing.assert_allclose(acted(dead, RAMP)[:, 1], [0.2, 0.4, 0, 0], rtol=1e-6)
    stuck = running({"stuck_motor": {**prior(1), "at_step": 2}}, {"stuck_motor": 1.0, "stuck_motor.at_step": 2.0})
    np.testing.assert_allclose(acted(stuck, RAMP)[:, 1], [0.2, 0.4, 0.4, 0.4], rtol=1e-6)
    from_the_start = running({"stuck_motor": prior(1)}, {"stuck_motor": 1.0})
    np.testing.assert_allclose(acted(from_the_start, RAMP)[:, 1], [0.2] * 4, rtol=1e-6)


def test_sensors_drift_freeze_and_are_biased() -> None:
    values = [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]
    drift = seen(running({"sensor_drift": prior(0.5)}, {"sensor_drift": 0.5}), values)
    np.testing.assert_allclose(drift[:, 0], [1, 2.5, 4])
    frozen = {"sensor_freeze": {**prior(1), "at_step": 1}}
    freeze = seen(running(frozen, {"sensor_freeze": 1.0, "sensor_freeze.at_step": 1.0}), values)
    np.testing.assert_array_equal(freeze, [[1, 1], [2, 2], [3, 2]])  # the action of step 1 gives the third
    bias = {"encoder_bias": {"prior": {"uniform": [-1, 1]}, "shared": False, "dimensions": [0, 1]}}
    biased = seen(running(bias, {"encoder_bias": (0.5, -0.5)}), values)
    np.testing.assert_allclose(biased, np.array(values) + np.array([0.5, -0.5]))


def test_noise_has_the_stated_deviation_and_dropout_the_stated_share() -> None:
    state = running(
        {"observation_noise": prior(0.2), "action_noise": prior(0.1)}, {"observation_noise": 0.2, "action_noise": 0.1}
    )
    noise = seen(state, [[0.0, 0.0]] * 2000)
    assert noise.std() == pytest.approx(0.2, rel=0.05)
    assert abs(noise.mean()) < 0.02
    arrived = acted(state, [[0.0, 0.0, 2.0]] * 2000) - [0, 0, 2]
    np.testing.assert_allclose(arrived.std(axis=0), [0.1, 0.2, 0.2], rtol=0.1)
    dropped = seen(running({"sensor_dropout": prior(0.3)}, {"sensor_dropout": 0.3}), [[1.0, 1.0]] * 2000)
    assert (dropped == 0).mean() == pytest.approx(0.3, abs=0.03)


def test_a_row_draws_the_same_numbers_alone_and_among_others_and_others_after_another_seed() -> None:
    effects, values = {"observation_noise": prior(1.0)}, {"observation_noise": 1.0}
    together, alone = running(effects, values, rows=3), running(effects, values)
    together.reset(np.ones(3, bool), [4, 9, 4])
    alone.reset(ONE, [9])
    zeros = np.zeros((3, 2))
    many = [together.observe(zeros, np.ones(3, bool))]
    single = [alone.observe(zeros[:1], ONE)]
    for _ in range(40):  # beyond what is drawn at once
        together.advance(None)
        alone.advance(None)
        many.append(together.observe(zeros, None))
        single.append(alone.observe(zeros[:1], None))
    np.testing.assert_array_equal(np.array(many)[:, 1], np.array(single)[:, 0])
    np.testing.assert_array_equal(np.array(many)[:, 0], np.array(many)[:, 2])
    assert not np.array_equal(np.array(many)[:, 0], np.array(many)[:, 1])


def test_an_episode_without_a_new_seed_has_new_numbers_and_the_same_seed_the_same() -> None:
    state = running({"observation_noise": prior(1.0)}, {"observation_noise": 1.0})
    episodes = []
    for seed in (3, None, 3):
        state.reset(ONE, [seed])
        episodes.append(seen(state, [[0.0, 0.0]] * 5))
    np.testing.assert_array_equal(episodes[0], episodes[2])
    assert not np.array_equal(episodes[0], episodes[1])


def test_rows_that_do_not_run_keep_what_was_seen_and_forget_nothing() -> None:
    effects, values = {"observation_delay": prior(1)}, {"observation_delay": 1.0}
    state = running(effects, values, rows=2)
    both = np.ones(2, bool)
    state.observe(np.array([[1.0, 1.0], [1.0, 1.0]]), both)
    for t, mask in ((2.0, None), (3.0, np.array([True, False])), (4.0, np.array([True, False]))):
        state.advance(mask)
        shown = state.observe(np.full((2, 2), t), mask)
    np.testing.assert_array_equal(shown[:, 0], [3.0, 1.0])


def test_a_value_is_drawn_anew_with_its_probability_and_from_its_prior() -> None:
    effects = {"encoder_bias": {"prior": {"uniform": [0.0, 1.0]}, "redraw": 0.1}}
    state = running(effects, {"encoder_bias": 0.5})
    shown = seen(state, [[0.0, 0.0]] * 2000)[:, 0]
    changes = np.flatnonzero(np.diff(shown))
    assert len(changes) == pytest.approx(200, abs=50)
    assert shown[:2].tolist() == [0.5, shown[1]]
    assert shown.min() >= 0
    assert shown.max() <= 1
    state.reset(ONE, [0])
    np.testing.assert_array_equal(seen(state, [[0.0, 0.0]] * 2000)[:, 0], shown)


def test_discrete_actions_can_be_delayed_by_whole_steps_alone() -> None:
    state = running({"action_delay": prior(0, 2)}, {"action_delay": 2.0}, Discrete(3, start=1))
    arrived = []
    for action in (3, 2, 1, 2):
        state.advance(None)
        arrived.append(int(state.act(np.array([action]), None)[0]))
    assert arrived == [1, 1, 3, 2]
    for effects in ({"action_noise": prior(0.1)}, {"action_delay": {"prior": {"uniform": [0, 2]}}}):
        with pytest.raises(TaskError, match="actions are discrete; allowed for them is action_delay by whole steps"):
            Body.of(effects).start(Discrete(3), 2, 1)


@pytest.mark.parametrize("delay", [3.0, 6.0, 7.5])
def test_a_delay_longer_than_any_in_training_is_as_long_as_it_says(delay: float) -> None:
    state = running({"action_delay": prior(0, 1, 2)}, {"action_delay": delay})
    ramp = [[i / 20, i / 10, i / 5] for i in range(1, 13)]
    whole, part = int(delay), delay % 1
    expected = (1 - part) * np.array(ramp[11 - whole]) + part * np.array(ramp[10 - whole])
    np.testing.assert_allclose(acted(state, ramp)[11], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("effect", "value", "says"),
    [
        ("action_delay", -1.0, "effects.action_delay: action_delay = -1 is that of a task; allowed: 0 to 1000"),
        ("sensor_dropout", 1.1, "effects.sensor_dropout: sensor_dropout = 1.1 is that of a task; allowed: 0 to 1"),
        ("dead_motor", 0.5, "effects.dead_motor = 0.5 of a task: must be a whole number here"),
        ("dead_motor", 3.0, "effects.dead_motor: there is no action dimension 3; allowed: 0 to 2"),
    ],
)
def test_a_task_whose_value_the_effect_cannot_have_is_refused(effect: str, value: float, says: str) -> None:
    with pytest.raises(TaskError, match=re.escape(says)):
        running({effect: prior(0, 1)}, {effect: value})


def test_values_out_of_range_must_be_whole_where_those_of_training_must() -> None:
    delay = {"action_delay": {**prior(0, 1), "ood": {"uniform": [1.0, 3.0]}}}
    with pytest.raises(TaskError, match="action_delay by whole steps"):
        Body.of(delay).start(Discrete(3), 1, 1)
    with pytest.raises(TaskError, match="its value is an index"):
        Body.of({"dead_motor": {**prior(-1, 0), "ood": {"uniform": [0.0, 2.0]}}})
