"""Files of tensors (.safetensors): their dtypes, their header, and reads of individual tensors.

This module reads files without memory-mapping them: the pages of a mapped file count as memory of
the process, and a trajectory may be many times as large as the memory. Format: an 8-byte length, a
JSON header of that many bytes, the tensors without gaps; https://huggingface.co/docs/safetensors.
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

DTYPES = {  # by the names that the format gives them
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
NAMES = {dtype: name for name, dtype in DTYPES.items()}
FLOATING = {name: dtype for name, dtype in DTYPES.items() if dtype.is_floating_point}


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies in a .safetensors file.

    Args:
        dtype: The dtype, by the name that the format gives it: "F32", "BF16", ...
        shape: The shape of the tensor.
        start: The position of the first byte, counted from the beginning of the file in entries
            that were read, and from the end of the header in entries that are to be written.
        size: The number of bytes.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int

    @property
    def is_floating_point(self) -> bool:
        """Whether the dtype is a floating-point dtype of torch."""
        return self.dtype in FLOATING


def encode_entries(entries: Mapping[str, Entry]) -> str:
    """Return the JSON text of a header without metadata, for :func:`encode_header`."""
    return json.dumps(
        {
            name: {
                "dtype": entry.dtype,
                "shape": list(entry.shape),
                "data_offsets": [entry.start, entry.start + entry.size],
            }
            for name, entry in entries.items()
        }
    )


def encode_header(
    entries: str, metadata: Mapping[str, str] | None = None, *, alignment: int = 8
) -> bytes:
    """Return the bytes of a file that precede the tensors.

    Args:
        entries: The text of :func:`encode_entries`.
        metadata: Texts by name, written in front of the entries.
        alignment: The number of bytes of which the length of the header is a multiple.
    """
    if metadata is not None:
        rest = entries[1:] if entries == "{}" else f", {entries[1:]}"
        entries = f'{{"__metadata__": {json.dumps(metadata)}{rest}'
    content = entries.encode()
    content += b" " * (-(8 + len(content)) % alignment)
    return len(content).to_bytes(8, "little") + content


def read_header(path: Path) -> tuple[dict[str, Entry], dict[str, str]]:
    """Return the tensors that a .safetensors file holds, in file order, and its metadata.

    Raises:
        FormatError: When the file is missing or incomplete.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if length > size:
                raise ValueError(f"it ends after {size} bytes")
            header = json.loads(file.read(length))
        metadata = header.pop("__metadata__", {})
        entries = {name: _parse_entry(entry, 8 + length) for name, entry in header.items()}
        end = max((e.start + e.size for e in entries.values()), default=8 + length)
        if end != size:
            raise ValueError(f"it has {size} bytes, and its header promises {end}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FormatError(explain_damage(path, error)) from error
    return dict(sorted(entries.items(), key=lambda item: item[1].start)), metadata


def read_tensors(path: Path, entries: Mapping[str, Entry]) -> dict[str, Tensor]:
    """Return tensors of a .safetensors file, in memory of their own.

    Raises:
        FormatError: When the file is missing or incomplete.
    """
    tensors = {}
    try:
        with path.open("rb", buffering=0) as file:
            for name, entry in entries.items():
                tensor = torch.empty(entry.shape, dtype=DTYPES[entry.dtype])
                file.seek(entry.start)
                read_into(tensor.reshape(-1).view(torch.uint8).numpy().data, file)
                tensors[name] = tensor
    except OSError as error:
        raise FormatError(explain_damage(path, error)) from error
    return tensors


def read_into(buffer: memoryview, file: Any) -> None:
    """Fill a buffer with the bytes that follow the current position of a file.

    Raises:
        OSError: When the file has fewer bytes left.
    """
    done = 0
    while done < len(buffer):
        count = file.readinto(buffer[done:])
        if not count:
            raise OSError("it ends too early")
        done += count


def explain_damage(path: Path, error: Exception) -> str:
    """Return the message of the error for a checkpoint that cannot be read."""
    if isinstance(error, FileNotFoundError):
        return f"{path} is gone: the folder was thinned after it was opened; open it again."
    return f"{path} is not a whole checkpoint ({error}): delete it, or write it again."


def _parse_entry(fields: Mapping[str, Any], base: int) -> Entry:
    first, last = fields["data_offsets"]
    entry = Entry(str(fields["dtype"]), tuple(fields["shape"]), base + first, last - first)
    dtype = DTYPES.get(entry.dtype)
    if dtype is not None and math.prod(entry.shape) * dtype.itemsize != entry.size:
        raise ValueError(f"shape {entry.shape} does not take {entry.size} bytes")
    return entry
