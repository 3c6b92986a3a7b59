"""The runs of a sweep: `key=a,b` lists and a number of seeds -> every combination, as validated configurations.

overrides + one value of every swept key  =  a setting;  a setting + a seed  =  a run, with a folder of its name
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metarl.config import RunConfig, load_config
from metarl.errors import ConfigError

BASE = "base"  # the name of the only setting where no key is swept
_OPENING, _CLOSING = "[{", "]}"
_LONGEST_NAME = 120  # file systems allow 255 bytes


@dataclass(frozen=True)
class Axis:
    """A swept key and its values, as YAML texts in the order given."""

    key: str
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Setting:
    """One value of every swept key. `name` is safe for file systems and unlike every other in its sweep."""

    name: str
    values: Mapping[str, Any]  # by full key, as the configuration resolved them


@dataclass(frozen=True)
class PlannedRun:
    """One setting with one seed; `name` is its folder's."""

    name: str
    setting: Setting
    seed: int
    config: RunConfig


@dataclass(frozen=True)
class Plan:
    """All runs of a sweep, seed by seed: after a quarter of them every setting has been seen."""

    settings: tuple[Setting, ...]
    seeds: tuple[int, ...]
    runs: tuple[PlannedRun, ...]

    def runs_of(self, setting: Setting) -> tuple[PlannedRun, ...]:
        return tuple(run for run in self.runs if run.setting.name == setting.name)


def plan_runs(path: Path, overrides: Sequence[str], sweeps: Sequence[str], num_seeds: int) -> Plan:
    """Every combination of the `key=a,b` lists with `num_seeds` seeds, from the configuration's seed on.

    Raises ConfigError naming key and value where a list or any combination is wrong.
    """
    axes = [parse_axis(text) for text in sweeps]
    _refuse_conflicts(axes, overrides)
    combinations = list(itertools.product(*(axis.texts for axis in axes)))
    configs = []
    for texts in combinations:
        chosen = [f"{axis.key}={text}" for axis, text in zip(axes, texts, strict=True)]
        configs.append(load_config(path, [*overrides, *chosen, "executor.backend=local"]))
    values = [{axis.key: _resolved(config, axis.key) for axis in axes} for config in configs]
    for axis, position in zip(axes, range(len(axes)), strict=True):
        _refuse_duplicates(
            axis, {texts[position]: value[axis.key] for texts, value in zip(combinations, values, strict=True)}
        )
    names = unique_names([setting_name(value) for value in values])
    settings = tuple(Setting(name, value) for name, value in zip(names, values, strict=True))
    seeds = tuple(range(configs[0].seed, configs[0].seed + num_seeds))
    runs = tuple(
        PlannedRun(f"{setting.name}-seed{seed}", setting, seed, config.model_copy(update={"seed": seed}))
        for seed in seeds
        for setting, config in zip(settings, configs, strict=True)
    )
    return Plan(settings, seeds, runs)


def parse_axis(text: str) -> Axis:
    """`algorithm.inner_lr=0.05,0.1` as an Axis; ConfigError where a key, its values or one of them is missing."""
    key, equals, values = text.partition("=")
    if not equals or not all(key.split(".")):
        raise ConfigError(f"--sweep {text!r}: expected key=a,b,c, for example algorithm.inner_lr=0.05,0.1")
    if not values.strip():
        raise ConfigError(f"--sweep {key}: the list of values is empty; expected key=a,b,c")
    texts = split_values(values)
    if "" in texts:
        raise ConfigError(f"--sweep {text!r}: value {texts.index('') + 1} of {key} is empty (null and '' are values)")
    return Axis(key, tuple(texts))


def split_values(text: str) -> list[str]:
    """The parts between commas; commas in brackets or quotes separate nothing."""
    parts, start, depth, quote = [], 0, 0, ""
    for index, char in enumerate(text):
        before = text[start:index].rstrip()[-1:]
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"" and before in ("", *"[{,:"):
            quote = char
        elif char in _OPENING:
            depth += 1
        elif char in _CLOSING:
            depth -= 1
        elif char == "," and depth <= 0:
            parts.append(text[start:index].strip())
            start = index + 1
    return [*parts, text[start:].strip()]


def setting_name(values: Mapping[str, Any]) -> str:
    """`inner_lr=0.1,hidden_sizes=64x64`: each key by its shortest ending that no other swept key has."""
    if not values:
        return BASE
    keys = short_keys(list(values))
    name = ",".join(f"{keys[key]}={value_name(value)}" for key, value in values.items())
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{name[: _LONGEST_NAME - 9]}~{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def short_keys(keys: Sequence[str]) -> dict[str, str]:
    """Full key -> its shortest dotted ending that is no other key's ending."""
    short = {}
    for key in keys:
        parts = key.split(".")
        endings = [".".join(parts[-n:]) for n in range(1, len(parts) + 1)]
        others = [f".{other}" for other in keys if other != key]
        short[key] = next((e for e in endings if not any(o.endswith(f".{e}") for o in others)), key)
    return short


def value_name(value: Any) -> str:
    """A value in letters that every file system takes: 0.1, 1e-05, trpo, 64x64, null."""
    if isinstance(value, bool) or value is None:
        text = json.dumps(value)
    elif isinstance(value, float):
        text = repr(value).removesuffix(".0")
    elif isinstance(value, list) and value and not any(isinstance(item, list | dict) for item in value):
        text = "x".join(value_name(item) for item in value)
    else:
        text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    return re.sub(r"[^\w.+-]+", "_", text, flags=re.ASCII) or "_"


def unique_names(names: Sequence[str]) -> list[str]:
    """The names, numbered where they differ in nothing but upper and lower case."""
    taken: set[str] = set()
    unique = []
    for name in names:
        candidates = itertools.chain([name], (f"{name}~{n}" for n in itertools.count(2)))
        found = next(candidate for candidate in candidates if candidate.casefold() not in taken)
        taken.add(found.casefold())
        unique.append(found)
    return unique


def _refuse_conflicts(axes: Sequence[Axis], overrides: Sequence[str]) -> None:
    """Keys that cannot be swept, or that are given twice."""
    keys = [axis.key for axis in axes]
    for key in keys:
        if key == "seed":
            raise ConfigError("--sweep seed: seeds are no setting to compare; use --seeds N, which counts from seed=")
        if key.split(".")[0] in ("executor", "device"):
            raise ConfigError(f"--sweep {key}: says where a run is computed, never what comes of it; set it as {key}=")
    given = [*keys, *(text.partition("=")[0] for text in overrides)]
    for first, second in itertools.combinations(given, 2):
        if first in keys and (first == second or first.startswith(f"{second}.") or second.startswith(f"{first}.")):
            raise ConfigError(f"--sweep {first} and {second} set the same key: give each key once")


def _refuse_duplicates(axis: Axis, resolved: Mapping[str, Any]) -> None:
    seen: dict[str, str] = {}
    for text in axis.texts:
        value = json.dumps(resolved[text], sort_keys=True)
        if value in seen:
            raise ConfigError(f"--sweep {axis.key}: {seen[value]} and {text} are the same value; give each once")
        seen[value] = text


def _resolved(config: RunConfig, key: str) -> Any:
    """The value of a dotted key, as plain JSON."""
    value: Any = config.model_dump(mode="json")
    for part in key.split("."):
        value = value[int(part)] if isinstance(value, list) else value[part]
    return value
