"""Fingerprints: short texts that differ when tensors or functions differ."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterable, Mapping
from types import CodeType, FunctionType
from typing import Any

import torch
from torch import Tensor, nn

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def of_tensors(tensors: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]) -> str:
    """Return 16 hexadecimal digits for names, shapes, dtypes and every bit of the values."""
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in dict(tensors).items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        flat = tensor.detach().to("cpu").contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def of_text(*texts: object) -> str:
    """Return 16 hexadecimal digits for some texts; memory addresses in them do not count."""
    joined = "\n".join(_ADDRESS.sub("", str(text)) for text in texts)
    return hashlib.blake2b(joined.encode(), digest_size=8).hexdigest()


def of_module(module: nn.Module) -> str:
    """Return the class of a module with a fingerprint of its structure (not of its values)."""
    return f"{type(module).__qualname__} {of_text(module)}"


def of_function(function: object) -> str:
    """Return a name with a fingerprint of the code, its constants and what it closes over."""
    if isinstance(function, functools.partial):
        bound = f"{function.args!r} {sorted(function.keywords.items())!r}"
        return f"{of_function(function.func)} {of_text(bound)}"
    if isinstance(function, nn.Module):
        return f"{of_module(function)} {of_tensors(function.state_dict())}"
    name = getattr(function, "__qualname__", type(function).__qualname__)
    if not isinstance(function, FunctionType):
        return f"{name} {of_text(function)}"
    closed = [_plain(cell.cell_contents) for cell in function.__closure__ or ()]
    return f"{name} {of_text(*_code(function.__code__), *closed, _plain(function.__defaults__))}"


def _code(code: CodeType) -> Iterable[object]:
    yield code.co_code.hex()
    yield code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _code(constant)
        else:
            yield repr(constant)


def _plain(value: Any) -> str:
    if isinstance(value, Tensor):
        return of_tensors({"": value})
    if isinstance(value, FunctionType | nn.Module | functools.partial):
        return of_function(value)
    return repr(value)
