"""An agent's state in a file: arrays as safetensors, the structure around them as JSON. Never pickle.

A policy's state may be built of dataclasses, named tuples, dicts with string keys, lists, tuples, arrays, tensors,
strings, numbers, booleans and None, as deep as it likes. Anything else is refused when it is written. Reading imports
nothing: a dataclass or named tuple of the file is one of those that the policy and a fresh state of it are made of.

Arrays keep their dtype, shape and order in memory, so that products with them round as before. Arrays that are those
of the weights are named instead of written.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from metarl.errors import AgentError
from metarl.files import naming, sync_folder
from metarl.rollout.types import Weights

FORMAT = 1
_KEY = "metarl.agent"
_PLAIN = (bool, int, float, str)
_SHORT = 48  # characters of a value that a message shows whole
_SETTING = re.compile(r"[^\s,()]+")


@dataclass(frozen=True)
class Saved:
    """What a file holds. identity: of the agent; rng: the bit generator's state; task: None before the first one."""

    identity: dict[str, Any]
    rng: dict[str, Any]
    recorder: dict[str, Any]
    task: Any


def write_saved(path: Path, saved: Saved, weights: Weights) -> None:
    """Replace `path` in one step. AgentError where something cannot be written, OSError where the disk refuses."""
    writer = _Writer(weights)
    content = {f.name: writer.encode(getattr(saved, f.name), f.name) for f in dataclasses.fields(Saved)}
    data = save(writer.arrays, metadata={_KEY: json.dumps({"format": FORMAT, **content})})
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with naming(path), open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def read_saved(path: Path, identity: Mapping[str, Any], known: Iterable[Any], weights: Weights) -> Saved:
    """The inverse of `write_saved`. `known`: objects and classes whose types the file may hold.

    AgentError where there is no such file, it is not one of these, or its agent's identity is another.
    """
    try:
        with naming(path), safe_open(str(path), framework="numpy") as file:
            metadata = (file.metadata() or {}).get(_KEY)
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
        if metadata is None:
            raise AgentError(f"{path} holds no agent's state")
        content = json.loads(metadata)
        if content["format"] != FORMAT:
            raise AgentError(f"{path} has format {content['format']!r}; this version reads {FORMAT}")
        reader = _Reader(arrays, weights, _types_of(known), str(path))
        require_same(reader.decode(content["identity"]), identity, path)
        return Saved(**{f.name: reader.decode(content[f.name]) for f in dataclasses.fields(Saved)})
    except FileNotFoundError:
        raise AgentError(f"{path}: there is no such file") from None
    except AgentError:
        raise
    except (SafetensorError, KeyError, TypeError, ValueError, IndexError, OSError) as error:
        raise AgentError(f"{path} is not an agent's state, or is damaged: {error!r}") from error


def require_same(saved: Mapping[str, Any], mine: Mapping[str, Any], path: str | Path) -> None:
    """AgentError naming what differs where a file belongs to another run, checkpoint, plan or number of robots."""
    keys = [key for key in {**saved, **mine} if saved.get(key) != mine.get(key)]
    if keys:
        differing = "; ".join(_difference(key, str(saved.get(key)), str(mine.get(key))) for key in keys)
        raise AgentError(f"{path} is the state of another agent: it has {differing}")


def _difference(key: str, saved: str, mine: str) -> str:
    """Both values of a part; of long ones the first setting that differs."""
    if max(len(saved), len(mine)) <= _SHORT:
        return f"{key} {saved}, not {mine}"
    settings = zip_longest(*(_SETTING.findall(text) for text in (saved, mine)), fillvalue="nothing")
    pair = next(((one, other) for one, other in settings if one != other), (saved, mine))
    one, other = (textwrap.shorten(text, _SHORT, placeholder=" ...") for text in pair)
    return f"another {key}, with {one}, not {other}"


# --- writing -----------------------------------------------------------------------------------------


