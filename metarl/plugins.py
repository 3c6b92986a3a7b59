"""Plug-ins: code of the user's own, found by entry point or as `module:attr`, and where in it an error was raised.

Whatever an import raises becomes one MetarlError that names the file and the line in the user's code.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, reduce
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import FunctionType, ModuleType

from metarl.errors import ConfigError, EnvironmentFault, MetarlError, did_you_mean

_log = logging.getLogger(__name__)
_PLATFORM = Path(__file__).resolve().parent
_PATHS = sysconfig.get_paths()
_STANDARD_LIBRARY = tuple(Path(_PATHS[key]).resolve() for key in ("stdlib", "platstdlib"))
RENDERER_PACKAGES = "Debian and Ubuntu: libegl1 with libgl1-mesa-dri, or libosmesa6"
INSTALLED = ("site-packages", "dist-packages")  # the folders of installed packages


def available(group: str) -> dict[str, str]:
    """The names registered in an entry-point group and the `module:attr` of each, by name. Imports none of them."""
    return {entry.name: entry.value for entry in sorted(_entries(group), key=lambda entry: entry.name)}


def _entries(group: str) -> tuple[EntryPoint, ...]:
    return _entries_on(group, tuple(sys.path))


@cache
def _entries_on(group: str, search_path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """Read once for a search path: it takes some 50 ms, and a configuration asks several times."""
    return tuple(entry_points(group=group))


def load_target(group: str, name: str, kind: str, error: type[MetarlError] = ConfigError) -> object:
    """What is registered as `name` in `group`, or the attribute that `module:attr` names.

    `kind` ("task distribution") is what messages call it. Importing code that is not registered is announced by a
    log warning. Raises `error` where there is no such name, where two packages register it differently, where
    `module:attr` is not written as such, and where the import raises anything at all.
    """
    registered = available(group)
    targets = sorted({entry.value for entry in _entries(group) if entry.name == name})
    if len(targets) > 1:
        raise error(f"{kind} {name!r} is registered by several packages: {', '.join(targets)}; name one as module:attr")
    if not targets and ":" not in name:
        raise error(_unknown(name, kind, registered))
    target = targets[0] if targets else name
    if not targets:
        _require_target(target, kind, error)
        _log.warning("importing %s code from %s", kind, target)
    return _import(target, kind, error)


@contextmanager
def plugin_errors(doing: str, error: type[MetarlError] = ConfigError) -> Iterator[None]:
    """What the user's code raises inside (SystemExit too) comes as `error`: `doing` failed, with file and line.

    Errors of this platform and Ctrl-C pass unchanged.
    """
    try:
        yield
    except (MetarlError, EnvironmentFault):
        raise
    except (Exception, SystemExit) as raised:
        raise error(f"{doing} raised {describe(raised)}") from raised


def describe(error: BaseException) -> str:
    """`error` in one line: its type, its message, and the file and line in the user's code where there is one."""
    try:
        lines = error.msg if isinstance(error, SyntaxError) else str(error)
        if isinstance(error, KeyError) and len(error.args) == 1 and " " in str(error.args[0]):
            lines = str(error.args[0])  # a sentence, which KeyError would put in quotes
    except Exception:
        lines = "(its message cannot be shown)"
    message = " ".join(str(lines).split())
    text = f"{type(error).__name__}: {message}" if message else type(error).__name__
    frame = user_frame(error)
    return f"{text} ({_shown(frame[0])}, line {frame[1]})" if frame else text


def user_frame(error: BaseException) -> tuple[str, int] | None:
    """File and line of the deepest frame of `error` in the user's code; None where no frame is the user's.

    The user's code is what belongs neither to this platform nor to Python nor to an installed package. Where only an
    installed package is involved (a plug-in that was installed), it is that package's outermost frame.
    """
    if isinstance(error, SyntaxError) and error.lineno and _is_file(error.filename):
        assert error.filename is not None
        return error.filename, error.lineno
    frames = [(frame.filename, frame.lineno or 0) for frame in traceback.extract_tb(error.__traceback__)]
    frames = [frame for frame in frames if _is_file(frame[0]) and not _is_python_or_platform(frame[0])]
    own = [frame for frame in frames if not any(part in INSTALLED for part in Path(frame[0]).parts)]
    return own[-1] if own else frames[0] if frames else None


