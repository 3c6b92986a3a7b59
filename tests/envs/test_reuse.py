"""Environments that are kept when they are closed."""

from __future__ import annotations

import gymnasium
from metarl_envs.reuse import Reused, take


class Counted(gymnasium.Env):
    closed = 0

    def close(self) -> None:
        self.closed += 1


def test_a_closed_environment_is_the_next_one_of_its_key_once_however_often_it_is_closed() -> None:
    first = Counted()
    wrapped = Reused(first, "a key")
    wrapped.close()
    wrapped.close()
    assert take("another key", Counted) is not first
    assert take("a key", Counted) is first
    assert take("a key", Counted) is not first
    assert first.closed == 0


def test_without_a_key_it_is_closed() -> None:
    env = Counted()
    wrapped = Reused(env, None)
    wrapped.close()
    wrapped.close()
    assert env.closed == 1
