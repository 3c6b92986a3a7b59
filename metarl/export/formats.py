"""Graphs to ONNX files and torch programs.

onnx and onnxruntime come with the extra `export`; nothing here imports them before they are needed.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from metarl.algorithms.graphs import Graph
from metarl.errors import ExportError
from metarl.export.runner import METADATA, Format

OPSET = 20


def require_packages(form: Format) -> None:
    """ExportError where what the format needs is not installed."""
    if form == "torch":
        return
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ExportError(
            f"the format onnx needs {error.name}, which is not installed: pip install metarl[export]"
        ) from error


def write_graph(graph: Graph, path: Path, form: Format, metadata: str) -> None:
    """Write a graph; `metadata` goes into the file."""
    graph.module.eval()
    examples = tuple(port.example() for port in graph.inputs)
    dynamic = tuple(
        {i: torch.export.Dim.DYNAMIC for i, size in enumerate(port.shape) if isinstance(size, str)}
        for port in graph.inputs
    )
    shapes = (dynamic,) if any(dynamic) else None  # in one: modules here take all inputs as *state
    with _quiet(), torch.no_grad():
        program = torch.export.export(graph.module, examples, dynamic_shapes=shapes, strict=False)
        if form == "torch":
            torch.export.save(program, path, extra_files={METADATA: metadata})
            return
        exported = torch.onnx.export(
            program,
            input_names=[port.name for port in graph.inputs],
            output_names=[port.name for port in graph.outputs],
            opset_version=OPSET,
            dynamo=True,
            optimize=False,  # its rewriting of two clips of one value leaves an input that does not exist
            verbose=False,
        )
        assert exported is not None
        from onnxscript.optimizer import fold_constants, remove_unused_nodes

        fold_constants(exported.model)
        remove_unused_nodes(exported.model)
    exported.model.metadata_props[METADATA] = metadata
    exported.save(path, external_data=False)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' remarks on torch itself, which no user can do anything about."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
