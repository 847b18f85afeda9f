"""Pickles that hold references in place of tensors.

Workers map the tensors themselves from a file that all of them share (see
:mod:`landscope.engines.serialization`). A reference names a tensor by the fingerprint of its
values; small tensors stay in the pickle.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import pickle
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, final

import torch
from torch import Tensor, nn

from landscope.errors import EngineError
from landscope.tensorfile import NAMES

ALIGNMENT = 64  # bytes, to which torch aligns memory; the rounding of kernels may depend on it
_SMALL = 1024  # bytes; a smaller tensor stays in the pickle


def dump(value: object, references: References, cloudpickle: ModuleType) -> bytes:
    """Return a pickle of a value, with references in place of its tensors.

    Args:
        value: The value.
        references: The table to which the tensors are added.
        cloudpickle: The module that pickles.

    Raises:
        EngineError: When the value cannot be pickled.
    """
    base: Any = cloudpickle.Pickler

    class Pickler(base):  # type: ignore[misc]  # of cloudpickle or of pickle
        def persistent_id(self, value: Any) -> Any:
            return references.replace(value)

    buffer = io.BytesIO()
    try:
        with _pickle_by_value(cloudpickle):
            Pickler(buffer, protocol=5).dump(value)
    except Exception as error:  # pickling fails with errors of any type
        raise EngineError(
            f"the objective cannot be sent to workers ({type(error).__name__}: {error}). Define"
            " model, loss and data without open files, locks, generators or connections, and"
            " functions at module level; or pass make=, a module-level function that builds the"
            " objective in the worker."
        ) from error
    return buffer.getvalue()


def load(
    content: bytes,
    find: Callable[[str], Tensor],
    device: torch.device | None,
    *,
    move_all: bool = False,
) -> Any:
    """Return the value of a pickle that :func:`dump` made.

    Args:
        content: The pickle.
        find: A function from the name of a tensor to its flat values.
        device: The device for tensors that were not on a CPU; None keeps each device.
        move_all: Whether tensors that were on a CPU go to this device as well.
    """
    return _Unpickler(content, find, device, move_all=move_all).load()


def fingerprint_bytes(content: Any) -> str:
    """Return a fingerprint of bytes, 32 hexadecimal digits."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def find_cloudpickle() -> ModuleType:
    """Return cloudpickle, which also pickles functions of scripts and notebooks, else pickle."""
    try:
        return importlib.import_module("cloudpickle")
    except ImportError:
        return pickle


@contextlib.contextmanager
def _pickle_by_value(module: ModuleType) -> Iterator[None]:
    """Pickle functions by value where a worker could not import their modules."""
    if module is pickle:
        yield
        return
    registered = set(module.list_registry_pickle_by_value())
    modules = [(n, m) for n, m in list(sys.modules.items()) if n not in registered]
    unimportable = [m for n, m in modules if _is_unimportable(n, m)]
    for user_module in unimportable:
        module.register_pickle_by_value(user_module)
    try:
        yield
    finally:
        for user_module in unimportable:
            module.unregister_pickle_by_value(user_module)


def _is_unimportable(name: str, module: Any) -> bool:
    """Whether the source file of a module would not be found by an import of its name."""
    path = getattr(module, "__file__", None)
    if not isinstance(path, str) or not path.endswith(".py") or name.startswith("__"):
        return False
    if getattr(module, "__name__", None) != name:
        return False
    return not _is_importable(name.partition(".")[0])


def _is_importable(package: str) -> bool:
    finders = (getattr(finder, "find_spec", None) for finder in sys.meta_path)
    return any(find is not None and find(package, None) is not None for find in finders)


@final
class References:
    """The references of pickles, and a table of their tensors: name -> flat values."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._numbers: dict[int, int] = {}
        self._alive: list[Tensor] = []  # so that no id is used twice

    def replace(self, value: Any) -> Any:
        """Return the reference to a tensor or a device; None for any other value."""
        if isinstance(value, torch.device):
            return ("device", value.type)
        kind = type(value)
        if kind is not Tensor and kind is not nn.Parameter:
            return None
        if value.dtype not in NAMES or value.layout is not torch.strided:
            return None
        number = self._numbers.setdefault(id(value), len(self._numbers))
        self._alive.append(value)
        flat, stride = _flatten(value.detach())
        content = flat.view(torch.uint8).numpy()
        source: Any = bytes(content)
        offset = value.data_ptr() % ALIGNMENT if value.device.type == "cpu" else 0
        if flat.nbytes >= _SMALL:
            source = f"{fingerprint_bytes(content)}+{offset}"
            self.tensors.setdefault(source, flat)
        return (
            kind.__name__, number, source, offset, str(value.dtype), tuple(value.shape), stride,
            value.requires_grad, value.device.type,
        )  # fmt: skip


@final
class _Unpickler(pickle.Unpickler):
    """Puts tensors in the places of their references. Args: see :func:`load`."""

    def __init__(
        self,
        content: bytes,
        find: Callable[[str], Tensor],
        device: torch.device | None,
        *,
        move_all: bool,
    ) -> None:
        super().__init__(io.BytesIO(content))
        self._find, self._device, self._move_all = find, device, move_all
        self._tensors: dict[int, Any] = {}

    def persistent_load(self, reference: Any) -> Any:
        """Return the tensor or the device of a reference; a tied tensor is one object."""
        if reference[0] == "device":
            return self._map_device(reference[1])
        kind, number, source, offset, dtype, shape, stride, requires_grad, device = reference
        if number not in self._tensors:
            is_name = isinstance(source, str)
            flat = self._find(source) if is_name else _from_bytes(source, offset, dtype)
            tensor = flat.as_strided(shape, stride).to(self._map_device(device))
            if kind == "Parameter":
                tensor = nn.Parameter(tensor, requires_grad)
            self._tensors[number] = tensor.requires_grad_(requires_grad)
        return self._tensors[number]

    def _map_device(self, kind: str) -> torch.device:
        if kind == "cpu" and not self._move_all:
            return torch.device(kind)
        return self._device or torch.device(kind)


def _flatten(tensor: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """Return the values on the CPU, in the order of their memory, and the strides."""
    order = sorted(range(tensor.ndim), key=tensor.stride, reverse=True)
    if not tensor.permute(order).is_contiguous():  # overlapping, or with holes
        tensor, order = tensor.contiguous(), list(range(tensor.ndim))
    flat = tensor.permute(order).reshape(-1).to("cpu")
    return flat.as_strided(flat.shape, (1,)), tensor.stride()  # one number may keep any stride


def _from_bytes(content: bytes, offset: int, dtype: str) -> Tensor:
    """Return values at an offset from a multiple of 64 bytes, where all of torch's memory begins.

    Args:
        content: The bytes of the values.
        offset: The offset, in bytes.
        dtype: The name of the type, such as "torch.float32".
    """
    memory = torch.empty(offset + len(content), dtype=torch.uint8)
    memory[offset:] = torch.tensor(list(content), dtype=torch.uint8)
    values: Tensor = memory[offset:].view(getattr(torch, dtype.removeprefix("torch.")))
    return values
