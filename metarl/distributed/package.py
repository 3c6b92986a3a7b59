"""What a job takes along: the current directory as a zip file, and where its modules are found in it.

Left out: what `.gitignore` and `.rayignore` name, hidden files and folders (`.git`, `.venv`, `.ray` with its token),
`runs/`, caches. Registered names of task distributions are sent with it, so that they mean the same on nodes
where nothing is installed. Equal content gives equal bytes: Ray sends a package that it has already only once.
"""

from __future__ import annotations

import logging
import sys
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ray._private.ray_constants import DASHBOARD_CLIENT_MAX_SIZE  # of a request, and so of a package
from ray._private.runtime_env.packaging import _dir_travel, _get_excludes

from metarl.errors import ConfigError
from metarl.tasks.registry import GROUP, available_distributions

LEFT_OUT = ("/runs/", ".?*", "__pycache__/", "*.egg-info/", "venv/")
_OLDEST = (1980, 1, 1, 0, 0, 0)  # the same time for every member
_MIB = 1024**2
_NUM_NAMED = 5
_silent = logging.Logger("silent")  # Ray names every ignore file it reads
_silent.disabled = True


@dataclass(frozen=True)
class Package:
    """A zip file to send. `import_roots`: folders in it, besides its root, that Python looks for modules in."""

    path: Path
    names: frozenset[str]
    import_roots: tuple[str, ...]

    @property
    def has_metarl(self) -> bool:
        """Whether this library itself travels; otherwise it must be installed on the cluster's nodes."""
        return "metarl/errors.py" in self.names


def build_package(directory: Path, target: Path, keep_out: Sequence[Path] = ()) -> Package:
    """The zip file `target` of `directory` without what is left out and `keep_out`.

    Raises ConfigError where it is larger than Ray takes.
    """
    files = files_to_send(directory, keep_out)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, path in files.items():
            _add(archive, name, path.read_bytes())
            if target.stat().st_size > DASHBOARD_CLIENT_MAX_SIZE:
                raise _too_large(directory, files)
        package = Package(target, frozenset(files), _import_roots(directory, files))
        for name, text in _metadata(package).items():
            _add(archive, name, text.encode())
    if target.stat().st_size >= DASHBOARD_CLIENT_MAX_SIZE:
        raise _too_large(directory, files)
    return package


def files_to_send(directory: Path, keep_out: Sequence[Path] = ()) -> dict[str, Path]:
    """Name in the package -> file, sorted by name."""
    root = directory.resolve()
    never = {path.resolve() for path in keep_out}
    found: dict[str, Path] = {}

    def note(path: Path) -> None:
        if path.is_file() and path.resolve() not in never:
            found[path.relative_to(root).as_posix()] = path

    try:
        _dir_travel(root, [_get_excludes(root, list(LEFT_OUT))], note, include_gitignore=True, logger=_silent)
    except OSError as error:
        raise ConfigError(f"cannot read the directory to send: {error}") from error
    return dict(sorted(found.items()))


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    member = zipfile.ZipInfo(name, _OLDEST)
    member.external_attr = 0o644 << 16
    archive.writestr(member, content, zipfile.ZIP_DEFLATED)


def _import_roots(directory: Path, files: dict[str, Path]) -> tuple[str, ...]:
    """The folders below `directory` in which modules are found here (such as `src`), as far as they are sent."""
    root = directory.resolve()
    roots = []
    for entry in dict.fromkeys(Path(entry or ".").resolve() for entry in sys.path):
        if entry != root and entry.is_relative_to(root):
            name = entry.relative_to(root).as_posix()
            if any(file.startswith(f"{name}/") for file in files):
                roots.append(name)
    return tuple(roots)


def _metadata(package: Package) -> dict[str, str]:
    """What an installation would have written: the entry points, and the version where this library travels."""
    name, number = "metarl-task-names", "0"
    if package.has_metarl:
        with suppress(PackageNotFoundError):
            name, number = "metarl", version("metarl")
    folder = f"{name.replace('-', '_')}-{number}.dist-info"
    entries = "".join(f"{key} = {target}\n" for key, target in available_distributions().items())
    return {
        f"{folder}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n",
        f"{folder}/entry_points.txt": f"[{GROUP}]\n{entries}",
    }


def _too_large(directory: Path, files: dict[str, Path]) -> ConfigError:
    sizes = {name: path.stat().st_size / _MIB for name, path in files.items()}
    largest = sorted(sizes, key=lambda name: -sizes[name])[:_NUM_NAMED]
    named = ", ".join(f"{name} ({sizes[name]:.1f} MiB)" for name in largest)
    return ConfigError(
        f"{directory} is too large to send: {sum(sizes.values()):.1f} MiB in {len(files)} files, and Ray takes "
        f"{DASHBOARD_CLIENT_MAX_SIZE / _MIB:g} MiB when compressed. Name what the run does not need in .gitignore or "
        f".rayignore. The largest: {named}"
    )
