"""Stopping runs in other processes: by lines of a file that all of them see."""

from __future__ import annotations

from pathlib import Path

ALL = "*"


class StopFile:
    """Lines `signal name`, appended: what another process writes is never read in part."""

    def __init__(self, path: Path):
        self._path = path

    def clear(self) -> None:
        """Withdraw all requests; to be called before the runs start."""
        self._path.write_text("")

    def stop(self, name: str, signal_number: int) -> None:
        """Ask the run `name`, or `ALL`, to stop."""
        with open(self._path, "a") as file:
            file.write(f"{signal_number} {name}\n")

    def read(self) -> dict[str, int]:
        """Name, or `ALL` -> signal."""
        lines = [line.partition(" ") for line in self._path.read_text().splitlines()]
        return {name: int(number) for number, _, name in lines}
