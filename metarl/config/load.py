"""Finding, reading, validating and writing configurations.

Nothing is interpolated: a configuration is plain data, and what a run directory's `config.yaml` holds is all there is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from metarl.algorithms.base import AlgorithmPlugin, Section
from metarl.algorithms.registry import available_algorithms, load_algorithm, resolve_preset
from metarl.config import scalars
from metarl.config.messages import choices_of, explain, shortened
from metarl.config.migrate import migrate
from metarl.config.overrides import refuse_interpolation, set_keys
from metarl.config.schema import STORED, RunConfig, TaskDistributionConfig
from metarl.errors import ConfigError, did_you_mean

RESUME_MAY_CHANGE = ("training.iterations", "training.env_steps_limit", "training.time_limit_minutes", "executor")


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
        f"no configuration file {path}, and none of that name comes with metarl; {hint}`metarl config list` shows all"
    )


# --- loading -----------------------------------------------------------------------------------------


def load_config(name_or_path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The configuration with `key.sub=value` overrides; ConfigError naming key, value and what is allowed."""
    path = config_path(name_or_path)
    data = set_keys(_read(path), overrides)
    return _validate(data, str(path), {text.partition("=")[0] for text in overrides})


def load_task_distribution(path: Path, overrides: Sequence[str] = ()) -> TaskDistributionConfig:
    """The section `task_distribution` of a YAML file, whatever else the file holds; overrides are those of a run.

    ConfigError naming key, value and what is allowed where the section is missing or wrong.
    """
    data = set_keys(_read(path), overrides)
    if "task_distribution" not in data:
        raise ConfigError(f"{path}: task_distribution is missing; it has no default")
    try:
        return TaskDistributionConfig.model_validate(data["task_distribution"])
    except ValidationError as error:
        problems = [explain(e, TaskDistributionConfig, ("task_distribution",))[1] for e in error.errors()]
        raise ConfigError("\n".join(f"{path}: {problem}" for problem in problems)) from error


