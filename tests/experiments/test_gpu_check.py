"""The GPU check, rehearsed on the CPU as a command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))

import gpu_check
from gpu_checks import install

ROOT = Path(__file__).parents[2]
LEARNERS = ("MAML, ppo", "MAML, trpo", "RL2", "RL2, transformer", "PEARL")
pytestmark = pytest.mark.xdist_group("rehearsal")  # one for all tests
PARTS = ("machine", "tests", "equality", "resume", "speed", "training", "memory", "synchronisations")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that a rehearsal leaves."""
    folder = tmp_path_factory.mktemp("rehearsal")
    command = [sys.executable, str(ROOT / "experiments" / "gpu_check.py"), "--rehearse", "--out", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_part_of_a_rehearsal_is_ok_and_covers_every_learner(out):
    report = json.loads((out / "gpu_check.json").read_text())
    assert report["is_rehearsal"]
    assert report["device"] == "cpu"
    assert tuple(report["parts"]) == PARTS
    for name, part in report["parts"].items():
        assert part["ok"], (name, part["failed"], part["results"])
    for name in ("equality", "resume", "speed", "memory", "synchronisations"):
        results = report["parts"][name]["results"]
        for learner in LEARNERS:
            found = [result for key, result in results.items() if key.startswith(learner)]
            assert any("skipped" not in result for result in found), (name, learner)


def test_a_rehearsal_measures_speed_and_how_training_divides_its_time(out):
    parts = json.loads((out / "gpu_check.json").read_text())["parts"]
    assert parts["speed"]["results"]["PEARL / cpu / eager"]["updates_per_s"] > 0
    for result in parts["training"]["results"].values():
        shares = [result[f"{kind}_share"] for kind in ("sample", "learn", "other")]
        assert sum(shares) == pytest.approx(1)
        assert min(shares) > 0


def test_the_checks_import_no_ray(out):
    parts = json.loads((out / "gpu_check.json").read_text())["parts"]
    assert parts["machine"]["results"]["machine"]["imports_ray"] is False


def test_the_figure_is_a_png(out):
    assert (out / "gpu_check.png").read_bytes().startswith(b"\x89PNG")


# --- what goes wrong ---------------------------------------------------------------------------------


def run_part_of(monkeypatch: pytest.MonkeyPatch, checks: list[tuple[str, object]], limit_s: float) -> dict[str, Any]:
    """Run a part that consists of `checks`; what is recorded of it."""
    from gpu_checks import parts

    monkeypatch.setitem(parts.PARTS, "part", (lambda setting: iter(checks), limit_s))
    part: dict[str, Any] = {"ok": False, "results": {}}
    gpu_check.run_part("part", True, limit_s, part, lambda: None)
    return part


def test_a_check_that_raises_is_recorded_with_its_traceback_and_the_next_one_runs(monkeypatch):
    part = run_part_of(monkeypatch, [("first", lambda: 1 / 0), ("second", lambda: {"found": 2})], 60)
    assert part["failed"] == ["first"]
    assert "ZeroDivisionError" in part["results"]["first"]["traceback"]
    assert part["results"]["second"]["found"] == 2


def test_a_part_that_takes_too_long_is_cut_off_and_keeps_what_it_found(monkeypatch):
    part = run_part_of(monkeypatch, [("quick", dict), ("slow", lambda: time.sleep(600))], 3)
    assert part["failed"] == ["cut off after 3 s"]
    assert list(part["results"]) == ["quick"]


def test_a_part_whose_process_dies_is_recorded(monkeypatch):
    part = run_part_of(monkeypatch, [("quick", dict), ("crash", lambda: os._exit(1))], 60)
    assert part["failed"] == ["its process died"]
    assert list(part["results"]) == ["quick"]


# --- packages ----------------------------------------------------------------------------------------


def test_what_is_needed_is_what_the_project_depends_on_without_ray_and_torch():
    names = {install.name_of(requirement) for requirement in install.requirements()}
    assert {"gymnasium", "numpy", "pydantic", "safetensors", "pytest", "beartype"} <= names
    assert not {"ray", "torch"} & names


def test_without_wheels_the_command_names_what_is_missing_and_ends_with_2(monkeypatch, capsys):
    monkeypatch.setattr(install, "is_missing", lambda name: name == "pydantic")
    with pytest.raises(SystemExit) as ended:
        install.ensure(None)
    assert ended.value.code == 2
    assert "not installed: pydantic; give a folder of wheels: --wheels DIR" in capsys.readouterr().err


def test_a_folder_that_lacks_a_wheel_is_told_and_ends_with_2(monkeypatch, tmp_path, capfd):
    monkeypatch.setattr(install, "requirements", lambda: ["no-such-package-of-metarl>=1"])
    with pytest.raises(SystemExit) as ended:
        install.ensure(tmp_path)
    assert ended.value.code == 2
    assert "pip cannot install no-such-package-of-metarl" in capfd.readouterr().err
