"""A run's configuration: YAML and dotted overrides -> validated frozen objects.

OmegaConf merges, pydantic validates. Nothing is interpolated: a configuration is plain data, and what a
run directory's `config.yaml` holds is all there is. Each algorithm's section stands beside the algorithm.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml  # type: ignore[import-untyped]
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, ValidationError
from pydantic_core import ErrorDetails

from metarl.algorithms import ALGORITHMS, config_class
from metarl.errors import ConfigError

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]

RESUME_MAY_CHANGE = ("training.iterations", "training.time_limit_minutes", "executor")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TaskDistributionConfig(_Section):
    """Which tasks: a registered name or `module:attr`, and keyword arguments for it."""

    name: str
    options: dict[str, Any] = {}
    reveal_task: bool = False  # the oracle baseline: the task's parameters are appended to the observation


class TrainingConfig(_Section):
    """How long, and what is written on the way. `evaluate_every: 0` never evaluates."""

    iterations: Count
    checkpoint_every: Count = 25
    evaluate_every: Annotated[int, Field(ge=0)] = 50
    keep_checkpoints: Count = 3
    time_limit_minutes: Positive | None = None  # training wall time, added up over resumes
    overlap: bool = False  # collect while learning, with weights one update old (off-policy algorithms)
    tasks_per_unit: Count = 5  # part of the result: not derived from the number of workers


class EvaluationConfig(_Section):
    """The evaluations during training, on held-out tasks."""

    num_tasks: Count = 20
    split: Literal["test", "ood"] = "test"


class ExecutorConfig(_Section):
    """Where units run. Never part of the result. `num_workers: null` takes one per processor."""

    backend: Literal["ray", "local"] = "ray"
    num_workers: Count | None = None
    unit_deadline_s: Positive = 120.0


class RunConfig(_Section):
    """Everything a run is made of. `algorithm` is an instance of `config_class(algorithm.name)`."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    task_distribution: TaskDistributionConfig
    algorithm: SerializeAsAny[BaseModel]
    training: TrainingConfig
    evaluation: EvaluationConfig = EvaluationConfig()
    executor: ExecutorConfig = ExecutorConfig()
    device: Literal["auto", "cpu", "cuda"] = "auto"


def load_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The configuration in `path` with `key.sub=value` overrides; ConfigError naming key, value and what is allowed."""
    try:
        merged = OmegaConf.merge(_read(path), *(_override(text) for text in overrides))
        data = OmegaConf.to_container(merged, resolve=False)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{path}: {_first_line(error)}") from error
    assert isinstance(data, dict)
    overridden = {text.partition("=")[0] for text in overrides}
    return _validate(data, path, overridden)


def to_yaml(config: RunConfig) -> str:
    """The resolved configuration; `load_config` of it gives an equal one."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def differences(old: RunConfig, new: RunConfig) -> list[str]:
    """Lines `key: old -> new` for keys that differ, but for those that resuming may change."""
    a, b = dict(_flat(old.model_dump(mode="json"))), dict(_flat(new.model_dump(mode="json")))
    keys = [key for key in dict.fromkeys([*a, *b]) if a.get(key) != b.get(key)]
    fixed = [key for key in keys if not any(key == free or key.startswith(f"{free}.") for free in RESUME_MAY_CHANGE)]
    return [f"{key}: {a.get(key, 'not set')} -> {b.get(key, 'not set')}" for key in fixed]


def _read(path: Path) -> DictConfig:
    if not path.is_file():
        raise ConfigError(f"no configuration file {path}")
    try:
        content = OmegaConf.load(path)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: invalid YAML: {error}") from error
    except OSError as error:
        raise ConfigError(f"{path}: {error}") from error
    except OmegaConfBaseException as error:
        raise _no_interpolation(str(path), _first_line(error)) from error
    if not isinstance(content, DictConfig):
        raise ConfigError(f"{path}: expected sections ({', '.join(RunConfig.model_fields)}), got a list")
    _refuse_interpolation(OmegaConf.to_container(content, resolve=False), str(path))
    return content


