"""The wheel holds both packages and the configurations, which are found by name from it."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.run_contents import EXPERIMENTS


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "-w", str(folder), str(EXPERIMENTS.parent)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if "No matching distribution found for hatchling" in done.stderr:
        pytest.skip("the build backend cannot be had here")
    assert done.returncode == 0, done.stderr
    (found,) = folder.glob("*.whl")
    return found


@pytest.mark.slow
def test_the_wheel_holds_the_configurations_and_no_results(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    configs = {f"metarl/experiments/{path.name}" for path in EXPERIMENTS.glob("*.yaml")}
    assert {name for name in names if "experiments" in name} == configs
    assert {"metarl/cli/app.py", "metarl_envs/point.py", "metarl_envs/assets/quadruped.xml"} <= set(names)
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"metarl", "metarl_envs"}


@pytest.mark.slow
def test_configurations_are_found_by_name_from_the_wheel(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    script = (
        "from metarl.config import config_path, load_config\n"
        "print(config_path('quickstart'), load_config('quickstart').algorithm.name)"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    path, name = done.stdout.split()
    assert Path(path) == tmp_path / "site" / "metarl" / "experiments" / "quickstart.yaml"
    assert name == "maml"