class _Writer:
    """Structures to JSON; arrays go to `arrays` and are named there."""

    def __init__(self, weights: Weights):
        self.arrays: dict[str, np.ndarray] = {}
        self._weights, self._names = weights, {id(value): name for name, value in weights.items()}

    def encode(self, value: Any, where: str) -> Any:
        """AgentError naming the place where `value` holds something that has no form here."""
        if value is None or type(value) in _PLAIN:
            return {"float": value.hex()} if type(value) is float else value
        if value is self._weights:
            return {"weights": None}
        if isinstance(value, np.ndarray | np.generic):
            return self._array(value, where)
        if isinstance(value, torch.Tensor):
            return {"tensor": self._array(value.detach().cpu().numpy(), where)}
        if isinstance(value, dict | Mapping) and all(type(key) is str for key in value):
            return {"dict": {key: self.encode(part, f"{where}[{key!r}]") for key, part in value.items()}}
        if isinstance(value, list):
            return {"list": [self.encode(part, f"{where}[{i}]") for i, part in enumerate(value)]}
        if isinstance(value, tuple):
            parts = [self.encode(part, f"{where}[{i}]") for i, part in enumerate(value)]
            return {"tuple": parts} if type(value) is tuple else {"named": _name(type(value)), "parts": parts}
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            parts_by_name = {
                f.name: self.encode(getattr(value, f.name), f"{where}.{f.name}") for f in dataclasses.fields(value)
            }
            return {"dataclass": _name(type(value)), "fields": parts_by_name}
        raise AgentError(
            f"the state cannot be saved: {where} is of {type(value).__module__}.{type(value).__qualname__}; allowed "
            "are dataclasses, named tuples, dicts with string keys, lists, tuples, arrays, tensors and plain values"
        )

    def _array(self, value: Any, where: str) -> Any:
        if id(value) in self._names:
            return {"weight": self._names[id(value)]}
        array = np.asarray(value)
        if array.dtype.kind not in "fiub":
            raise AgentError(f"the state cannot be saved: {where} is an array of {array.dtype}; allowed are numbers")
        order = [int(axis) for axis in np.argsort([-abs(stride) for stride in array.strides], kind="stable")]
        name = str(len(self.arrays))
        self.arrays[name] = np.ascontiguousarray(array.transpose(order)).reshape([array.shape[axis] for axis in order])
        kept = {"array": name} if order == list(range(array.ndim)) else {"array": name, "order": order}
        return {"scalar": kept} if isinstance(value, np.generic) else kept


# --- reading -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Reader:
    arrays: Mapping[str, np.ndarray]
    weights: Weights
    types: Mapping[str, type]
    path: str

    def decode(self, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        kind = next(iter(value))
        content = value[kind]
        if kind == "float":
            return float.fromhex(content)
        if kind == "weights":
            return self.weights
        if kind == "weight":
            return self.weights[content]
        if kind == "array":
            return self._array(value)
        if kind == "scalar":
            return self._array(content)[()]
        if kind == "tensor":
            return torch.from_numpy(self._array(content))
        if kind == "dict":
            return {key: self.decode(part) for key, part in content.items()}
        if kind in ("list", "tuple"):
            parts = [self.decode(part) for part in content]
            return parts if kind == "list" else tuple(parts)
        if kind == "named":
            return self._type(content)(*(self.decode(part) for part in value["parts"]))
        if kind == "dataclass":
            return self._dataclass(self._type(content), value["fields"])
        raise AgentError(f"{self.path} holds {kind!r}, which this version does not know")

    def _array(self, value: Any) -> np.ndarray:
        stored = self.arrays[value["array"]]
        array = stored.copy()
        return array.transpose(np.argsort(value["order"])) if "order" in value else array

    def _type(self, name: str) -> Any:
        if name not in self.types:
            raise AgentError(f"{self.path} holds a {name}, which is no part of this agent's policy or of its state")
        return self.types[name]

    def _dataclass(self, kind: Any, stored: Mapping[str, Any]) -> Any:
        names = [f.name for f in dataclasses.fields(kind)]
        if set(names) != set(stored):
            raise AgentError(f"{self.path}: {_name(kind)} has {', '.join(stored)}, this version {', '.join(names)}")
        made = object.__new__(kind)
        for name in names:
            object.__setattr__(made, name, self.decode(stored[name]))
        return made


def _types_of(known: Iterable[Any]) -> dict[str, type]:
    """The dataclasses and named tuples among `known` and all that they hold, by name."""
    types: dict[str, type] = {}
    seen: set[int] = set()

    def visit(value: Any) -> None:
        if id(value) in seen:
            return
        seen.add(id(value))
        kind = value if isinstance(value, type) else type(value)
        if dataclasses.is_dataclass(kind) or (issubclass(kind, tuple) and kind is not tuple):
            types[_name(kind)] = kind
        if isinstance(value, type):
            return
        if isinstance(value, Mapping):
            parts: Iterable[Any] = value.values()
        elif dataclasses.is_dataclass(value):
            parts = [getattr(value, f.name) for f in dataclasses.fields(value)]
        else:
            parts = value if isinstance(value, tuple | list) else ()
        for part in parts:
            visit(part)

    for value in known:
        visit(value)
    return types


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
