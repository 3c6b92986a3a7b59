"""The runs of a sweep: `key=a,b` arguments and a number of seeds -> every combination, as validated configurations.

overrides + one value of every swept key = a setting;  a setting + a seed = a run, in a directory of its name
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metarl.config import RunConfig, load_config
from metarl.errors import ConfigError


@dataclass(frozen=True)
class Setting:
    """One value of every swept key, by full key. `runs`: directory's name -> configuration, in the seeds' order."""

    name: str
    values: Mapping[str, Any]
    runs: Mapping[str, RunConfig]


def plan_settings(path: Path, arguments: Sequence[str], num_seeds: int) -> list[Setting]:
    """Every combination of the swept values, each with `num_seeds` seeds from the configuration's seed on.

    `arguments` are `key=a,b` (swept) and `key=value` (overrides). ConfigError names key and value of what is wrong.
    """
    axes, overrides = parse_arguments(arguments)
    combinations = [dict(zip(axes, texts, strict=True)) for texts in itertools.product(*axes.values())]
    configs, values = [], []
    text_of: dict[tuple[str, str], str] = {}
    for texts in combinations:
        chosen = [f"{key}={text}" for key, text in texts.items()]
        config = load_config(path, [*overrides, *chosen, "executor.backend=local"])
        for key, value in _nodes(config.model_dump()):
            if isinstance(value, float) and not math.isfinite(value):
                raise ConfigError(f"{key} = {value}: not finite; a sweep takes finite numbers only")
        nodes = dict(_nodes(config.model_dump(mode="json")))
        for key, text in texts.items():
            former = text_of.setdefault((key, json.dumps(nodes[key], sort_keys=True)), text)
            if former != text:
                raise ConfigError(f"{key}: {former} and {text} are the same value; give each once")
        configs.append(config)
        values.append({key: nodes[key] for key in axes})
    first = configs[0].seed
    if first + num_seeds > 2**63:
        raise ConfigError(f"seed = {first} with --seeds {num_seeds}: seeds must stay below 2**63 = {2**63}")
    settings = []
    for name, value, config in zip(setting_names(values), values, configs, strict=True):
        seeds = range(first, first + num_seeds)
        runs = {f"{name}-seed{seed}": config.model_copy(update={"seed": seed}) for seed in seeds}
        settings.append(Setting(name, value, runs))
    return settings


def all_runs(settings: Sequence[Setting]) -> dict[str, RunConfig]:
    """Seed by seed: every setting is seen before the second seed begins."""
    return dict(run for runs in zip(*(setting.runs.items() for setting in settings), strict=True) for run in runs)


def parse_arguments(arguments: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """(swept key -> its values as YAML texts, overrides). ConfigError where a key cannot be swept or is given twice."""
    given = [(text, text.partition("=")[0], split_values(text.partition("=")[2])) for text in arguments]
    axes = [(text, key, values) for text, key, values in given if len(values) > 1]
    for text, key, values in axes:
        if "" in values:
            raise ConfigError(f"{text!r}: value {values.index('') + 1} of {key} is empty (null and '' are values)")
        if key == "seed":
            raise ConfigError(f"{text!r}: seeds are no setting to compare; use --seeds N, which counts from seed=")
        if key.split(".")[0] in ("executor", "device"):
            raise ConfigError(f"{text!r}: {key} says where a run is computed, not what comes of it; give one value")
        same = [k for _, k, _ in given if f"{k}.".startswith(f"{key}.") or f"{key}.".startswith(f"{k}.")]
        if len(same) > 1:
            raise ConfigError(f"{' and '.join(same)} set the same key; give each key once")
    return {key: values for _, key, values in axes}, [text for text, _, values in given if len(values) == 1]


def split_values(text: str) -> list[str]:
    """The parts between commas; commas in brackets or quotes separate nothing."""
    parts, start, depth, quote = [], 0, 0, ""
    for index, char in enumerate(text):
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"" and text[start:index].rstrip()[-1:] in ("", *"[{,:"):
            quote = char
        elif char == "," and depth <= 0:
            parts.append(text[start:index].strip())
            start = index + 1
        else:
            depth += (char in "[{") - (char in "]}")
    return [*parts, text[start:].strip()]


def setting_names(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """`inner_lr=0.1,hidden=64x64`, unique and safe for file systems: keys by their last part where no other ends so;
    numbered where letter case alone would tell two names apart; at most 120 characters."""
    last = Counter(key.rpartition(".")[2] for key in settings[0])
    taken: Counter[str] = Counter()
    names = []
    for values in settings:
        short = {key: key.rpartition(".")[2] for key in values}
        parts = [f"{short[k] if last[short[k]] == 1 else k}={value_name(value)}" for k, value in values.items()]
        name = ",".join(parts) or "base"
        if len(name) > 120:
            name = f"{name[:111]}~{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        taken[name.casefold()] += 1
        names.append(name if taken[name.casefold()] == 1 else f"{name}~{taken[name.casefold()]}")
    return names


def value_name(value: Any) -> str:
    """A value in characters that every file system takes: 0.1, 1e-05, trpo, 64x64, null."""
    if isinstance(value, list) and value and not any(isinstance(item, list | dict) for item in value):
        return "x".join(map(value_name, value))
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    return re.sub(r"[^\w.+-]+", "_", text.removesuffix(".0") if isinstance(value, float) else text, flags=re.A) or "_"


def _nodes(data: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every section, list, item and value."""
    items = data.items() if isinstance(data, Mapping) else enumerate(data) if isinstance(data, list | tuple) else ()
    yield key, data
    for name, value in items:
        yield from _nodes(value, f"{key}.{name}" if key else str(name))
