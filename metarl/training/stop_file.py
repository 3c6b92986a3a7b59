"""How runs in other processes are asked to stop: by lines of a file that all of them see."""

from __future__ import annotations

from pathlib import Path

ALL = "*"


class StopFile:
    """Lines `signal name`, appended: what another process writes is never read in part."""

    def __init__(self, path: Path):
        self._path = path

    def clear(self) -> None:
        """Nobody is to stop; to be called before anybody reads."""
        self._path.write_text("")

    def stop(self, name: str, signal_number: int) -> None:
        """Ask the run `name`, or `ALL`, to stop."""
        with open(self._path, "a") as file:
            file.write(f"{signal_number} {name}\n")

    def read(self) -> dict[str, int]:
        """Name, or `ALL` -> signal."""
        lines = [line.partition(" ") for line in self._path.read_text().splitlines()]
        return {name: int(number) for number, _, name in lines}
