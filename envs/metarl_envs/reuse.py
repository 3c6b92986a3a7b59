"""Environments that are kept for the next task when they are closed. For those that are slow to build."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Hashable
from typing import Any

import gymnasium

_free: defaultdict[Hashable, deque[gymnasium.Env]] = defaultdict(deque)  # of this process; both ends are atomic


def take(key: Hashable, make: Callable[[], Any]) -> Any:
    """An environment that was kept under `key`, or what `make` returns."""
    try:
        return _free[key].pop()
    except IndexError:
        return make()


class Reused(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Closing it keeps `env` for the next `take(key, ...)`; key None closes `env`.

    What the next task could see of this one must be set anew when it is taken, or at its reset: a test of each family
    holds a used environment to what a new one does.
    """

    def __init__(self, env: Any, key: Hashable | None):
        super().__init__(env)
        self._key, self._is_open = key, True

    def close(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        if self._key is None:
            self.env.close()
        else:
            _free[self._key].append(self.env)
