"""Code of the user's own: found by name, and its errors told with the file and line in it."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from metarl.errors import ConfigError, TaskError
from metarl.plugins import available, describe, load_target, plugin_errors, user_frame

GROUP = "metarl.task_distributions"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current directory, out of which modules are imported; nothing of it stays imported."""
    monkeypatch.chdir(tmp_path)
    before, path = set(sys.modules), list(sys.path)
    importlib.invalidate_caches()
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def load(target: str) -> object:
    return load_target(GROUP, target, "gadget")


def refusal(target: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(target)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_entry_points_are_listed_by_name_with_their_targets() -> None:
    names = available(GROUP)
    assert names["PointGoal"] == "metarl_envs.point:PointGoal"
    assert list(names) == sorted(names)
    assert available("metarl.no_such_group") == {}


def test_a_module_and_attribute_are_imported_from_the_current_directory_and_announced(folder, caplog) -> None:
    (folder / "mine_a.py").write_text("class Outer:\n    inner = 5\n")
    with caplog.at_level(logging.WARNING, "metarl"):
        assert load("mine_a:Outer.inner") == 5
    assert "importing gadget code from mine_a:Outer.inner" in caplog.text


def test_a_registered_name_is_not_announced(caplog) -> None:
    assert load("PointGoal").__name__ == "PointGoal"  # type: ignore[attr-defined]
    assert not caplog.text


@pytest.mark.parametrize(("name", "meant"), [("PointGaol", "PointGoal"), ("antdir2d", "AntDir2D")])
def test_an_unknown_name_is_refused_with_the_nearest_ones(name: str, meant: str) -> None:
    assert f"unknown gadget {name!r}; did you mean {meant!r}" in refusal(name)


@pytest.mark.parametrize(
    ("target", "meant"),
    [
        ("./boom:Ids", "boom:Ids"),
        (".boom:X", "boom:X"),
        ("robots/arm.py:Arm", "robots.arm:Arm"),
        ("boom.py:X", "boom:X"),
        (":X", None),
        ("boom:", "boom:NAME"),
        ("a b:X", None),
        ("boom:X()", "boom:NAME"),
    ],
)
def test_what_is_no_module_and_attribute_is_refused_with_what_is_allowed(target: str, meant: str | None) -> None:
    message = refusal(target)
    assert f"gadget {target!r}: allowed is module:attr" in message
    assert ("did you mean" in message) == (meant is not None)
    assert meant is None or f"did you mean {meant}?" in message


@pytest.mark.parametrize(
    ("code", "line", "says"),
    [
        ("x = 1\nclass D\n", 2, "SyntaxError: expected ':'"),
        ("import os\nopen('robot.xml')\n", 2, "FileNotFoundError"),
        ("raise SystemExit(3)\n", 1, "SystemExit: 3"),
        ("\n\nraise ValueError('first\\nsecond')\n", 3, "ValueError: first second"),
        ("import no_such_package_here\n", 1, "No module named 'no_such_package_here'"),
        ("class E(Exception):\n  def __str__(self): raise OSError\nraise E\n", 3, "E: (its message cannot be shown)"),
        ("import json\njson.loads('{')\n", 2, "JSONDecodeError"),
    ],
)
def test_whatever_an_import_raises_names_file_and_line(folder: Path, code: str, line: int, says: str) -> None:
    (folder / "broken_b.py").write_text(code)
    message = refusal("broken_b:D")
    assert "cannot import 'broken_b' of 'broken_b:D': " in message
    assert says in message
    assert f"(broken_b.py, line {line})" in message


def test_a_module_that_does_not_exist_is_told_with_the_folder_that_was_searched(folder: Path) -> None:
    assert f"there is no module 'nowhere_c' in {folder}" in refusal("nowhere_c:D")


def test_a_file_here_hides_no_installed_package_and_is_told_when_it_is_hidden(folder: Path) -> None:
    (folder / "safetensors.py").write_text("raise RuntimeError('imported instead of the package')\nclass Arm: pass\n")
    (folder / "mine_e.py").write_text("import safetensors\nclass Arm: pass\n")
    for name in [name for name in sys.modules if name.partition(".")[0] == "safetensors"]:
        del sys.modules[name]
    load("mine_e:Arm")
    assert f"safetensors.py in {folder} is hidden by" in refusal("safetensors:Arm")


def test_a_missing_attribute_is_refused_with_the_public_names_of_the_module(folder: Path) -> None:
    code = "from pathlib import Path\nclass Arm: pass\nclass _Base: pass\ndef reward(state): pass\n"
    (folder / "mine_d.py").write_text(code)
    assert refusal("mine_d:Armm").endswith("'mine_d' has no 'Armm'; did you mean 'Arm'? it defines Arm, reward")
    assert refusal("mine_d:Wheel").endswith("it defines Arm, reward")


def test_ctrl_c_during_an_import_stays_ctrl_c(folder: Path) -> None:
    (folder / "slow_e.py").write_text("raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        load("slow_e:D")


def test_the_deepest_frame_of_the_user_is_found_below_library_frames(folder: Path) -> None:
    (folder / "deep_f.py").write_text("import json\ndef read(text):\n    return json.loads(text)\n")
    read = load("deep_f:read")
    with pytest.raises(ValueError, match="Expecting") as caught:
        read("[")  # type: ignore[operator]
    assert user_frame(caught.value) == (str(folder / "deep_f.py"), 3)
    assert describe(caught.value).endswith("(deep_f.py, line 3)")


def test_an_error_without_the_users_code_has_no_frame() -> None:
    assert user_frame(ValueError("never raised")) is None
    assert describe(ValueError("never raised")) == "ValueError: never raised"


def test_what_is_raised_inside_becomes_the_error_asked_for_and_our_own_pass() -> None:
    message = r"building it raised ZeroDivisionError: division by zero \(.*test_plugins.py"
    with pytest.raises(TaskError, match=message), plugin_errors("building it", TaskError):
        _ = 1 / 0
    with pytest.raises(ConfigError, match=r"^as it was$"), plugin_errors("building it", TaskError):
        raise ConfigError("as it was")


def test_two_packages_that_register_one_name_differently_are_refused(folder: Path, monkeypatch) -> None:
    for package in ("one_g", "two_g"):
        info = folder / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[metarl.gadgets]\nArm = {package}:Arm\n")
    monkeypatch.syspath_prepend(str(folder))
    with pytest.raises(ConfigError, match="'Arm' is registered by several packages: one_g:Arm, two_g:Arm"):
        load_target("metarl.gadgets", "Arm", "gadget")
