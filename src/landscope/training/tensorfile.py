"""Files of tensors (.safetensors): where each lies, and plain reads of some of them.

Pages of a mapped file would count as memory of the process, and a trajectory may be many times as
large as that. Format: an 8-byte length, that many bytes of JSON, the tensors without gaps;
https://huggingface.co/docs/safetensors.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from landscope.errors import FormatError

DTYPES = {  # of floating-point tensors, as safetensors files name them
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies in a .safetensors file.

    Args:
        dtype: as the file names it: "F32", "BF16", ...
        shape: of the tensor.
        start: its first byte, from the beginning of the file.
        size: its bytes.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int


def header(path: Path) -> tuple[dict[str, Entry], dict[str, str]]:
    """Return the tensors that a .safetensors file holds, in file order, and its metadata.

    Raises:
        FormatError: when the file is gone, or is not whole.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if length > size:
                raise ValueError(f"it ends after {size} bytes")
            told = json.loads(file.read(length))
        notes = told.pop("__metadata__", {})
        entries = {name: _entry(entry, 8 + length) for name, entry in told.items()}
        end = max((e.start + e.size for e in entries.values()), default=8 + length)
        if end != size:
            raise ValueError(f"it has {size} bytes, and its head promises {end}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FormatError(damaged(path, error)) from error
    return dict(sorted(entries.items(), key=lambda item: item[1].start)), notes


def read(path: Path, entries: Mapping[str, Entry]) -> dict[str, Tensor]:
    """Return tensors of a .safetensors file, read into memory of their own.

    Raises:
        FormatError: when the file is gone, or is not whole.
    """
    found = {}
    try:
        with path.open("rb", buffering=0) as file:
            for name, entry in entries.items():
                tensor = torch.empty(entry.shape, dtype=DTYPES[entry.dtype])
                file.seek(entry.start)
                fill(file, tensor.reshape(-1).view(torch.uint8).numpy().data)
                found[name] = tensor
    except OSError as error:
        raise FormatError(damaged(path, error)) from error
    return found


def fill(file: Any, view: memoryview) -> None:
    """Read from a file, from where it stands, as many bytes as there is room for.

    Raises:
        OSError: when it has not so many.
    """
    done = 0
    while done < len(view):
        count = file.readinto(view[done:])
        if not count:
            raise OSError("it ends too early")
        done += count


def damaged(path: Path, error: Exception) -> str:
    """Return the sentence for a checkpoint that cannot be read."""
    if isinstance(error, FileNotFoundError):
        return f"{path} is gone: the folder was thinned since it was opened; open it again."
    return f"{path} is not a whole checkpoint ({error}): delete it, or write it again."


def _entry(told: Mapping[str, Any], base: int) -> Entry:
    first, last = told["data_offsets"]
    entry = Entry(str(told["dtype"]), tuple(told["shape"]), base + first, last - first)
    if (
        entry.dtype in DTYPES
        and math.prod(entry.shape) * DTYPES[entry.dtype].itemsize != entry.size
    ):
        raise ValueError(f"shape {entry.shape} does not take {entry.size} bytes")
    return entry
