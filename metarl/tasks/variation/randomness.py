"""Random numbers of each simulation's own: a function of its seed, its episode and its task alone.

A batch of many and a single environment with the same seed draw the same numbers, in whatever blocks they are drawn.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_BLOCK = 32  # steps drawn at once


class RowNoise:
    """`normal` [n, number of normals] and `uniform` [n, number of uniforms] of the current step."""

    def __init__(self, n: int, num_normal: int, num_uniform: int):
        self.normal, self.uniform = np.zeros((n, num_normal)), np.zeros((n, num_uniform))
        self._normals = np.zeros((n, _BLOCK, num_normal))
        self._uniforms = np.zeros((n, _BLOCK, num_uniform))
        self._count = np.zeros(n, np.int64)
        self._seeds: list[int | None] = [None] * n
        self._episodes = [0] * n
        self._paths: list[tuple[int, int, int]] = [(0, 0, 0)] * n
        self._streams: dict[int, np.random.Generator] = {}
        self._redraws: dict[int, np.random.Generator] = {}

    def reset(self, rows: np.ndarray, seeds: Sequence[int | None], fingerprints: Sequence[int]) -> None:
        """Begin an episode of the rows, from new seeds or, where a seed is None, the next one of the seed before."""
        for i in rows.tolist():
            if seeds[i] is not None:
                self._seeds[i], self._episodes[i] = seeds[i], 0
            else:
                self._episodes[i] += 1
            seed = self._seeds[i]
            if seed is None:
                seed = self._seeds[i] = int(np.random.SeedSequence().generate_state(1, np.uint64)[0])
            self._paths[i] = (seed, self._episodes[i], fingerprints[i])
            self._streams.pop(i, None)
            self._redraws.pop(i, None)
        self._count[rows] = 0
        self.advance(rows)

    def advance(self, rows: np.ndarray) -> None:
        """The next step's numbers of the rows."""
        if not (self.normal.shape[1] or self.uniform.shape[1]):
            return
        place = self._count[rows] % _BLOCK
        for i in rows[place == 0].tolist():
            stream = self._stream(i)
            if self.normal.shape[1]:
                self._normals[i] = stream.standard_normal(self._normals.shape[1:])
            if self.uniform.shape[1]:
                self._uniforms[i] = stream.random(self._uniforms.shape[1:])
        self.normal[rows] = self._normals[rows, place]
        self.uniform[rows] = self._uniforms[rows, place]
        self._count[rows] += 1

    def _stream(self, i: int) -> np.random.Generator:
        if i not in self._streams:
            self._streams[i] = np.random.Generator(np.random.Philox(np.random.SeedSequence(self._paths[i])))
        return self._streams[i]

    def redraws(self, i: int) -> np.random.Generator:
        """A row's generator of values that are drawn anew in this episode."""
        if i not in self._redraws:
            path = np.random.SeedSequence(self._paths[i], spawn_key=(1,))
            self._redraws[i] = np.random.Generator(np.random.Philox(path))
        return self._redraws[i]
