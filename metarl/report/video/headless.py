"""Which OpenGL draws MuJoCo's pictures where there is no screen."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from metarl.errors import ConfigError, EnvironmentFault
from metarl.plugins import RENDERER_PACKAGES

_BACKENDS = ("egl", "osmesa")  # a GPU's or Mesa's; Mesa's in memory
_PROBE = (
    "import mujoco; r = mujoco.Renderer(mujoco.MjModel.from_xml_string('<mujoco><worldbody/></mujoco>'), 8, 8); "
    "r.render(); r.close()"
)


def works(backend: str) -> bool:
    """Whether MuJoCo renders with `MUJOCO_GL=backend`, tried in another process: a failure may end the process."""
    environment = {**os.environ, "MUJOCO_GL": backend}
    try:
        tried = subprocess.run([sys.executable, "-c", _PROBE], env=environment, capture_output=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return tried.returncode == 0


def choose_opengl(is_working: Callable[[str], bool] = works) -> str | None:
    """Set MUJOCO_GL to the first backend that works where neither it nor a screen is there; what it is then.

    To be called before anything imports mujoco. ConfigError, with what to install, where no backend works.
    """
    chosen = os.environ.get("MUJOCO_GL")
    if chosen or os.environ.get("DISPLAY") or sys.platform != "linux":
        return chosen
    for backend in _BACKENDS:
        if is_working(backend):
            os.environ["MUJOCO_GL"] = backend
            return backend
    raise ConfigError(
        "MuJoCo cannot render here: there is no screen (DISPLAY is not set), and neither EGL nor OSMesa works. Install "
        f"one of them ({RENDERER_PACKAGES}), or set MUJOCO_GL"
    )


@contextmanager
def opengl(choose: Callable[[], str | None] = choose_opengl) -> Iterator[None]:
    """MuJoCo draws inside, without a screen too. To be entered before anything imports mujoco.

    Environments that draw by other means need no OpenGL: where none works, only an EnvironmentFault of rendering
    becomes the ConfigError that says what to install.
    """
    missing = None
    try:
        choose()
    except ConfigError as error:
        missing = error
    try:
        yield
    except EnvironmentFault as fault:
        if missing is not None and "render" in str(fault):
            raise missing from fault
        raise
