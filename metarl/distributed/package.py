"""What a job takes along: the current directory as a zip file, and the folders in it that hold modules.

Left out: what `.gitignore` and `.rayignore` name, hidden files and folders (`.git`, `.venv`, `.ray` with its token),
`runs/`, caches. Links are followed, except those that lead back to a folder they are in. The registered names of task
distributions and algorithms are sent along, so they mean the same on nodes where nothing is installed. Equal content
gives equal bytes, and Ray uploads a package once.

Ray's own packing of a directory (`working_dir`) does not end where links form a loop, reads files of any size into
memory and fails on names that are not UTF-8. A zip file is the other form that it documents.
"""

from __future__ import annotations

import os
import shutil
import sys
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pathspec import GitIgnoreSpec

from metarl.distributed._ray_private import MAX_PACKAGE_BYTES
from metarl.errors import ConfigError
from metarl.plugins import available

LEFT_OUT = ("/runs/", ".?*", "__pycache__/", "*.egg-info/", "venv/")
GROUPS = ("metarl.task_distributions", "metarl.algorithms")  # of entry points
_IGNORE_FILES = (".gitignore", ".rayignore")
_OLDEST = (1980, 1, 1, 0, 0, 0)  # the same time for every member
_MIB = 1024**2
_NUM_NAMED = 5
_MAX_COMPRESSION = 10  # what is larger than so many packages is refused unread
_MAX_FILES = 50_000

_Spec = tuple[Path, GitIgnoreSpec]  # the folder that the patterns are relative to


@dataclass(frozen=True)
class Package:
    """A zip file to send. `import_roots`: folders in it, besides its root, that Python looks for modules in."""

    path: Path
    names: frozenset[str]
    import_roots: tuple[str, ...]

    @property
    def has_metarl(self) -> bool:
        """Whether this library itself is in it; otherwise it must be installed on the cluster's nodes."""
        return "metarl/errors.py" in self.names


def build_package(directory: Path, target: Path, keep_out: Sequence[Path] = ()) -> Package:
    """The zip file `target` of `directory` without what is left out and `keep_out`.

    Raises ConfigError where it is larger than Ray takes, or a file's name is not UTF-8.
    """
    files = files_to_send(directory, keep_out)
    if sum(path.stat().st_size for path in files.values()) > _MAX_COMPRESSION * MAX_PACKAGE_BYTES:
        raise _too_large(directory, files)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, path in files.items():
            with open(path, "rb") as source, archive.open(_member(name), "w") as member:
                shutil.copyfileobj(source, member, _MIB)
            if target.stat().st_size > MAX_PACKAGE_BYTES:
                raise _too_large(directory, files)
        package = Package(target, frozenset(files), _import_roots(directory, files))
        for name, text in _metadata(package).items():
            archive.writestr(_member(name), text)
    if target.stat().st_size >= MAX_PACKAGE_BYTES:
        raise _too_large(directory, files)
    return package


def files_to_send(directory: Path, keep_out: Sequence[Path] = ()) -> dict[str, Path]:
    """Name in the package -> file, sorted by name."""
    root = directory.resolve()
    never = {path.resolve() for path in keep_out}
    found: dict[str, Path] = {}
    try:
        for path in _walk(root, [(root, GitIgnoreSpec.from_lines(LEFT_OUT))], (root,)):
            if path.resolve() not in never:
                found[_name(path, root)] = path
            if len(found) > _MAX_FILES:
                raise ConfigError(f"{directory} holds more than {_MAX_FILES} files to send; name folders in .gitignore")
    except OSError as error:
        raise ConfigError(f"cannot read the directory to send: {error}") from error
    return dict(sorted(found.items()))


def _walk(folder: Path, specs: list[_Spec], way: tuple[Path, ...]) -> Iterator[Path]:
    """The files below `folder` that no pattern names. `way`: the real folders from the root to this one."""
    specs = [*specs, *_ignored_in(folder)]
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        path = folder / entry.name
        try:
            is_folder, is_file = entry.is_dir(), entry.is_file()
        except OSError:  # a link to itself
            continue
        if any(spec.match_file(f"{path.relative_to(base)}{'/' * is_folder}") for base, spec in specs):
            continue
        if not is_folder:
            if is_file:
                yield path
            continue
        real = path.resolve()
        if not any(passed.is_relative_to(real) for passed in way):  # a link back
            yield from _walk(path, specs, (*way, real))


def _ignored_in(folder: Path) -> Iterator[_Spec]:
    for name in _IGNORE_FILES:
        with suppress(FileNotFoundError, IsADirectoryError):
            lines = (folder / name).read_text(encoding="utf-8", errors="surrogateescape").splitlines()
            try:
                yield folder, GitIgnoreSpec.from_lines(lines)
            except ValueError as error:
                raise ConfigError(f"{folder / name}: {error}") from error


def _name(path: Path, root: Path) -> str:
    name = path.relative_to(root).as_posix()
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"the name of {os.fsencode(name)!r} is not UTF-8 and cannot be sent: rename it, or name its folder in "
            ".gitignore"
        ) from error
    return name


def _member(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name, _OLDEST)
    member.external_attr = 0o644 << 16
    member.compress_type = zipfile.ZIP_DEFLATED
    return member


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
    """What an installation would have written: the entry points, and the version where this library is sent."""
    name, number = "metarl-names", "0"
    if package.has_metarl:
        with suppress(PackageNotFoundError):
            name, number = "metarl", version("metarl")
    folder = f"{name.replace('-', '_')}-{number}.dist-info"
    entries = ""
    for group in GROUPS:
        entries += f"[{group}]\n" + "".join(f"{key} = {target}\n" for key, target in available(group).items())
    return {
        f"{folder}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n",
        f"{folder}/entry_points.txt": entries,
    }


def _too_large(directory: Path, files: dict[str, Path]) -> ConfigError:
    sizes = {name: path.stat().st_size / _MIB for name, path in files.items()}
    largest = sorted(sizes, key=lambda name: -sizes[name])[:_NUM_NAMED]
    named = ", ".join(f"{name} ({sizes[name]:.1f} MiB)" for name in largest)
    return ConfigError(
        f"{directory} is too large to send: {sum(sizes.values()):.1f} MiB in {len(files)} files, and Ray takes "
        f"{MAX_PACKAGE_BYTES / _MIB:g} MiB when compressed. Name what the run does not need in .gitignore or "
        f".rayignore. The largest: {named}"
    )
