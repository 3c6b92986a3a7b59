"""Graphs to ONNX files and torch programs, and functions that run what was written.

onnx and onnxruntime come with the extra `export`; nothing here imports them before they are needed.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from metarl.algorithms.graphs import Graph
from metarl.errors import ExportError

Format = Literal["onnx", "torch"]
Call = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]
SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "torch": ".pt2"}
OPSET = 20
METADATA = "metarl"


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
        {i: _dim(size) for i, size in enumerate(port.shape) if isinstance(size, str)} for port in graph.inputs
    )
    with _quiet(), torch.no_grad():
        program = torch.export.export(
            graph.module, examples, dynamic_shapes=_of_signature(graph, dynamic), strict=False
        )
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


def open_graph(path: Path, num_threads: int = 1) -> Call:
    """A function from inputs to outputs by name, of a file that `write_graph` wrote."""
    if path.suffix == SUFFIXES["onnx"]:
        return _open_onnx(path, num_threads)
    return _open_program(path)


def _open_onnx(path: Path, num_threads: int) -> Call:
    require_packages("onnx")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = num_threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    wanted = {value.name for value in session.get_inputs()}

    def call(given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        values = session.run(names, {name: value for name, value in given.items() if name in wanted})
        return dict(zip(names, values, strict=True))

    return call


def _open_program(path: Path) -> Call:
    extra = {METADATA: ""}
    with _quiet():
        module = torch.export.load(path, extra_files=extra).module()
    names = _ports_in(extra[METADATA], path.stem)

    def call(given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        with torch.no_grad():
            values = module(*(torch.from_numpy(np.ascontiguousarray(given[name])) for name in names[0]))
        return {name: value.numpy() for name, value in zip(names[1], values, strict=True)}

    return call


def _ports_in(metadata: str, graph: str) -> tuple[list[str], list[str]]:
    """The names of inputs and outputs that a description gives of a graph, `policy` or `adapt`."""
    import json

    ports = json.loads(metadata)["graphs"][graph]
    return [port["name"] for port in ports["inputs"]], [port["name"] for port in ports["outputs"]]


def _dim(size: str) -> Any:
    return torch.export.Dim.DYNAMIC


def _of_signature(graph: Graph, dynamic: tuple[dict[int, Any], ...]) -> Any:
    """Dynamic shapes as torch.export wants them: modules here take all inputs as positional ones, partly as *state."""
    if not any(dynamic):
        return None
    return (dynamic,)


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
