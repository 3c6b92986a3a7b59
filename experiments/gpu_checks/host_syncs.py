"""Counts the operations for which the host waits for the device, on a machine that has no device.

A stand-in device (PyTorch's PrivateUse1 backend for Python) holds every tensor on the CPU and computes there. PyTorch
takes it for a device that is not the CPU: the learners take the code path of a GPU, and whatever reads a value on the
host has to copy it.

    to_host      item(), float(), bool(), tolist(), cpu(), and any other copy from the device to the host
    to_device    copies from ordinary (pageable) host memory to the device: CUDA waits for these, too
    data_shape   operations whose result's shape depends on values: nonzero, masked_select, indexing by a boolean tensor

Not counted: what a CUDA kernel synchronises on its own account (cuSOLVER, a cuDNN or cuBLAS workspace), allocations
that make the caching allocator wait, and what a compiled graph does. On a GPU, `torch.cuda.set_sync_debug_mode` is the
reference; the part `synchronisations` of `gpu_check.py` uses it there.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

_NAME = "standin"
_HOST = torch.device("cpu")
_DATA_SHAPE = ("aten::nonzero", "aten::masked_select", "aten::_unique2", "aten::repeat_interleave")
_INDEXING = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_")
_METARL = Path(__file__).resolve().parents[2] / "metarl"


@cache
def stand_in_device() -> torch.device:
    """The stand-in device. Registers it for the rest of the process, which must not have run a backward pass before."""
    module: Any = backend_registration._DummyBackendModule()
    module.get_amp_supported_dtype = lambda: [torch.bfloat16]  # what torch.autocast asks for
    backend_registration._setup_privateuseone_for_python_backend(_NAME, module)
    return torch.device(_NAME, 0)


class OnDevice(Tensor):
    """A tensor of the stand-in device; `host` holds its values."""

    host: Tensor

    @staticmethod
    def __new__(cls, host: Tensor) -> OnDevice:
        tensor = Tensor._make_wrapper_subclass(
            cls,
            host.shape,
            strides=host.stride(),
            storage_offset=host.storage_offset(),
            dtype=host.dtype,
            device=stand_in_device(),
            requires_grad=False,
        )
        tensor.host = host
        return tensor

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        return _run(func, args, kwargs or {}, _counts)


_counts: Counter[tuple[str, str]] = Counter()  # of the count that is under way; see `counted`


def _is_stand_in(device: Any) -> bool:
    return device is not None and torch.device(device).type == _NAME


def _run(func: Any, args: Any, kwargs: Any, counts: Counter[tuple[str, str]]) -> Any:
    """`func` on the CPU; its result is on the stand-in device where an operand was or where `device` says so."""
    name = func._schema.name
    tensors = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, Tensor)]
    on_device = [tensor for tensor in tensors if isinstance(tensor, OnDevice)]
    device = kwargs.get("device")
    goes_to_device = _is_stand_in(device) if device is not None else bool(on_device)
    kind = _kind(name, tensors, len(on_device), goes_to_device)
    if kind:
        counts[kind, _place()] += 1
    host_args, host_kwargs = tree_map_only(OnDevice, lambda tensor: tensor.host, (args, kwargs))
    if device is not None:
        host_kwargs = {**host_kwargs, "device": _HOST}
    result = func(*host_args, **host_kwargs)
    if name == "aten::copy_":
        return args[0]
    wrappers = {id(tensor.host): tensor for tensor in on_device}  # what an in-place operation returns
    if not goes_to_device:
        return result
    return tree_map_only(
        Tensor, lambda host: wrappers.get(id(host)) if id(host) in wrappers else OnDevice(host), result
    )


def _kind(name: str, tensors: list[Tensor], num_on_device: int, goes_to_device: bool) -> str | None:
    """Why the host waits for this operation, or None where it does not."""
    if name == "aten::copy_":
        if isinstance(tensors[0], OnDevice) == isinstance(tensors[1], OnDevice):
            return None
        return "to_host" if isinstance(tensors[1], OnDevice) else "to_device"
    if name == "aten::_to_copy":
        if bool(num_on_device) == goes_to_device:
            return None
        return "to_host" if num_on_device else "to_device"
    if not num_on_device:
        return None
    if name == "aten::_local_scalar_dense":
        return "to_host"
    if name in _INDEXING:
        indices = [tensor for tensor in tensors[1:] if tensor.dtype == torch.bool]
        if indices:
            return "data_shape"
        return "to_device" if num_on_device < len(tensors) else None
    mixed = [tensor for tensor in tensors if not isinstance(tensor, OnDevice) and tensor.ndim > 0]
    assert not mixed, f"{name}: operands on two devices"
    return "data_shape" if name in _DATA_SHAPE else None


def _place() -> str:
    """`file:line` of metarl's innermost frame."""
    for frame in reversed(traceback.extract_stack()):
        path = Path(frame.filename)
        if _METARL in path.parents:
            return f"{path.relative_to(_METARL.parent)}:{frame.lineno}"
    return "outside metarl"


class _Dispatch(TorchDispatchMode):
    """Catches what has no operand on the device: factories and copies to it."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {}, _counts)


class _Functions(TorchFunctionMode):
    """Catches what PyTorch does below the dispatcher: `tolist`, tensors made from Python numbers, indices in lists."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is Tensor.tolist and isinstance(args[0], OnDevice):
            _counts["to_host", _place()] += 1
            return args[0].host.tolist()
        if func is torch.tensor and _is_stand_in(kwargs.get("device")):
            _counts["to_device", _place()] += 1
            return OnDevice(torch.tensor(*args, **{**kwargs, "device": _HOST}))
        if func is Tensor.new_tensor and isinstance(args[0], OnDevice):
            _counts["to_device", _place()] += 1
            return OnDevice(args[0].host.new_tensor(*args[1:], **kwargs))
        if func is Tensor.__setitem__ and isinstance(args[0], OnDevice) and isinstance(args[1], list):
            _counts["to_device", _place()] += 1  # of the index
            args[0].host[args[1]] = args[2]
            return None
        return func(*args, **kwargs)


_HostGenerator = torch.Generator


class _StandInGenerator(_HostGenerator):
    """The stand-in device's generator: the CPU's by another name."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return stand_in_device()


def _generator(device: Any = _HOST) -> torch.Generator:
    return _StandInGenerator(_HOST) if _is_stand_in(device) else _HostGenerator(device)


@contextmanager
def counted() -> Iterator[Counter[tuple[str, str]]]:
    """Inside, tensors may live on the stand-in device; the counts of (kind, place) so far. Clear them at will."""
    _counts.clear()
    with mock.patch.object(torch, "Generator", _generator), _Dispatch(), _Functions():
        yield _counts


def totals(counts: Counter[tuple[str, str]]) -> dict[str, int]:
    """Counts by kind."""
    sums: Counter[str] = Counter()
    for (kind, _), number in counts.items():
        sums[kind] += number
    return {kind: sums[kind] for kind in ("to_host", "to_device", "data_shape")}
