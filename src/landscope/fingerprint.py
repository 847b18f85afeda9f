"""Fingerprints: short texts that differ when tensors or functions differ."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterable, Mapping
from types import CellType, CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
from torch import Tensor, nn

from landscope.params import as_bytes

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def of_tensors(tensors: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]) -> str:
    """Return 16 hexadecimal digits for names, shapes, dtypes and every bit of the values."""
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in dict(tensors).items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(as_bytes(tensor.detach().to("cpu")).numpy().data)
    return digest.hexdigest()


def of_text(*texts: object) -> str:
    """Return 16 hexadecimal digits for some texts; memory addresses in them do not count."""
    joined = "\n".join(_ADDRESS.sub("", str(text)) for text in texts)
    return hashlib.blake2b(joined.encode(), digest_size=8).hexdigest()


def of_module(module: nn.Module) -> str:
    """Return the class of a module with a fingerprint of its structure and its code.

    Values do not count, nor does code outside the ``forward`` methods of the user's own classes.
    """
    kinds = dict.fromkeys(type(m) for m in module.modules())
    own = [k for k in kinds if not k.__module__.startswith("torch.")]
    forwards = [of_function(k.forward) for k in own]
    return f"{type(module).__qualname__} {of_text(module, *forwards)}"


def of_function(function: object) -> str:
    """Return a name with a fingerprint of the code, its constants and what it holds.

    A function holds what it closes over and its defaults; a module its tensors and settings; any
    other object its attributes.
    """
    return _of_function(function, ())


def plain(value: object) -> str:
    """Return a text for any value, the same in every process."""
    return _ADDRESS.sub("", _plain(value, ()))


def _of_function(function: Any, inside: tuple[object, ...]) -> str:
    """Fingerprint a function; ``inside`` are the things that hold it, so that cycles end."""
    name = getattr(function, "__qualname__", type(function).__qualname__)
    if any(function is holder for holder in inside):
        return f"{name} again"
    held = (*inside, function)
    if isinstance(function, functools.partial):
        bound = _plain((function.args, function.keywords), held)
        return f"{_of_function(function.func, held)} {of_text(bound)}"
    if isinstance(function, MethodType):
        return f"{_of_function(function.__func__, held)} {_of_function(function.__self__, held)}"
    if isinstance(function, nn.Module):
        settings = [_plain(_settings(module), held) for module in function.modules()]
        values = of_tensors(function.state_dict())
        return f"{type(function).__qualname__} {of_text(function, *settings)} {values}"
    if isinstance(function, FunctionType):
        closed = [_plain(_contents(cell), held) for cell in function.__closure__ or ()]
        defaults = _plain((function.__defaults__, function.__kwdefaults__), held)
        return f"{name} {of_text(*_code(function.__code__), *closed, defaults)}"
    return f"{name} {of_text(function, _plain(getattr(function, '__dict__', {}), held))}"


def _settings(module: nn.Module) -> dict[str, object]:
    """Return what a module keeps besides its tensors and modules, e.g. a label smoothing."""
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


def _plain(value: Any, inside: tuple[object, ...]) -> str:
    """Return a text for any value, the same in every process."""
    if isinstance(value, Tensor):
        return of_tensors({"": value})
    if isinstance(value, np.ndarray) and value.dtype != object:
        return of_text(value.shape, value.dtype, value.tobytes().hex())
    if isinstance(value, FunctionType | MethodType | nn.Module | functools.partial):
        return _of_function(value, inside)
    if any(value is holder for holder in inside):
        return "again"
    return _plain_object(value, (*inside, value))


def _plain_object(value: Any, held: tuple[object, ...]) -> str:
    """Return a text for a container or an object; ``held`` ends with the value itself."""
    kind = type(value).__qualname__
    if isinstance(value, Mapping):
        return f"{kind}{[(_plain(k, held), _plain(v, held)) for k, v in value.items()]}"
    if isinstance(value, tuple | list):
        return f"{kind}{[_plain(v, held) for v in value]}"
    if isinstance(value, set | frozenset):
        return f"{kind}{sorted(_plain(v, held) for v in value)}"  # their order is by chance
    bare: Any = object.__repr__  # says no more than the address
    if type(value).__repr__ is bare and hasattr(value, "__dict__"):
        return f"{kind}{_plain(vars(value), held)}"
    return repr(value)
