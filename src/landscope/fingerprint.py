"""Fingerprints: short texts that differ when tensors or functions differ."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterable, Mapping
from types import CellType, CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from landscope.params import as_bytes

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")

_Stack = tuple[object, ...]  # the containers of the current object, to stop at cycles


def of_tensors(tensors: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]) -> str:
    """Return 16 hexadecimal digits that identify names, shapes, dtypes and all bits of values."""
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in dict(tensors).items():
        parts = list_parts(tensor.detach())
        layout = "" if len(parts) == 1 else f" {tensor.layout}"
        digest.update(f"{name} {_describe_shape(tensor)} {tensor.dtype}{layout}".encode())
        for part in parts:
            digest.update(as_bytes(part.to("cpu")).numpy().data)
    return digest.hexdigest()


def list_parts(tensor: Tensor) -> list[Tensor]:
    """Return the dense tensors that hold a tensor's values: itself, or those of a sparse one."""
    layout: Any = tensor.layout
    if tensor.is_nested:
        return [part for piece in tensor.unbind() for part in list_parts(piece)]
    if layout is torch.sparse_coo:
        return [tensor._indices(), tensor._values()]
    if layout in (torch.sparse_csr, torch.sparse_bsr):
        return [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    if layout in (torch.sparse_csc, torch.sparse_bsc):
        return [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]
    return [tensor]


def _describe_shape(tensor: Tensor) -> str:
    if tensor.is_nested:
        return str([tuple(piece.shape) for piece in tensor.unbind()])
    return str(tuple(tensor.shape))


def of_text(*texts: object) -> str:
    """Return 16 hexadecimal digits that identify several texts, except for memory addresses."""
    joined = "\n".join(_ADDRESS.sub("", str(text)) for text in texts)
    return hashlib.blake2b(joined.encode(), digest_size=8).hexdigest()


def of_module(module: nn.Module) -> str:
    """Return the class name of a module and a fingerprint of its structure and its code.

    The values of its tensors are ignored, and so is code outside the ``forward`` methods of the
    user's own classes.
    """
    classes = dict.fromkeys(type(m) for m in module.modules())
    custom = [c for c in classes if not c.__module__.startswith("torch.")]
    forwards = [of_function(c.forward) for c in custom]
    return f"{type(module).__qualname__} {of_text(module, *forwards)}"


def of_function(function: object) -> str:
    """Return the name of a function and a fingerprint of its code, constants and contents.

    The contents of a function are its closure and its defaults; those of a module are its tensors
    and settings; those of any other object are its attributes.
    """
    return _of_function(function, ())


def plain(value: object) -> str:
    """Return a text for any value that is the same in every process."""
    return _ADDRESS.sub("", _plain(value, ()))


def _of_function(function: Any, stack: _Stack) -> str:
    name = getattr(function, "__qualname__", type(function).__qualname__)
    if any(function is container for container in stack):
        return f"{name} again"
    stack = (*stack, function)
    if isinstance(function, functools.partial):
        bound = _plain((function.args, function.keywords), stack)
        return f"{_of_function(function.func, stack)} {of_text(bound)}"
    if isinstance(function, MethodType):
        return f"{_of_function(function.__func__, stack)} {_of_function(function.__self__, stack)}"
    if isinstance(function, nn.Module):
        settings = [_plain(_settings(module), stack) for module in function.modules()]
        values = of_tensors(function.state_dict())
        return f"{type(function).__qualname__} {of_text(function, *settings)} {values}"
    if isinstance(function, FunctionType):
        closure = [_plain(_contents(cell), stack) for cell in function.__closure__ or ()]
        defaults = _plain((function.__defaults__, function.__kwdefaults__), stack)
        return f"{name} {of_text(*_code(function.__code__), *closure, defaults)}"
    return f"{name} {of_text(function, _plain(getattr(function, '__dict__', {}), stack))}"


def _settings(module: nn.Module) -> dict[str, object]:
    """Return the attributes of a module that are not tensors or modules, e.g. label smoothing."""
    return {n: v for n, v in vars(module).items() if not n.startswith("_") and n != "training"}


def _contents(cell: CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # the name is not bound yet
        return "empty"


def _code(code: CodeType) -> Iterable[object]:
    yield code.co_code.hex()
    yield code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _code(constant)
        else:
            yield _plain(constant, ())


def _plain(value: Any, stack: _Stack) -> str:
    if isinstance(value, Tensor):
        return of_tensors({"": value})
    if isinstance(value, np.ndarray) and value.dtype != object:
        return of_text(value.shape, value.dtype, value.tobytes().hex())
    if isinstance(value, FunctionType | MethodType | nn.Module | functools.partial):
        return _of_function(value, stack)
    if any(value is container for container in stack):
        return "again"
    return _plain_object(value, (*stack, value))


def _plain_object(value: Any, stack: _Stack) -> str:
    """Return a text for a container or an object; the stack ends with the value itself."""
    kind = type(value).__qualname__
    if isinstance(value, Mapping):
        return f"{kind}{[(_plain(k, stack), _plain(v, stack)) for k, v in value.items()]}"
    if isinstance(value, tuple | list):
        return f"{kind}{[_plain(v, stack) for v in value]}"
    if isinstance(value, set | frozenset):
        return f"{kind}{sorted(_plain(v, stack) for v in value)}"  # a set has no fixed order
    default_repr: Any = object.__repr__  # shows the address only
    is_ours = type(value).__module__.startswith("landscope.")  # <...> is a summary for people
    summarized = type(value).__repr__ is default_repr or (is_ours and repr(value)[:1] == "<")
    if summarized and hasattr(value, "__dict__"):
        return f"{kind}{_plain(vars(value), stack)}"
    return repr(value)
