"""Plain values beside the weights in a file of torch, read without running any code.

``torch.load(weights_only=True)`` stops at every class that it does not know: a NumPy number, an
``argparse.Namespace``, a path, a settings object of the user. None of them is needed for the
weights. Here each such name is replaced by an inert class, made on the spot, that ignores what the
file gives it; nothing of that name is imported, created or called. Functions and classes of the
standard library that are no plain values, such as those of ``os``, stay refused.
"""

from __future__ import annotations

import pickle
import re
import sys
import warnings
from collections import OrderedDict
from itertools import starmap
from pathlib import Path
from typing import Any

import torch

_PLAIN_MODULES = {  # of the standard library: their classes hold values, and do nothing
    "__future__", "_codecs", "argparse", "array", "collections", "copyreg", "dataclasses",
    "datetime", "decimal", "enum", "fractions", "functools", "ipaddress", "numbers", "pathlib",
    "random", "re", "types", "typing", "uuid", "zoneinfo",
}  # fmt: skip
_ACTING_BUILTINS = {"__import__", "breakpoint", "compile", "eval", "exec", "input", "open"}
_REFUSED = re.compile(r"GLOBAL ([\w.]+)")  # how torch names what it will not unpickle
_INERT = re.compile(r"but got <class '(?:[\w.]*\.)?inert<(.+)>'>")  # our own classes in its errors
_ATTEMPTS = 500  # more names than any file has


class InertValue:
    """A value that was not read; ``name`` is the class or function that it needs."""

    name = ""

    def __new__(cls, *_: object, **__: object) -> Any:
        """Return a value without contents."""
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        """Ignore the contents in the file."""

    def __setstate__(self, _: object) -> None:
        """Ignore the contents in the file."""

    def __hash__(self) -> int:
        return id(self)


class _InertDict(InertValue):
    """Stands for a class of dicts; torch fills only dicts of its own."""

    def __new__(cls, *_: object, **__: object) -> Any:
        return OrderedDict()


class _InertList(InertValue):
    """Stands for a class of lists; torch fills only real lists."""

    def __new__(cls, *_: object, **__: object) -> Any:
        return []


def load_inert(path: Path) -> Any:
    """Return what a file of ``torch.save`` holds, with inert values for all but plain tensors.

    Args:
        path: A file of ``torch.save``.

    Raises:
        pickle.UnpicklingError: When the file wants something that is refused, in the words of
            torch: "GLOBAL name".
        Exception: Any error that torch raises for damaged files.

    Cost: reading the file once; twice to four times when it holds more than tensors.
    """
    kinds: dict[str, type[InertValue]] = {}
    for _ in range(_ATTEMPTS):
        allowed: list[Any] = list(starmap(_make_class, kinds.items()))
        allow = torch.serialization.safe_globals(allowed)
        try:
            with allow, warnings.catch_warnings(action="ignore"):  # about pickle protocols
                return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            if not _learn(str(error), kinds):
                raise
            kinds |= {name: kinds.get(name, InertValue) for name in _list_names(path)}
    raise pickle.UnpicklingError(f"it holds more than {_ATTEMPTS} kinds of objects")


def _list_names(path: Path) -> list[str]:
    """Return the names that may be left out, so that a large file is not read once for each."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except (ValueError, RuntimeError, pickle.UnpicklingError):  # no zip archive, or a damaged one
        return []
    return [name for name in names if _is_plain(name)]


def _learn(message: str, kinds: dict[str, type[InertValue]]) -> bool:
    """Add the inert class that an error of torch asks for; False if there is none."""
    inert = _INERT.search(message)
    if inert:
        kind = _InertList if "append" in message or "extend" in message else _InertDict
        if kinds.get(inert[1]) is kind:
            return False
        kinds[inert[1]] = kind
        return True
    refused = _REFUSED.search(message)
    if not refused or "is blocked" in message:
        return False
    name = refused[1] if "." in refused[1] else f"builtins.{refused[1]}"
    if name in kinds or not _is_plain(name):
        return False
    kinds[name] = InertValue
    return True


def _is_plain(name: str) -> bool:
    """Whether a class may be left out: all but those of the standard library that act."""
    module, _, attribute = name.rpartition(".")
    root = module.partition(".")[0]
    if root == "builtins":
        return attribute not in _ACTING_BUILTINS
    return root in _PLAIN_MODULES or root not in sys.stdlib_module_names


def _make_class(name: str, kind: type[InertValue]) -> tuple[type[InertValue], str]:
    """Return an inert class and the name that it replaces."""
    return type(f"inert<{name}>", (kind,), {"name": name, "__module__": "builtins"}), name
