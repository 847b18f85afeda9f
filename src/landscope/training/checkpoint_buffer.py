"""Memory for one checkpoint, laid out as the file that it becomes.

A buffer holds the bytes of a safetensors file in their order, so writing the file takes a few calls
that block no other thread. (``safetensors.torch.save_file`` gives the same file, but spends Python
time on each tensor, and the training thread would have to wait for it.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, final

import torch
from torch import Tensor

from landscope.errors import RecorderError
from landscope.params import as_bytes
from landscope.tensorfile import (
    DTYPES,
    FLOATING,
    NAMES,
    Entry,
    encode_entries,
    encode_header,
    read_header,
)

_GRAIN = 2**20  # bytes: the smallest segment of pinned memory, and the most written in one call


def arrange(tensors: Mapping[str, Tensor]) -> dict[str, Entry]:
    """Return where each tensor lies in a safetensors file of all of them.

    Raises:
        RecorderError: When a tensor cannot be stored in such a file.
    """
    entries = {}
    start = 0
    # Wide dtypes come first, so that each tensor is aligned without gaps.
    for name, tensor in sorted(tensors.items(), key=lambda item: -item[1].element_size()):
        size = tensor.numel() * tensor.element_size()
        entries[name] = Entry(_dtype_name(name, tensor), tuple(tensor.shape), start, size)
        start += size
    return entries


def _dtype_name(name: str, tensor: Tensor) -> str:
    if tensor.is_meta:
        raise RecorderError(
            f"{name!r} lies on the meta device, where it has no values: record the model where its"
            " weights are in memory, not offloaded."
        )
    if tensor.dtype not in FLOATING.values():
        known = ", ".join(str(dtype).removeprefix("torch.") for dtype in FLOATING.values())
        raise RecorderError(
            f"{name!r} has the dtype {tensor.dtype}, which checkpoints cannot hold: {known} can be"
            " recorded."
        )
    return NAMES[tensor.dtype]


@final
class CheckpointBuffer:
    """CPU memory for the tensors of one checkpoint.

    Args:
        entries: The layout of the tensors, from :func:`arrange`.
        pinned: Whether the memory is pinned, so that a GPU copies into it asynchronously.
        sizes: The sizes of the memory segments in bytes; by default the sizes that waste least.
    """

    def __init__(
        self, entries: Mapping[str, Entry], *, pinned: bool, sizes: Sequence[int] | None = None
    ) -> None:
        self.entries = dict(entries)
        self._header = encode_entries(entries)
        size = sum(entry.size for entry in entries.values())
        sizes = sizes or (_powers_of_two(size) if pinned else [size])
        with torch.inference_mode(False):  # later calls may be outside of inference mode
            self._segments = [
                torch.empty(size, dtype=torch.uint8, device="cpu", pin_memory=pinned)
                for size in sizes
            ]
            self._views = dict(self._contiguous_views())
        self._pending: list[torch.cuda.Event] = []

    def fill(self, tensors: Iterable[tuple[str, Tensor]]) -> None:
        """Copy the tensors into the buffer; GPU copies are complete after :meth:`wait`.

        Raises:
            RecorderError: When a tensor has another shape or dtype than the layout says.
        """
        devices = set()
        with torch.no_grad():
            for name, tensor in tensors:
                self._copy(name, tensor)
                if tensor.is_cuda:
                    devices.add(tensor.device)
        for device in devices:
            with torch.cuda.device(device):
                event = torch.cuda.Event()
                event.record()
                self._pending.append(event)

    def wait(self) -> None:
        """Wait until all GPU copies are complete."""
        for event in self._pending:
            event.synchronize()
        self._pending = []

    def write(self, file: IO[bytes], metadata: Mapping[str, str]) -> None:
        """Write a safetensors file with these tensors and this metadata."""
        file.write(encode_header(self._header, metadata))
        for chunk in self._chunks():
            file.write(chunk)

    def equals_file(self, path: Path) -> bool:
        """Return whether a safetensors file holds the same tensors, bit for bit.

        Raises:
            FormatError: When the file is incomplete.
        """
        stored, _ = read_header(path)
        base = min((entry.start for entry in stored.values()), default=0)
        relative = {
            name: Entry(entry.dtype, entry.shape, entry.start - base, entry.size)
            for name, entry in stored.items()
        }
        if relative != self.entries:
            return False
        with path.open("rb") as file:
            file.seek(base)
            return all(file.read(len(chunk)) == chunk for chunk in self._chunks())

    def _copy(self, name: str, tensor: Tensor) -> None:
        view = self._views.get(name)
        if (
            view is None
            or tensor.is_meta
            or view.shape != tensor.shape
            or view.dtype != tensor.dtype
        ):
            self._check_unchanged(name, tensor)
            self._copy_bytes(name, tensor)
        else:
            view.copy_(tensor, non_blocking=tensor.is_cuda)

    def _check_unchanged(self, name: str, tensor: Tensor) -> None:
        entry, dtype, shape = self.entries[name], _dtype_name(name, tensor), tuple(tensor.shape)
        if (dtype, shape) != (entry.dtype, entry.shape):
            raise RecorderError(
                f"{name!r} is {dtype} {list(shape)} now and was {entry.dtype} {list(entry.shape)}"
                " when the recording began: record a model that has changed into another folder."
            )

    def _copy_bytes(self, name: str, tensor: Tensor) -> None:
        """Copy a tensor that lies in several segments."""
        content = as_bytes(tensor)
        for part, offset in self._parts(self.entries[name]):
            part.copy_(content[offset : offset + len(part)], non_blocking=tensor.is_cuda)

    def _contiguous_views(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the tensors that lie in one segment, as nearly all do, as views of it."""
        for name, entry in self.entries.items():
            dtype = DTYPES[entry.dtype]
            parts = [part for part, _ in self._parts(entry)]
            if len(parts) == 1 and parts[0].storage_offset() % dtype.itemsize == 0:
                yield name, parts[0].view(dtype).view(entry.shape)

    def _parts(self, entry: Entry) -> Iterator[tuple[Tensor, int]]:
        """Yield the memory of a tensor, segment by segment, each with its offset in the tensor."""
        base = 0
        for segment in self._segments:
            first = max(entry.start, base)
            last = min(entry.start + entry.size, base + len(segment))
            if first < last:
                yield segment[first - base : last - base], first - entry.start
            base += len(segment)

    def _chunks(self) -> Iterator[memoryview]:
        """Yield all bytes, in chunks of at most ``_GRAIN``."""
        for segment in self._segments:
            for chunk in segment.split(_GRAIN):
                yield chunk.numpy().data


def _powers_of_two(size: int) -> list[int]:
    """Return sizes that sum to ``size``; torch rounds pinned memory up to powers of two."""
    grains = size // _GRAIN
    powers = [1 << k for k in reversed(range(grains.bit_length())) if grains >> k & 1]
    return [_GRAIN * power for power in powers] + [size % _GRAIN] * (size % _GRAIN > 0)
