"""Finding, reading, overriding, validating and writing configurations.

OmegaConf sets dotted keys, pydantic validates. Nothing is interpolated: a configuration is plain data, and what a
run directory's `config.yaml` holds is all there is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError

from metarl.algorithms.base import AlgorithmPlugin, Section
from metarl.algorithms.registry import available_algorithms, load_algorithm, resolve_preset
from metarl.config import scalars
from metarl.config.messages import did_you_mean, explain
from metarl.config.migrate import migrate
from metarl.config.schema import RunConfig
from metarl.errors import ConfigError

RESUME_MAY_CHANGE = ("training.iterations", "training.time_limit_minutes", "executor")


# --- finding -----------------------------------------------------------------------------------------


def available_configs() -> dict[str, Path]:
    """The configurations that come with the package, by name."""
    installed = Path(str(files("metarl"))) / "experiments"
    folder = installed if installed.is_dir() else Path(__file__).parents[2] / "experiments"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def config_path(name_or_path: str | Path) -> Path:
    """The file of a configuration given by its path or by the name of one that comes with the package.

    ConfigError naming the nearest ones where it is neither.
    """
    path = Path(name_or_path)
    if path.is_file():
        return path
    known = available_configs()
    if str(name_or_path) in known:
        return known[str(name_or_path)]
    if path.is_dir():
        raise ConfigError(f"no configuration file {path}: it is a folder")
    hint = did_you_mean(path.stem, known)
    raise ConfigError(
        f"no configuration file {path}, and no configuration of that name;{hint} known names: {', '.join(known)}"
    )


# --- loading -----------------------------------------------------------------------------------------


def load_config(name_or_path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The configuration with `key.sub=value` overrides; ConfigError naming key, value and what is allowed."""
    path = config_path(name_or_path)
    data = set_keys(_read(path), overrides)
    return _validate(data, str(path), {text.partition("=")[0] for text in overrides})


def load_stored_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The configuration that a run directory holds; one that an earlier version wrote is migrated."""
    if not path.is_file():
        raise ConfigError(f"no configuration file {path}")
    data = set_keys(migrate(_read(path)), overrides)
    return _validate(data, str(path), {text.partition("=")[0] for text in overrides})


def set_keys(data: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """`data` with every `key.sub=value` set; a value that is a section replaces the one there."""
    settings = OmegaConf.create(dict(data))
    for text in overrides:
        key, value = _override(text)
        try:
            OmegaConf.update(settings, key, value, merge=False, force_add=True)
        except (OmegaConfBaseException, ValueError, TypeError, IndexError) as error:
            raise ConfigError(f"override {text!r}: {key} cannot be set here: {str(error).splitlines()[0]}") from error
    result = OmegaConf.to_container(settings, resolve=False)
    assert isinstance(result, dict)
    return {str(key): value for key, value in result.items()}


def _read(path: Path) -> dict[str, Any]:
    try:
        content = scalars.parse(path.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        raise ConfigError(f"{path}: invalid YAML: {error}") from error
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    if content is None:
        content = {}
    if not isinstance(content, dict):
        kind = "list" if isinstance(content, list) else f"single value {content!r}"
        raise ConfigError(f"{path}: expected sections ({', '.join(RunConfig.model_fields)}), got a {kind}")
    _refuse_interpolation(content, str(path))
    return content


def _override(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not all(key.split(".")):
        raise ConfigError(f"override {text!r}: expected key.sub=value, for example training.iterations=100")
    if any(character in key for character in "[]{}$ "):
        raise ConfigError(f"override {text!r}: expected key.sub=value with plain words and dots as the key")
    try:
        parsed = scalars.parse(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"override {text!r}: invalid YAML value: {error}") from error
    _refuse_interpolation({key: parsed}, f"override {text!r}")
    return key, parsed


def _refuse_interpolation(data: Any, where: str) -> None:
    for key, value in _flat(data):
        if isinstance(value, str) and ("${" in value or value == "???"):
            raise _no_interpolation(where, f"{key} = {value!r}")
        if "${" in key:
            raise _no_interpolation(where, f"key {key!r}")


def _no_interpolation(where: str, what: str) -> ConfigError:
    return ConfigError(f"{where}: {what}: values are taken literally, interpolation (${{...}}, ???) is not allowed")


# --- validating --------------------------------------------------------------------------------------


def _validate(data: dict[str, Any], path: str, overridden: set[str]) -> RunConfig:
    """All mistakes of the run's sections and of the algorithm's are reported together."""
    problems: list[str] = []

    def collect(error: ValidationError, model: type[BaseModel], prefix: tuple[str, ...]) -> None:
        for details in error.errors():
            key = ".".join(map(str, (*prefix, *details["loc"])))
            is_override = any(o == key or o.startswith(f"{key}.") or key.startswith(f"{o}.") for o in overridden)
            line = explain(details, model, prefix, "override" if is_override else path)
            if line not in problems:
                problems.append(line)

    values = dict(data)
    if "algorithm" in values:
        values["algorithm"] = _algorithm_section(values["algorithm"], path, problems, collect)
    try:
        config = RunConfig.model_validate(values)
    except ValidationError as error:
        collect(error, RunConfig, ())
    if problems:
        raise ConfigError("\n".join(problems))
    return config


def _algorithm_section(section: Any, path: str, problems: list[str], collect: Any) -> BaseModel:
    """The algorithm's validated section; an empty one, and lines in `problems`, where it is wrong."""
    nothing = Section()
    if not isinstance(section, dict):
        problems.append(f"{path}: algorithm = {section!r}: must be a section, such as {{name: maml, num_streams: 20}}")
        return nothing
    if not isinstance(section.get("name"), str):
        problems.append(
            f"{path}: algorithm.name = {section.get('name')!r}: must be the name of an algorithm; "
            f"known: {', '.join(available_algorithms())}; or name your own as module:attr"
        )
        return nothing
    try:
        resolved = resolve_preset(section)
        plugin = load_algorithm(resolved["name"])
    except ConfigError as error:
        problems.append(f"{path}: algorithm.name = {section['name']!r}: {error}")
        return nothing
    assert isinstance(plugin, AlgorithmPlugin)
    try:
        return plugin.config.model_validate(resolved)
    except ValidationError as error:
        collect(error, plugin.config, ("algorithm",))
        return nothing


# --- writing and comparing ---------------------------------------------------------------------------


def to_yaml(config: RunConfig) -> str:
    """The resolved configuration; loading it gives an equal one."""
    return scalars.dump(config.model_dump(mode="python"))


def differences(old: RunConfig, new: RunConfig) -> list[str]:
    """Lines `key: old -> new` for keys that differ, but for those that resuming may change."""
    a, b = dict(_flat(scalars.parse(to_yaml(old)))), dict(_flat(scalars.parse(to_yaml(new))))
    keys = [key for key in dict.fromkeys([*a, *b]) if repr(a.get(key)) != repr(b.get(key))]
    fixed = [key for key in keys if not any(key == free or key.startswith(f"{free}.") for free in RESUME_MAY_CHANGE)]
    return [f"{key}: {a.get(key, 'not set')} -> {b.get(key, 'not set')}" for key in fixed]


def _flat(data: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every leaf. A list is a leaf for `differences`, so its items come with it."""
    if isinstance(data, Mapping) and data:
        for key, value in data.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, data
        if isinstance(data, list):
            for index, item in enumerate(data):
                if isinstance(item, (Mapping, list, str)):
                    yield from _flat(item, f"{prefix}.{index}")
