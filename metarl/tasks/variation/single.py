"""The model of one Gymnasium environment, edited in place: `Physics` as far as fields are concerned."""

from __future__ import annotations

import copy
from typing import Any

import mujoco
import numpy as np

from metarl.tasks.physics import owner_of, write_fields


class SingleModel:
    """Fields [1, ...] of an environment's own model. `model` is a copy of it as it was."""

    num_sims = 1

    def __init__(self, live: Any):
        self.model = copy.copy(live)
        self._live, self._scratch = live, mujoco.MjData(live)
        self._fields: dict[str, np.ndarray] = {}

    def field(self, name: str) -> np.ndarray:
        """Editable values [1, ...] of a field; `commit` or `write` make edits take effect."""
        if name not in self._fields:
            self._fields[name] = np.array(getattr(owner_of(self.model, name), name))[None]
        return self._fields[name]

    def write(self) -> None:
        """Edits of fields that no derived constant depends on take effect."""
        write_fields(self._live, {name: values[0] for name, values in self._fields.items()})

    def commit(self) -> None:
        """All edits take effect, and derived constants are computed anew. The state is not touched."""
        self.write()
        mujoco.mj_setConst(self._live, self._scratch)
