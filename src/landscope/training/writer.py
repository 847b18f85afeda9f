"""Checkpoints on their way to the disk: copied into blocks of memory, written by one thread.

A block holds the bytes of a safetensors file in their order, so that writing one needs a few calls,
which hold up no other thread. (``safetensors.torch.save_file`` gives the same file, but spends
Python on each tensor, which the thread that trains would have to wait for.)
Format: an 8-byte length, that many bytes of JSON, the tensors without gaps;
https://huggingface.co/docs/safetensors.
"""

from __future__ import annotations

import json
import os
import queue
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, final

import torch
from torch import Tensor

from landscope.errors import RecorderError
from landscope.files import whole
from landscope.params import as_bytes
from landscope.training.tensorfile import DTYPES, header

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows: two processes in one folder go unnoticed
    fcntl = None  # type: ignore[assignment]

BLOCKS = 2  # one is written while the other is filled
_LOCK = ".lock"
_GRAIN = 2**20  # bytes: the smallest piece of pinned memory, and what is written in one call
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


Index = dict[str, dict[str, Any]]  # what the header of a file says of its tensors, by name


def index_of(tensors: Mapping[str, Tensor]) -> Index:
    """Return where each tensor lies in a safetensors file of them all.

    Raises:
        RecorderError: when a tensor has no place in such a file.
    """
    index: Index = {}
    end = 0
    # Wide numbers first, so that each tensor is aligned without gaps.
    for name, tensor in sorted(tensors.items(), key=lambda item: -item[1].element_size()):
        begin, end = end, end + tensor.numel() * tensor.element_size()
        index[name] = {
            "dtype": _kind(name, tensor),
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    return index


def _kind(name: str, tensor: Tensor) -> str:
    if tensor.is_meta:
        raise RecorderError(
            f"{name!r} lies on the meta device, where it has no values: record the model where its"
            " weights are in memory, not offloaded."
        )
    if tensor.dtype not in _NAMES:
        raise RecorderError(
            f"{name!r} has the dtype {tensor.dtype}, of which checkpoints cannot be taken:"
            f" {', '.join(str(kind).removeprefix('torch.') for kind in _NAMES)} can be recorded."
        )
    return _NAMES[tensor.dtype]


@final
class Block:
    """Memory of the CPU for the tensors of one checkpoint.

    Args:
        index: of these tensors, as :func:`index_of` has it.
        pinned: whether a GPU can copy to it while the program goes on.
        sizes: of the pieces of the memory; None for those that waste the least.
    """

    def __init__(self, index: Index, *, pinned: bool, sizes: Sequence[int] | None = None) -> None:
        self.index, self._text = index, json.dumps(index)
        end = max((entry["data_offsets"][1] for entry in index.values()), default=0)
        sizes = sizes or (_powers_of_two(end) if pinned else [end])
        with torch.inference_mode(False):  # the next call may be outside of it
            self._pieces = [
                torch.empty(size, dtype=torch.uint8, device="cpu", pin_memory=pinned)
                for size in sizes
            ]
            self._views = dict(self._in_one_piece())
        self._copied: list[torch.cuda.Event] = []

    def fill(self, tensors: Iterable[tuple[str, Tensor]]) -> None:
        """Copy the tensors in; those of a GPU are there when :meth:`settle` has returned.

        Raises:
            RecorderError: when a tensor has another shape or dtype than the block was made for.
        """
        devices = set()
        with torch.no_grad():
            for name, tensor in tensors:
                on_gpu = tensor.is_cuda
                if on_gpu:
                    devices.add(tensor.device)
                view = self._views.get(name)
                if view is None or tensor.is_meta:
                    self._check(name, _kind(name, tensor), list(tensor.shape))
                    self._spread(name, tensor)
                elif view.shape == tensor.shape and view.dtype == tensor.dtype:
                    view.copy_(tensor, non_blocking=on_gpu)
                else:
                    self._check(name, _kind(name, tensor), list(tensor.shape))
        for device in devices:
            with torch.cuda.device(device):
                self._copied.append(torch.cuda.Event())
                self._copied[-1].record()

    def settle(self) -> None:
        """Wait until all that was copied has arrived."""
        for event in self._copied:
            event.synchronize()
        self._copied = []

    def write(self, file: IO[bytes], metadata: Mapping[str, str]) -> None:
        """Write a safetensors file with these tensors and this metadata."""
        text = f'{{"__metadata__": {json.dumps(metadata)}, {self._text[1:]}'.encode()
        text += b" " * (-len(text) % 8)  # the tensors begin at a multiple of 8
        file.write(len(text).to_bytes(8, "little") + text)
        for part in self._memory():
            file.write(part)

    def is_in(self, path: Path) -> bool:
        """Return whether a safetensors file holds the same tensors, bit for bit.

        Raises:
            FormatError: when the file is not whole.
        """
        entries, _ = header(path)
        begin = min((entry.start for entry in entries.values()), default=0)
        theirs = {
            name: {
                "dtype": entry.dtype,
                "shape": list(entry.shape),
                "data_offsets": [entry.start - begin, entry.start - begin + entry.size],
            }
            for name, entry in entries.items()
        }
        if theirs != self.index:
            return False
        with path.open("rb") as file:
            file.seek(begin)
            return all(file.read(len(part)) == part for part in self._memory())

    def _check(self, name: str, kind: str, shape: list[int]) -> None:
        known = self.index[name]
        if (kind, shape) != (known["dtype"], known["shape"]):
            raise RecorderError(
                f"{name!r} is {kind} {shape} now and was {known['dtype']} {known['shape']} when the"
                " recording began: record a model that has changed into another folder."
            )

    def _in_one_piece(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the tensors of the block that lie in one piece of its memory, which most do."""
        for name, entry in self.index.items():
            dtype, (begin, end) = DTYPES[entry["dtype"]], entry["data_offsets"]
            parts = [part for part, _ in self._parts(begin, end)]
            if len(parts) == 1 and parts[0].storage_offset() % dtype.itemsize == 0:
                yield name, parts[0].view(dtype).view(entry["shape"])

    def _spread(self, name: str, tensor: Tensor) -> None:
        """Copy a tensor that lies over several pieces, as bytes."""
        flat = as_bytes(tensor)
        for part, start in self._parts(*self.index[name]["data_offsets"]):
            part.copy_(flat[start : start + len(part)], non_blocking=tensor.is_cuda)

    def _memory(self) -> Iterator[memoryview]:
        """Yield all bytes, a little at a time."""
        for piece in self._pieces:
            for part in piece.split(_GRAIN):
                yield part.numpy().data

    def _parts(self, begin: int, end: int) -> Iterator[tuple[Tensor, int]]:
        """Yield the memory from ``begin`` to ``end``, and how many bytes of it came before."""
        place = 0
        for piece in self._pieces:
            first, last = max(begin, place), min(end, place + len(piece))
            if first < last:
                yield piece[first - place : last - place], first - begin
            place += len(piece)


def _powers_of_two(size: int) -> list[int]:
    """Return sizes that sum up to ``size``, for torch rounds pinned memory up to powers of two."""
    whole_grains = size // _GRAIN
    powers = [1 << k for k in reversed(range(whole_grains.bit_length())) if whole_grains >> k & 1]
    return [_GRAIN * power for power in powers] + [size % _GRAIN] * (size % _GRAIN > 0)


@dataclass(frozen=True, eq=False)
class Job:
    """A checkpoint to write: the filled block, its file, and which files go once it is there."""

    block: Block
    path: Path
    metadata: Mapping[str, str]
    superseded: Sequence[Path] = ()


@final
class Writer:
    """One thread that writes into a folder, and the only one that may.

    One that this process has in the folder already is ended first: what it was given is written,
    and it lends no more. Memory: two blocks, whatever the speed of the disk.

    Args:
        folder: made when it is not there.

    Raises:
        RecorderError: when it cannot be made, or another process writes into it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process = os.getpid()
        self._ended = False
        place = folder.resolve()
        if (older := _OPEN.get(place)) is not None:
            older.end()
        self._lock = _claimed(folder)
        _OPEN[place] = self
        # Queues that a finalizer may use in the middle of one of their own calls.
        self._jobs: queue.SimpleQueue[Job | threading.Event | None] = queue.SimpleQueue()
        self._free: queue.SimpleQueue[Block] = queue.SimpleQueue()
        self._done = threading.Event()  # join() holds a thread for ended that it was interrupted at
        self._made = 0
        self._index: Index = {}
        self._failures: list[tuple[Path, Exception]] = []
        self._thread = threading.Thread(target=self._work, name="landscope recorder", daemon=True)
        self._thread.start()

    def lend(self, tensors: Mapping[str, Tensor]) -> Block:
        """Return a block to fill; waits while all are being written.

        Raises:
            RecorderError: when the writer has ended.
        """
        if self._ended:
            raise RecorderError(
                f"folder={str(self.folder)!r} is being recorded into by another recorder of this"
                " program, which began later: give each training a folder of its own, or close()"
                " this recorder to go on after the other."
            )
        if self._free.empty() and self._made < BLOCKS:
            self._index = self._index or index_of(tensors)
            block = Block(self._index, pinned=any(tensor.is_cuda for tensor in tensors.values()))
            self._made += 1
            return block
        return self._free.get()

    def take_back(self, block: Block) -> None:
        """Take back a block that is not to be written."""
        block.settle()
        self._free.put(block)

    def write(self, job: Job) -> None:
        """Have a checkpoint written: whole or not at all, on the disk before it has its name."""
        self._jobs.put(job)

    def wait(self) -> None:
        """Wait until all is written."""
        done = threading.Event()
        self._jobs.put(done)
        done.wait()

    @property
    def has_failed(self) -> bool:
        """Whether a checkpoint could not be written, which nobody has been told yet."""
        return bool(self._failures)

    def tell(self) -> None:
        """Raise what went wrong since the last time.

        Raises:
            RecorderError: naming the first checkpoint that could not be written, and the reason.
        """
        if self._failures and self.process == os.getpid():
            failures, self._failures = self._failures, []
            path, error = failures[0]
            more = f", and {len(failures) - 1} more," if len(failures) > 1 else ""
            raise RecorderError(
                f"{path}{more} could not be written ({error}): make room, or record into another"
                " folder. What was written before is whole, and the next call tries again."
            ) from error

    def end(self) -> None:
        """Write what is left, and end the thread; in a process that was forked off, do nothing."""
        if self.process != os.getpid():
            return
        self._ended = True
        self._jobs.put(None)
        if threading.current_thread() is not self._thread:  # where garbage may be collected, too
            self._done.wait()
            self._thread.join()

    def close(self) -> None:
        """End, and tell.

        Raises:
            RecorderError: as :meth:`tell`.
        """
        self.end()
        self.tell()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            if isinstance(job, threading.Event):
                job.set()
                continue
            try:
                job.block.settle()
                _write(job)
            except Exception as error:  # whatever it is, it is told at the next call
                self._failures.append((job.path, error))
            finally:
                self._free.put(job.block)
        self._lock.close()
        self._done.set()


# One whose owner is gone, or was interrupted while it waited for it, is here until it has ended.
_OPEN: weakref.WeakValueDictionary[Path, Writer] = weakref.WeakValueDictionary()


def _write(job: Job) -> None:
    with whole(job.path) as part, part.open("wb") as file:
        job.block.write(file, job.metadata)
        file.flush()
        # Without this a power cut can leave a short file under the final name.
        os.fsync(file.fileno())
    for path in job.superseded:
        path.unlink(missing_ok=True)


def _claimed(folder: Path) -> IO[bytes]:
    """Return the open lock of a folder; the system gives it up when the process dies."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / _LOCK).open("ab")
    except OSError as error:
        raise RecorderError(
            f"folder={str(folder)!r} cannot be written ({error}): choose a folder that you may"
            " write to."
        ) from error
    if fcntl is not None:
        try:
            # A lock of the process: workers of a DataLoader that outlive a killed training for
            # some seconds do not hold it.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            raise RecorderError(
                f"folder={str(folder)!r} is being recorded into by another process: give each"
                " training a folder of its own."
            ) from error
        except OSError:  # pragma: no cover - file systems without locks
            pass
    return file
