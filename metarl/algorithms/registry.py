"""Finding algorithms: by entry point (group `metarl.algorithms`) or by `module:attr`; built-in ones as any other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import BaseModel

from metarl import plugins
from metarl.algorithms.base import Algorithm, AlgorithmPlugin, Preset
from metarl.errors import ConfigError
from metarl.rollout.spaces import Spaces

GROUP = "metarl.algorithms"
_MAX_PRESETS = 8  # a preset may name another preset, but not itself


def available_algorithms() -> dict[str, str]:
    """Registered algorithms and presets and the `module:attr` each stands for, sorted by name. Imports none of them."""
    return plugins.available(GROUP)


def load_algorithm(name: str) -> AlgorithmPlugin | Preset:
    """The algorithm or preset registered as `name`, or found at `module:attr`.

    ConfigError where there is none, where importing it fails, or where it is neither a `Preset` nor a class with a
    `Config`.
    """
    found = plugins.load_target(GROUP, name, "algorithm", ConfigError)
    if isinstance(found, Preset):
        return found
    config = getattr(found, "Config", None)
    if not (callable(found) and isinstance(config, type) and issubclass(config, BaseModel)):
        raise ConfigError(
            f"algorithm.name = {name!r}: {type(found).__name__} is no algorithm: it needs an attribute `Config` "
            "(an AlgorithmConfig) and to be callable as (config, spaces, device, seed)"
        )
    if "name" not in config.model_fields:
        raise ConfigError(f"algorithm.name = {name!r}: its Config has no field `name`: derive it from AlgorithmConfig")
    return AlgorithmPlugin(config, found)


def resolve_preset(section: Mapping[str, Any]) -> dict[str, Any]:
    """An algorithm's section with presets replaced by what they stand for; the section's own keys come first.

    A nested section that names another choice (`outer: {name: trpo}`) replaces the preset's.
    """
    resolved = dict(section)
    for _ in range(_MAX_PRESETS):
        name = resolved.get("name")
        found = load_algorithm(name) if isinstance(name, str) else None
        if not isinstance(found, Preset):
            return resolved
        own = {key: value for key, value in resolved.items() if key != "name"}
        _require_what_the_name_says(str(name), found, own)
        resolved = {"name": found.algorithm, **_merged(found.values, own)}
    raise ConfigError(f"algorithm.name = {section['name']!r}: its presets name each other in a circle")


def build_algorithm(config: Any, spaces: Spaces, device: torch.device, seed: int) -> Algorithm:
    """The freshly initialised learner that `config`, a resolved section of the configuration, describes."""
    plugin = load_algorithm(config.name)
    assert isinstance(plugin, AlgorithmPlugin)
    return plugin.build(config, spaces, device, seed)


def _require_what_the_name_says(name: str, preset: Preset, own: Mapping[str, Any]) -> None:
    for key in preset.defining:
        wanted, given = (_at(section, key) for section in (preset.values, own))
        if given is not None and given != wanted:
            raise ConfigError(
                f"algorithm.{key} = {given!r} contradicts algorithm.name = {name!r}, which means {wanted!r} there; "
                f"leave it out, or name {preset.algorithm!r} instead"
            )


def _at(section: Any, key: str) -> Any:
    for part in key.split("."):
        section = section.get(part) if isinstance(section, Mapping) else None
    return section


def _merged(defaults: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(defaults)
    for key, value in own.items():
        default = defaults.get(key)
        if isinstance(value, Mapping) and isinstance(default, Mapping):
            is_same_choice = value.get("name", default.get("name")) == default.get("name")
            merged[key] = {**default, **value} if is_same_choice else value
        else:
            merged[key] = value
    return merged
