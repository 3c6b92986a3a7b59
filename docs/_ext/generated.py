"""Pages written from the code before the site is built: every public module, every key of the configuration."""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parents[1]
FOLDER = HERE / "reference" / "generated"
FLOORS = {
    "agent": "Agents",
    "export": "Export",
    "tasks": "Tasks",
    "rollout": "Rollouts",
    "algorithms": "Algorithms",
    "evaluation": "Evaluation",
    "report": "Reports",
    "runs": "Runs",
    "training": "Training",
    "distributed": "Ray",
    "config": "Configuration in Python",
    "nets": "Networks",
    "ops": "Equations",
    "kernels": "Kernels",
}


def setup(app: Any) -> dict[str, bool]:
    app.connect("config-inited", lambda app, config: write())
    return {"parallel_read_safe": True}


def write() -> None:
    """Write the pages whose content has changed."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    pages = {f"{name}.md": floor_page(name, title) for name, title in FLOORS.items() if modules_of(name)}
    pages["errors.md"] = _page("Errors", ["metarl.errors", "metarl.plugins"])
    pages["families.md"] = _page("Built-in families", list(modules_below("metarl_envs")))
    pages["configuration.md"] = configuration_page()
    for name, content in pages.items():
        path = FOLDER / name
        if not path.is_file() or path.read_text(encoding="utf-8") != content:
            path.write_text(content, encoding="utf-8")
    for path in FOLDER.glob("*.md"):
        if path.name not in pages:
            path.unlink()


def modules_of(floor: str) -> list[str]:
    """The public modules of a floor of metarl; none where there is no such floor."""
    try:
        return list(modules_below(f"metarl.{floor}"))
    except ModuleNotFoundError:
        return []


def modules_below(name: str) -> Iterator[str]:
    """A module and all public ones below it."""
    package = importlib.import_module(name)
    yield name
    for found in pkgutil.iter_modules(getattr(package, "__path__", [])):
        if not found.name.startswith("_"):
            yield from modules_below(f"{name}.{found.name}")


def floor_page(floor: str, title: str) -> str:
    """The reference of one floor."""
    return _page(title, modules_of(floor))


def _page(title: str, modules: list[str]) -> str:
    parts = [f"# {title}\n"]
    for module in modules:
        parts.append(f"## {module}\n\n```{{eval-rst}}\n.. automodule:: {module}\n```\n")
    return "\n".join(parts)


# --- the configuration -------------------------------------------------------------------------------


def configuration_page() -> str:
    """Every key, from the JSON schema: its default, what is allowed, what it means."""
    from metarl.config import json_schema

    schema = json_schema()
    definitions = schema["$defs"]
    parts = [
        "# Configuration\n",
        "Every key of a configuration, written from its schema. `metarl config show NAME` prints a configuration with "
        "the meaning of its keys, `metarl config schema` the JSON schema.\n",
        _table("The run", schema, definitions),
    ]
    keys = {_section_of(value): key for key, value in schema["properties"].items() if _section_of(value)}
    listed = [name for name in definitions if "." not in name and definitions[name].get("properties")]
    for name in listed:
        title = f"`{keys[name]}`" if name in keys else f"`algorithm`: {name}"
        parts.append(_table(title, definitions[name], definitions))
        parts += [
            _table(inner, definitions[inner], definitions) for inner in definitions if inner.startswith(f"{name}.")
        ]
    return "\n".join(part for part in parts if part)


def _section_of(value: dict[str, Any]) -> str:
    """The section that a key holds; empty where it holds none, or one of several."""
    return str(value.get("$ref", "")).rpartition("/")[2]


def _default(value: dict[str, Any], is_required: bool) -> str:
    """As a configuration would write it."""
    if is_required or "default" not in value:
        return "required"
    if isinstance(value["default"], dict):
        return "its own defaults"
    return f"`{_text(json.dumps(value['default']))}`"


def _table(title: str, section: dict[str, Any], definitions: dict[str, Any]) -> str:
    properties = section.get("properties", {})
    if not properties:
        return ""
    rows = ["| key | default | allowed | meaning |", "|---|---|---|---|"]
    required = section.get("required", [])
    for key, value in properties.items():
        cells = (
            f"`{key}`",
            _default(value, key in required),
            _allowed(value, definitions),
            _text(value.get("description", "")),
        )
        rows.append(f"| {' | '.join(cells)} |")
    return f"## {title}\n\n" + "\n".join(rows) + "\n"


def _allowed(value: dict[str, Any], definitions: dict[str, Any]) -> str:
    """What a value may be, in a few words."""
    if "$ref" in value:
        name = _text(value["$ref"].rpartition("/")[2])
        return "a section, below" if name.endswith("Config") else f"section {name}"
    if "const" in value:
        return f"`{value['const']}`"
    if "enum" in value:
        return ", ".join(f"`{one}`" for one in value["enum"])
    for several in ("anyOf", "oneOf"):
        if several in value:
            return " or ".join(dict.fromkeys(_allowed(one, definitions) for one in value[several]))
    kind = {"null": "null", "object": "keys and values", "array": "a list", "boolean": "true or false"}.get(
        value.get("type", ""), value.get("type", "any")
    )
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = ", ".join(f"{sign} {value[key]}" for key, sign in bounds.items() if key in value)
    return f"{kind} {limits}".strip()


def _text(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