def load_stored_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The configuration that a run directory holds; one that an earlier version wrote is migrated.

    Such a run may have been watched on test tasks: `evaluation.split` is then `test`, which nothing else can set.
    """
    if not path.is_file():
        raise ConfigError(f"no configuration file {path}")
    data = set_keys(migrate(_read(path)), overrides)
    return _validate(data, str(path), {text.partition("=")[0] for text in overrides}, STORED)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = scalars.parse(path.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: invalid YAML: {error}") from error
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    if content is None:
        content = {}
    if not isinstance(content, dict):
        kind = "list" if isinstance(content, list) else f"single value {shortened(content)}"
        raise ConfigError(f"{path}: expected sections ({', '.join(RunConfig.model_fields)}), got a {kind}")
    refuse_interpolation(content, str(path))
    return content


# --- validating --------------------------------------------------------------------------------------


def _validate(
    data: dict[str, Any], path: str, overridden: set[str], context: dict[str, Any] | None = None
) -> RunConfig:
    """All mistakes of the run's sections and of the algorithm's are reported together."""
    problems: list[str] = []

    def collect(error: ValidationError, model: type[BaseModel], prefix: tuple[str, ...]) -> None:
        for details in error.errors():
            key, what = explain(details, model, prefix)
            is_override = any(o == key or o.startswith(f"{key}.") or key.startswith(f"{o}.") for o in overridden)
            line = f"{'override' if is_override else path}: {what}"
            if line not in problems:
                problems.append(line)

    values = dict(data)
    if "algorithm" in values:
        try:
            section = _algorithm_section(values["algorithm"], collect)
        except ConfigError as error:
            place = "override" if overridden & {"algorithm", "algorithm.name"} else path
            problems.append(f"{place}: {error}")
            section = None
        values["algorithm"] = section or Section()  # so that the other sections are looked at too
    try:
        config = RunConfig.model_validate(values, context=context)
    except ValidationError as error:
        collect(error, RunConfig, ())
    if problems:
        raise ConfigError("\n".join(problems))
    return config


_Collect = Callable[[ValidationError, type[BaseModel], tuple[str, ...]], None]


def _algorithm_section(section: Any, collect: _Collect) -> BaseModel | None:
    """The algorithm's validated section, or None after `collect` was told what is wrong in it.

    ConfigError where it is no section or names no algorithm.
    """
    if not isinstance(section, dict):
        name = section if isinstance(section, str) and section in available_algorithms() else "maml"
        raise ConfigError(
            f"algorithm = {shortened(section)}: must be a section, such as algorithm: {{name: {name}, num_streams: 20}}"
        )
    chosen = section.get("name")
    if not isinstance(chosen, str):
        raise ConfigError(
            f"algorithm.name = {shortened(chosen)}: must be the name of an algorithm; "
            f"known: {', '.join(available_algorithms())}; or name your own as module:attr"
        )
    try:
        resolved = resolve_preset(section)
        plugin = load_algorithm(resolved["name"])
    except ConfigError as error:
        raise ConfigError(f"algorithm.name = {chosen!r}: {error}") from error
    assert isinstance(plugin, AlgorithmPlugin)
    try:
        return plugin.config.model_validate(_with_default_choices(resolved, plugin.config))
    except ValidationError as error:
        collect(error, plugin.config, ("algorithm",))
        return None


def _with_default_choices(section: dict[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """The section where `outer: {lr: 0.1}`, without a name, is that of the default outer step."""
    named = dict(section)
    for key, field in model.model_fields.items():
        value, default = section.get(key), field.get_default(call_default_factory=False)
        if isinstance(value, dict) and "name" not in value and choices_of(field.annotation):
            named[key] = {"name": getattr(default, "name", None), **value} if default is not None else value
    return named


def chosen_names(name_or_path: str | Path, overrides: Sequence[str], config: RunConfig) -> tuple[str, str, list[str]]:
    """The algorithm or preset asked for, the algorithm that it stands for, and `outer ppo` of every choice in it."""
    asked_for = set_keys(_read(config_path(name_or_path)), overrides)["algorithm"]["name"]
    sections = [(key, getattr(config.algorithm, key)) for key in type(config.algorithm).model_fields]
    names = {key: getattr(value, "name", None) for key, value in sections if isinstance(value, BaseModel)}
    choices = [f"{key} {name}" for key, name in names.items() if name is not None]
    return str(asked_for), str(dict(sections)["name"]), choices


# --- writing and comparing ---------------------------------------------------------------------------


def to_yaml(config: RunConfig) -> str:
    """The resolved configuration; loading it gives an equal one."""
    return scalars.dump(config.model_dump(mode="python"))


def differences(old: RunConfig, new: RunConfig) -> list[str]:
    """Lines `key: old -> new` for keys that differ, but for those that resuming may change."""
    changed = _changed(old, new)
    fixed = [key for key in changed if not any(key == free or key.startswith(f"{free}.") for free in RESUME_MAY_CHANGE)]
    return [f"{key}: {changed[key][0]} -> {changed[key][1]}" for key in fixed]


def changes(old: RunConfig, new: RunConfig) -> list[str]:
    """`key=value` of every key that differs in `new`, but for where units run."""
    return [f"{key}={value}" for key, (_, value) in _changed(old, new).items() if not key.startswith("executor.")]


def _changed(old: RunConfig, new: RunConfig) -> dict[str, tuple[Any, Any]]:
    """The old and the new value of every key that differs."""
    a, b = (dict(_flat(scalars.parse(to_yaml(config)))) for config in (old, new))
    keys = [key for key in dict.fromkeys([*a, *b]) if repr(a.get(key)) != repr(b.get(key))]
    return {key: (a.get(key, "not set"), b.get(key, "not set")) for key in keys}


def _flat(data: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every value that is no section; an empty section is a value."""
    if isinstance(data, Mapping) and data:
        for key, value in data.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, data
