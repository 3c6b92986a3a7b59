"""Who may import whom, and how long things may get: read off the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*(ROOT / "metarl").rglob("*.py"), *(ROOT / "envs").rglob("*.py")])

# A module may import those of its own layer and of the layers before it.
LAYERS = [
    {"errors", "plugins", "ops", "kernels"},
    {"tasks", "nets"},
    {"rollout"},
    {"algorithms", "evaluation"},
    {"config"},
    {"runs"},
    {"training"},
    {"distributed", "report"},
    {"cli"},
    {"__main__"},
]


def imports(path: Path) -> Iterator[str]:
    """Every module that the file imports, at its top or inside functions; not those for type checkers alone."""
    tree = ast.parse(path.read_text())
    for_types = [n for n in ast.walk(tree) if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.unparse(n.test)]
    skipped = {id(inner) for node in for_types for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names if node.module == "metarl")


def layer_of(module: str) -> int | None:
    """The layer of `metarl.X...`; None for what is not ours."""
    parts = module.split(".")
    if parts[0] != "metarl" or len(parts) == 1:
        return None
    return next((i for i, layer in enumerate(LAYERS) if parts[1] in layer), None)


def module_name(path: Path) -> str:
    relative = path.relative_to(ROOT if "metarl_envs" not in path.parts else ROOT / "envs").with_suffix("")
    return ".".join(relative.parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_imports_point_downwards(path):
    own = layer_of(module_name(path))
    for imported in imports(path):
        level = layer_of(imported)
        if own is not None and level is not None:
            assert level <= own, f"{module_name(path)} imports {imported}"


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_ray_torch_and_the_built_in_families_stay_in_their_places(path):
    tops = {name.split(".")[0] for name in imports(path)}
    name = module_name(path)
    if not name.startswith("metarl.distributed"):
        assert "ray" not in tops
    if name.startswith(("metarl.tasks", "metarl_envs")):
        assert not {"ray", "torch"} & tops
    if name.startswith("metarl_envs"):
        ours = {imported for imported in imports(path) if imported.startswith("metarl.")}
        assert all(imported.startswith(("metarl.tasks", "metarl.errors")) for imported in ours), ours
    else:
        assert "metarl_envs" not in tops


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_files_and_functions_stay_short(path):
    text = path.read_text()
    assert len(text.splitlines()) < 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < 60, node.name