def _override(text: str) -> DictConfig:
    key, equals, _ = text.partition("=")
    if not equals or not all(key.split(".")):
        raise ConfigError(f"override {text!r}: expected key.sub=value, for example training.iterations=100")
    try:
        parsed = OmegaConf.from_dotlist([text])
    except yaml.YAMLError as error:
        raise ConfigError(f"override {text!r}: invalid YAML value: {error}") from error
    except OmegaConfBaseException as error:
        raise _no_interpolation(f"override {text!r}", _first_line(error)) from error
    _refuse_interpolation(OmegaConf.to_container(parsed, resolve=False), f"override {text!r}")
    return parsed


def _refuse_interpolation(data: Any, where: str) -> None:
    for key, value in _flat(data):
        if isinstance(value, str) and ("${" in value or value == "???"):
            raise _no_interpolation(where, f"{key} = {value!r}")
        if "${" in key:
            raise _no_interpolation(where, f"key {key!r}")


def _no_interpolation(where: str, what: str) -> ConfigError:
    return ConfigError(f"{where}: {what}: values are taken literally, interpolation (${{...}}, ???) is not allowed")


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


def _validate(data: dict[Any, Any], path: Path, overridden: set[str]) -> RunConfig:
    """Both layers' mistakes are reported together: the run's schema and the algorithm's own."""
    section = data.get("algorithm")
    problems: list[str] = []
    algorithm_class: type[BaseModel] | None = None
    if isinstance(section, dict):
        name = section.get("name")
        algorithm_class = _class_of(name)
        if algorithm_class is None:
            hint = _did_you_mean(name, ALGORITHMS)
            problems.append(f"{path}: algorithm.name = {name!r}: unknown;{hint} known: {', '.join(ALGORITHMS)}")
    values = dict(data)
    if algorithm_class is not None:
        try:
            values["algorithm"] = algorithm_class.model_validate(section)
        except ValidationError as error:
            values["algorithm"] = algorithm_class.model_construct()
            problems += [_explain(e, algorithm_class, ("algorithm",), path, overridden) for e in error.errors()]
    elif problems:
        values["algorithm"] = _Section()
    try:
        config = RunConfig.model_validate(values)
    except ValidationError as error:
        problems += [_explain(e, RunConfig, (), path, overridden) for e in error.errors()]
    if problems:
        raise ConfigError("\n".join(problems))
    return config


def _class_of(name: Any) -> type[BaseModel] | None:
    try:
        return config_class(name) if isinstance(name, str) else None
    except KeyError:
        return None


def _explain(
    error: ErrorDetails, model: type[BaseModel], prefix: tuple[str, ...], path: Path, overridden: set[str]
) -> str:
    """One line: where, the full key, the value, what is allowed."""
    key = ".".join(map(str, (*prefix, *error["loc"])))
    from_override = any(o == key or o.startswith(f"{key}.") or key.startswith(f"{o}.") for o in overridden)
    where = "override" if from_override else str(path)
    if error["type"] == "missing":
        return f"{where}: {key} is missing; it has no default"
    if error["type"] == "extra_forbidden":
        valid = _keys_beside(model, error["loc"])
        hint = _did_you_mean(error["loc"][-1], valid)
        return f"{where}: {key} = {error['input']!r}: unknown key;{hint} valid keys here: {', '.join(valid)}"
    message = error["msg"][:1].lower() + error["msg"][1:]
    return f"{where}: {key} = {error['input']!r}: {message}"


def _keys_beside(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """The keys allowed in the section that holds `loc`."""
    for part in loc[:-1]:
        field = model.model_fields.get(str(part))
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            return []
        model = field.annotation
    return list(model.model_fields)


def _did_you_mean(word: Any, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(str(word), known, n=1)
    return f" did you mean {close[0]!r}?" if close else ""


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
