"""Makes metarl and what it needs importable without a network, from wheels alone. Standard library only."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_TESTS_NEED = ("beartype", "hypothesis", "pytest")
_BUILD_NEEDS = ("hatchling", "editables")
_NOT_NEEDED = ("ray", "torch")  # runs here use the local executor; PyTorch belongs to the machine


def requirements() -> list[str]:
    """What the checks need besides metarl, from pyproject.toml, such as `gymnasium[mujoco]>=1.1`."""
    import tomllib  # Python 3.11 on

    dependencies: list[str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    return [*(r for r in dependencies if name_of(r) not in _NOT_NEEDED), *_TESTS_NEED]


def name_of(requirement: str) -> str:
    """`gymnasium` of `gymnasium[mujoco]>=1.1`."""
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0]


def is_missing(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return True
    return False


def ensure(wheels: Path | None) -> None:
    """Install what is missing from the folder `wheels`, then start this command anew; nothing where all is there.

    SystemExit (2) naming what is missing where there is no folder, or where it does not hold what is needed.
    """
    missing = [requirement for requirement in requirements() if is_missing(name_of(requirement))]
    lacks_metarl = is_missing("metarl")
    if not (missing or lacks_metarl):
        return
    names = ", ".join([name_of(requirement) for requirement in missing] + ["metarl"] * lacks_metarl)
    if wheels is None:
        sys.exit(_refusal(f"not installed: {names}; give a folder of wheels: --wheels DIR"))
    if "GPU_CHECK_INSTALLED" in os.environ:
        sys.exit(_refusal(f"--wheels {wheels}: installed, and still missing: {names}"))
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--find-links", str(wheels)]
    optional = ["mjbatch"] if is_missing("mjbatch") and list(wheels.glob("mjbatch-*.whl")) else []
    build = [name for name in _BUILD_NEEDS if is_missing(name)] if lacks_metarl else []
    commands = [[*pip, *missing, *optional, *build]] if missing or optional or build else []
    if lacks_metarl:  # without its dependencies: Ray need not be there
        commands.append([*pip, "--no-deps", "--no-build-isolation", "-e", str(ROOT)])
    for command in commands:
        if subprocess.run(command).returncode:
            sys.exit(_refusal(f"--wheels {wheels}: pip cannot install {names} from it"))
    os.environ["GPU_CHECK_INSTALLED"] = "1"
    os.execv(sys.executable, [sys.executable, *sys.argv])


def _refusal(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2
