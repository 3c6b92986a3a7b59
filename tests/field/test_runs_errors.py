"""How commands end: home directories, tracebacks for those who ask for them, and whose error it was."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from metarl.training import loop
from tests.field.conftest import command

if TYPE_CHECKING:
    from tests import toy_algorithm
else:
    import toy_algorithm  # the module that configurations name


def test_a_home_directory_in_an_option_is_expanded(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of `--run-dir=~/runs/x` the shell leaves the ~ as it is."""
    monkeypatch.setenv("HOME", str(Path("home").absolute()))
    result = command("train", config, "--run-dir=~/runs/x", "training.iterations=1")
    assert result.exit_code == 0, result.output
    assert Path("home/runs/x/config.yaml").is_file()
    assert not Path("~").exists()
    result = command("evaluate", "~/runs/x", "--out=~/results")
    assert result.exit_code == 0, result.output
    assert Path("home/results/evaluation.json").is_file()


@pytest.mark.parametrize(
    "arguments", [["--traceback", "config", "show", "nothing"], ["config", "show", "nothing", "--traceback"]]
)
def test_a_traceback_is_shown_to_those_who_ask(arguments: list[str]) -> None:
    result = command(*arguments)
    assert result.exit_code == 2
    assert "Traceback (most recent call last)" in result.stderr
    assert "load.py" in result.stderr
    assert "error: no configuration file nothing" in result.stderr
    assert "Traceback" not in command("config", "show", "nothing").stderr


def test_an_error_in_a_plug_in_is_one_paragraph_with_its_place(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: toy_algorithm.Toy, *arguments: object) -> dict[str, float]:
        raise KeyError("momentum")

    monkeypatch.setattr(toy_algorithm.Toy, "update", broken)
    result = command("train", config)
    assert result.exit_code == 1
    assert "KeyError: 'momentum' (" in result.stderr
    assert f"{Path(__file__).name}, line " in result.stderr
    assert "Traceback" not in result.stderr
    assert "Traceback" in command("train", config, "--run-dir", "again", "--traceback").stderr


def test_an_error_of_our_own_comes_with_its_traceback_and_where_to_report_it(
    config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "units_of", None)
    result = command("train", config)
    assert result.exit_code == 1
    assert "Traceback (most recent call last)" in result.stderr
    assert "error: TypeError: 'NoneType' object is not callable" in result.stderr
    assert "Please report it to its maintainers" in result.stderr


def test_a_metric_with_a_name_of_the_records_own_is_refused(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A metric called `iteration` would replace the iteration's number in metrics.jsonl."""
    monkeypatch.setattr(toy_algorithm.Toy, "update", lambda self, *arguments: {"iteration": 1.0, "wall_s": 2.0})
    result = command("train", config)
    assert result.exit_code == 1
    assert "the algorithm's metrics iteration, wall_s: records use these names" in result.stderr