def _unknown(name: str, kind: str, registered: dict[str, str]) -> str:
    known = ", ".join(registered) or "none installed"
    return f"unknown {kind} {name!r}; {did_you_mean(name, registered)}known: {known}; or name your own as module:attr"


def _require_target(target: str, kind: str, error: type[MetarlError]) -> None:
    """`module:attr`, both dotted names as in Python's import; a path's nearest such name is suggested."""
    module, _, attribute = target.partition(":")
    if _is_dotted(module) and _is_dotted(attribute) and not module.endswith(".py"):
        return
    meant = module.removesuffix(".py").replace("\\", "/").strip("./").replace("/", ".")
    hint = f"; did you mean {meant}:{attribute if _is_dotted(attribute) else 'NAME'}?" if _is_dotted(meant) else ""
    raise error(
        f"{kind} {target!r}: allowed is module:attr, a module that Python imports from the current directory or from "
        f"an installed package (no path, no leading dot) and a name in it{hint}"
    )


def _is_dotted(name: str) -> bool:
    return all(part.isidentifier() for part in name.split("."))


def _import(target: str, kind: str, error: type[MetarlError]) -> object:
    module_name, _, attribute = target.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # last: a robot.py here must not hide the package robot that others import
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as missing:
        if missing.name is None or not f"{module_name}.".startswith(f"{missing.name}."):
            raise error(f"cannot import {module_name!r} of {target!r}: {describe(missing)}") from missing
        raise error(
            f"cannot import {module_name!r} of {target!r}: there is no module {missing.name!r} in {os.getcwd()} nor "
            "among the installed packages"
        ) from missing
    except (Exception, SystemExit) as raised:
        hint = _renderer_hint(raised)
        raise error(f"cannot import {module_name!r} of {target!r}: {describe(raised)}{hint}") from raised
    with plugin_errors(f"{kind} {target!r}: looking up {attribute!r}", error):
        try:
            found: object = reduce(getattr, attribute.split("."), module)
        except AttributeError as missing_name:
            names = _public_names(module)
            hint, there = did_you_mean(attribute, names), ", ".join(names) or "nothing public"
            raise error(
                f"{module_name!r} has no {attribute!r}; {hint}it defines {there}{_hidden_here(module)}"
            ) from missing_name
    return found


def _hidden_here(module: ModuleType) -> str:
    """What to do where an installed module has hidden a file of the same name in the current directory."""
    file = f"{module.__name__.replace('.', '/')}.py"
    found = getattr(module, "__file__", None)
    if found is None or not Path(file).is_file() or Path(file).resolve() == Path(found).resolve():
        return ""
    return f". {file} in {os.getcwd()} is hidden by {found}: rename it"


def _public_names(module: ModuleType) -> list[str]:
    """The classes and functions that the module itself defines."""
    defined = {n: v for n, v in vars(module).items() if isinstance(v, (type, FunctionType)) and not n.startswith("_")}
    return [name for name, value in defined.items() if value.__module__ == module.__name__]


def _renderer_hint(error: BaseException) -> str:
    """What to do where MuJoCo cannot be imported, because the renderer that MUJOCO_GL names is not installed."""
    backend = os.environ.get("MUJOCO_GL")
    files = [Path(frame.filename).parts for frame in traceback.extract_tb(error.__traceback__)]
    if not backend or not any("mujoco" in parts or "OpenGL" in parts for parts in files):
        return ""
    return (
        f". MUJOCO_GL = {backend!r} names a renderer: install it ({RENDERER_PACKAGES}), or set MUJOCO_GL to egl or "
        "osmesa, whichever is there"
    )


def _is_file(filename: str | None) -> bool:
    return bool(filename) and not str(filename).startswith("<")


def _is_python_or_platform(filename: str) -> bool:
    path = Path(filename).resolve()
    if _PLATFORM in path.parents:
        return True
    is_installed = any(part in INSTALLED for part in path.parts)
    return not is_installed and any(folder in path.parents for folder in _STANDARD_LIBRARY)


def _shown(filename: str) -> str:
    """The path from the current directory where the file lies in it, else in full."""
    path, here = Path(filename).resolve(), Path.cwd().resolve()
    return str(path.relative_to(here)) if here in path.parents else str(path)
