"""Workers whose Python holds another version of a package than the learner's."""

from __future__ import annotations

import importlib
import importlib.metadata
import zipfile
from pathlib import Path

import gymnasium
import pytest

from metarl.distributed import RayExecutor
from metarl.tasks import Task
from tests.distributed.comparison import WEIGHTS, assert_same, reference
from tests.toy import Point, PointEnv, make_units, point_policy

pytestmark = pytest.mark.slow

PACKAGE, VERSION = "pathspec", "99.0"  # one that mypy brings along


class Conflicting(Point):
    """The toy distribution, on a version of a package that is not the learner's."""

    spaces = PointEnv.observation_space, PointEnv.action_space

    def __init__(self, wheel: Path):
        super().__init__()
        self.requirements = (f"{PACKAGE} @ {wheel.as_uri()}",)

    def make(self, task: Task) -> gymnasium.Env:
        installed = importlib.import_module(PACKAGE)
        assert importlib.metadata.version(PACKAGE) == installed.VERSION == VERSION
        return super().make(task)


def build_wheel(folder: Path) -> Path:
    wheel = folder / f"{PACKAGE}-{VERSION}-py3-none-any.whl"
    info = f"{PACKAGE}-{VERSION}.dist-info"
    files = {
        f"{PACKAGE}.py": f"VERSION = {VERSION!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: {VERSION}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return wheel


@pytest.mark.usefixtures("cluster", "alone")
def test_environments_run_on_a_version_that_the_learner_has_not(tmp_path: Path) -> None:
    assert importlib.metadata.version(PACKAGE) != VERSION
    family = Conflicting(build_wheel(tmp_path))
    with RayExecutor(family, point_policy(), num_workers=1) as executor:
        assert_same(executor.collect(make_units(family, 2), WEIGHTS, 0), reference(2))
    assert importlib.metadata.version(PACKAGE) != VERSION
