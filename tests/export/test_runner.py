"""The program that runs an export refuses what the agent refuses, and is as it was afterwards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from metarl.export import Runner

HORIZON = 3
OBS = np.zeros(2)
ROUNDS = [{"episodes": 2, "adapt": True, "deterministic": False}]
TOLD = {
    "graphs": {
        "policy": {
            "inputs": [
                {"name": "noise.action", "shape": [1, 1], "dtype": "float32", "draw": "normal", "draw_at": "step"}
            ]
        },
        "adapt": {"inputs": []},
    },
    "observation": {"flat_size": 2},
    "rounds": ROUNDS,
    "horizon": HORIZON,
}


class Graphs:
    """Stand-ins: the action is the sum of everything that `act` is given; `adapted` keeps what `adapt` was given."""

    gain = 1.0

    def __init__(self) -> None:
        self.adapted: list[Mapping[str, np.ndarray]] = []

    def act(self, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        sums = [given[name].sum() for name in ("observation", "reward", "first", "noise.action", "state.memory")]
        action = np.array([[self.gain * float(sum(sums))]], np.float32)
        return {"action": action, "policy_action": action, "next.memory": given["state.memory"] + 1}

    def adapt(self, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.adapted.append(dict(given))
        return {}


def made(acted: int = 0, observed: int = 0) -> Runner:
    """In the middle of an episode: after these calls of act and of observe."""
    graphs = Graphs()
    runner = Runner(graphs.act, graphs.adapt, TOLD, {"memory": np.zeros((1, 1), np.float32)})
    runner.begin_task(0)
    for i in range(acted):
        runner.act(OBS)
        if i < observed:
            runner.observe(0.0)
    return runner


ORDER: dict[str, tuple[Callable[[], Any], str]] = {
    "act twice": (lambda: made(1).act(OBS), "act was called twice: call observe"),
    "observe first": (lambda: made().observe(0.0), "observe was called before act"),
    "observe twice": (lambda: made(1, 1).observe(0.0), "observe was called twice for one action"),
    "end first": (lambda: made().end_episode(True, OBS), "before the episode's first step"),
    "end after act": (lambda: made(2, 1).end_episode(True, OBS), "end_episode was called after act: call observe"),
    "beyond the horizon": (lambda: made(3, 3).act(OBS), "the episode is over after 3 steps: call end_episode"),
    "no action yet": (lambda: made().policy_action, "there is no action yet"),
}


@pytest.mark.parametrize("name", ORDER)
def test_calls_in_another_order_are_errors_that_say_what_to_call(name: str) -> None:
    call, says = ORDER[name]
    with pytest.raises(RuntimeError, match=says):
        call()


VALUES: dict[str, tuple[Callable[[], Any], str]] = {
    "size": (
        lambda: made().act(np.zeros(3)),
        r"observation must be 2 finite numbers, flat, got an array of shape \(3,\)",
    ),
    "rank": (lambda: made().act(np.zeros((1, 2))), r"got an array of shape \(1, 2\)"),
    "nested": (lambda: made().act({"a": OBS}), "2 finite numbers, flat, got dict"),
    "ragged": (lambda: made().act([[0.0], 1.0]), "2 finite numbers, flat, got list"),
    "text": (lambda: made().act(["1", "2"]), "got list"),
    "nan": (lambda: made().act([0.0, np.nan]), "2 finite numbers, got nan in dimension 1"),
    "inf": (lambda: made().act([-np.inf, 0.0]), "got -inf in dimension 0"),
    "huge": (lambda: made().act([0.0, 1e39]), r"got 1e\+39, too large for float32, in dimension 1"),
    "reward nan": (lambda: made(1).observe(np.nan), "the reward is nan; it must be finite"),
    "reward huge": (lambda: made(1).observe(-1e39), r"the reward is -1e\+39, too large for float32; it must be finite"),
    "reward text": (lambda: made(1).observe("high"), "the reward must be a single number, got str 'high'"),  # type: ignore[arg-type]
    "rewards": (lambda: made(1).observe(np.zeros(1)), "the reward must be a single number"),  # type: ignore[arg-type]
    "last size": (lambda: made(1, 1).end_episode(True, np.zeros(1)), "the last observation must be 2 finite numbers"),
    "last nan": (lambda: made(1, 1).end_episode(True, np.full(2, np.nan)), "got nan in dimension 0"),
    "truncated": (lambda: made(1, 1).end_episode("no", OBS), "truncated must be True or False, got str 'no'"),  # type: ignore[arg-type]
    "noise name": (
        lambda: made().act(OBS, {"noise.acton": np.zeros((1, 1))}),
        "is no input of the policy; allowed: noise.a",
    ),
    "noise size": (
        lambda: made().act(OBS, {"noise.action": np.zeros(2)}),
        r"noise.action must be .* of shape \[1, 1\]",
    ),
    "noise nan": (lambda: made().act(OBS, {"noise.action": np.full((1, 1), np.nan)}), "noise.action must be finite"),
}


@pytest.mark.parametrize("name", VALUES)
def test_what_has_another_size_or_is_not_finite_is_an_error_that_names_it(name: str) -> None:
    call, says = VALUES[name]
    with pytest.raises(ValueError, match=says):
        call()


def test_an_action_that_is_not_finite_is_an_error_and_not_sent_to_the_robot() -> None:
    graphs = Graphs()
    graphs.gain = np.nan
    runner = Runner(graphs.act, None, TOLD, {"memory": np.zeros((1, 1), np.float32)})
    with pytest.raises(RuntimeError, match="the policy's action is not finite"):
        runner.act(OBS)
    np.testing.assert_array_equal(runner.state["state.memory"], [[0]])


def test_an_error_leaves_the_runner_as_it_was() -> None:
    troubled, calm = made(), made()
    silence = {"noise.action": np.zeros((1, 1))}

    def fails(call: Callable[[], Any]) -> None:
        with pytest.raises((ValueError, RuntimeError)):
            call()

    for episode in range(2):
        for step in range(2):
            fails(lambda: troubled.act([np.nan, 0.0]))
            fails(lambda: troubled.observe(0.0))
            first, second = (one.act(np.full(2, step), silence) for one in (troubled, calm))
            np.testing.assert_array_equal(first, second)
            fails(lambda: troubled.act(OBS))
            fails(lambda: troubled.observe(np.inf))
            fails(lambda: troubled.end_episode(False, OBS))
            for one in (troubled, calm):
                one.observe(0.5 + episode)
        fails(lambda: troubled.end_episode(False, np.zeros(1)))
        for one in (troubled, calm):
            one.end_episode(False, np.ones(2))
    assert (troubled.round, troubled.episodes) == (calm.round, calm.episodes) == (1, [])
    found, expected = (one._adapt.__self__.adapted for one in (troubled, calm))  # type: ignore[union-attr]
    assert len(found) == 1
    for name, values in expected[0].items():
        np.testing.assert_array_equal(found[0][name], values)
    np.testing.assert_array_equal(found[0]["rewards"], [[0.5, 0.5, 0], [1.5, 1.5, 0]])
    np.testing.assert_array_equal(found[0]["lengths"], [2, 2])
