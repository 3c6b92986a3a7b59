"""Plug-ins that do not load: one paragraph with file and line in the user's code, and exit code 2."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from metarl.cli.app import app

HEAD = """import gymnasium
from metarl.tasks import Parameter, TaskDistribution, Uniform
class Base(TaskDistribution):
    name, version, horizon, parameters = "Base", 1, 5, (Parameter("g", Uniform(0.0, 1.0)),)
    def make(self, task): return gymnasium.make("Pendulum-v1", g=task["g"])
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    before, path = set(sys.modules), list(sys.path)
    importlib.invalidate_caches()
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


def refusal(*arguments: str) -> str:
    """What the command says on its way out with code 2: one paragraph."""
    result = CliRunner().invoke(app, ["tasks", "show", *arguments])
    assert result.exit_code == 2, result.output
    (message,) = [line for line in result.output.splitlines() if line.startswith("error: ")]
    return message


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("class D(TaskDistribution)\n", "SyntaxError: expected ':' (robot.py, line 6)"),
        ("open('robot.urdf')\n", "No such file or directory: 'robot.urdf' (robot.py, line 6)"),
        ("raise SystemExit('no licence')\n", "SystemExit: no licence (robot.py, line 6)"),
        ("Parameter('mass', Uniform(2.0, 1.0))\n", "low must be below high and both finite, got 2.0, 1.0"),
        ("class D(Base):\n  def __init__(self): raise ValueError('no inertia')\n", "no inertia (robot.py, line 7)"),
        ("class D(Base):\n  def __init__(self): None + 1\n", "TypeError: unsupported operand"),
        ("class D(TaskDistribution):\n  name, horizon, parameters = 'D', 5, Base.parameters\n", "does not define make"),
        ("class D(Base): horizon = 5.0\n", "horizon must be an integer, a number of steps, got 5.0"),
        ("class D(Base): horizon = -3\n", "horizon must be at least 1, got -3"),
        ("class D(Base): parameters = ()\n", "needs at least one parameter"),
        ("class D(Base): parameters = Base.parameters[0]\n", "a comma is missing behind 'g'"),
        ("class D(Base): parameters = Base.parameters * 2\n", "parameter names must differ"),
        ("class D(Base): version = '1'\n", "`version` must be an integer, got '1'"),
        ("D = 5\n", "robot:D is int, not a TaskDistribution"),
        ("def D(): return None\n", "robot:D gave NoneType, not a TaskDistribution"),
        ("class D(Base):\n  @property\n  def horizon(self): return 1 // 0\n", "ZeroDivisionError"),
    ],
)
def test_what_does_not_load_is_one_paragraph(folder: Path, code: str, says: str) -> None:
    """On import, in the constructor, in what is stated."""
    (folder / "robot.py").write_text(HEAD + code)
    assert says in refusal("robot:D")


@pytest.mark.parametrize("attribute", ["name", "horizon", "parameters"])
def test_an_attribute_that_is_missing_is_named(folder: Path, attribute: str) -> None:
    """The class states all but one."""
    stated = {"name": "'D'", "horizon": "5", "parameters": "Base.parameters"}
    body = "".join(f"  {key} = {value}\n" for key, value in stated.items() if key != attribute)
    code = f"class D(TaskDistribution):\n{body}  def make(self, task): ...\n"
    (folder / "robot.py").write_text(HEAD + code)
    assert f"D has no `{attribute}`: set it to" in refusal("robot:D")


@pytest.mark.parametrize("name", ["./robot:D", ".robot:D", ":D", "robot.py:D", "robot:"])
def test_names_that_python_cannot_import_are_refused_with_what_is_allowed(folder: Path, name: str) -> None:
    """Paths, leading dots, nothing before the colon."""
    (folder / "robot.py").write_text(HEAD)
    assert "allowed is module:attr" in refusal(name)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("PointGoal", "horizon=20.5"), "PointGoal: horizon must be an integer, a number of steps, got 20.5"),
        (("HalfCheetahVel", "horizon=true"), "horizon must be an integer"),
        (("HalfCheetahVel", "horison=5"), "no option horison; there are: protocol, horizon, backend, unstable"),
        (("PointGaol",), "did you mean 'PointGoal'"),
    ],
)
def test_options_of_the_built_in_families_are_looked_at_too(arguments: tuple[str, ...], says: str) -> None:
    """A horizon of half a step, a misspelt option, a misspelt name."""
    assert says in refusal(*arguments)


def test_a_failed_check_ends_with_exit_code_2(folder: Path) -> None:
    """So that scripts can ask."""
    (folder / "robot.py").write_text(HEAD + "class D(Base):\n  def make(self, task): pass\n")
    result = CliRunner().invoke(app, ["tasks", "check", "robot:D"])
    assert result.exit_code == 2
    assert "`make` returned NoneType (is `return` missing?)" in result.output


def test_a_renderer_that_mujoco_cannot_take_is_named_with_what_to_install() -> None:
    """MuJoCo itself cannot be imported then."""
    words = [sys.executable, "-m", "metarl", "tasks", "show", "HalfCheetahDir"]
    environment = {**os.environ, "MUJOCO_GL": "nonsense"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert "MUJOCO_GL = 'nonsense' names a renderer: install it" in done.stderr
    assert "set MUJOCO_GL to egl or osmesa" in done.stderr
